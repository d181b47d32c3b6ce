//! Blobs that were handed over: in the place of a layer's file, a marker says that the annex has it.
//!
//! A blob is in the store if its file is there, or its marker. Handing over writes the marker, syncs it and removes the file
//! then, so that one of the two is there at any instant, power cuts included; whoever looks for both looks for the file
//! first. Both together are what a kill leaves between the two steps, and mean no harm.
//!
//! Who removes files or markers holds the store's lock: handing over the shared one, since it takes nothing from anybody,
//! [`Store::lost`] and collections the exclusive one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{ErrorKind, Write},
};

use larder_oci::Digest;

use crate::{
    Lease, Store,
    error::{Result, StoreError},
    layout::{digests, make_dir, read_bounded, remove_file, sync_dir},
    lock::{ExclusiveLock, SharedLock},
};

/// A number fits into so many bytes.
const MAX_MARKER: u64 = 32;

impl Store {
    /// Drops layers that the annex has: each is read from there from now on, until it is [lost](Store::lost). Returns how
    /// many bytes that freed. What is not here is passed over.
    ///
    /// Only layers may go. A manifest or a configuration that is elsewhere could be read by those alone who have an annex,
    /// and other tools not at all.
    pub fn hand_over<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<u64> {
        let mut freed = 0;
        let mut gone = Vec::new();
        {
            let _shared = SharedLock::take(&self.layout)?;
            let mut marked = Vec::new();
            for digest in digests {
                if let Some(size) = self.file_size(digest)? {
                    self.write_marker(digest, size)?;
                    marked.push((digest, size));
                }
            }
            self.sync_markers(marked.iter().map(|(digest, _)| *digest))?;
            for (digest, size) in marked {
                // Unlinking a large file takes its time, and collections wait for us.
                let (from, to) = (self.layout.blob(digest), self.layout.discarded(digest));
                match fs::rename(&from, &to) {
                    Ok(()) => {
                        freed += size;
                        gone.push(to);
                    }
                    // Someone else is handing it over as well.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(StoreError::io("remove", &from)(error)),
                }
            }
        }
        gone.iter().try_for_each(|path| remove_file(path).map(drop))?;
        Ok(freed)
    }

    /// The blobs that are in the annex and not here, with their sizes in bytes.
    pub fn handed_over(&self) -> Result<BTreeMap<Digest, u64>> {
        let mut handed_over = BTreeMap::new();
        for digest in digests(&self.layout.markers())? {
            if self.file_size(&digest)?.is_none()
                && let Some(size) = self.marked_size(&digest)?
            {
                handed_over.insert(digest, size);
            }
        }
        Ok(handed_over)
    }

    /// Notes that the annex has lost blobs: images that need them are not complete any more, and a pull fetches them again.
    pub fn lost<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        let mut digests = digests.into_iter().peekable();
        if digests.peek().is_none() {
            return Ok(());
        }
        // Else a marker might go between its writing and the removal of the file.
        let _lock = ExclusiveLock::take(&self.layout)?;
        digests.try_for_each(|digest| remove_file(&self.layout.marker(digest)).map(drop))
    }

    /// Whether a layer need not be fetched: it is here, or the annex has it ([`Store::adopt`]).
    pub fn find_layer(&self, lease: &Lease, digest: &Digest, size: u64) -> Result<bool> {
        Ok(self.file_size(digest)? == Some(size) || self.adopt(lease, digest, size)?)
    }

    /// The same for those who will read it from here: where the annex gives nothing back, what it has is fetched all the same.
    pub fn find_readable_layer(&self, lease: &Lease, digest: &Digest, size: u64) -> Result<bool> {
        Ok(self.find_layer(lease, digest, size)? && self.is_readable(digest, size)?)
    }

    /// Asks the annex for a layer that is not here and about to be fetched from a registry. True: it has the layer and
    /// keeps it, there is nothing to fetch. The lease must protect the layer.
    ///
    /// It is asked as well where a marker says that it has the layer: who kept that there so far may let go of it.
    pub fn adopt(&self, lease: &Lease, digest: &Digest, size: u64) -> Result<bool> {
        lease.must_protect(digest)?;
        let marked = self.marked_size(digest)?;
        if marked.is_some_and(|marked| marked != size) {
            // One of two descriptors lies. The bytes will tell.
            return Ok(false);
        }
        let Some(annex) = &self.annex else { return Ok(marked.is_some()) };
        match annex.keep(self.id()?, digest, size) {
            Ok(true) => self.write_marker(digest, size).map(|()| true),
            Ok(false) => {
                self.lost(marked.map(|_| digest))?;
                Ok(false)
            }
            Err(error) => {
                tracing::warn!(%digest, %error, "cannot ask the container runtime for a layer");
                Ok(marked.is_some())
            }
        }
    }

    /// The size in bytes of a blob that was handed over. A marker that can't be understood is none: the blob is fetched.
    pub(crate) fn marked_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(bytes) = read_bounded(&self.layout.marker(digest), MAX_MARKER)? else { return Ok(None) };
        Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse().ok()))
    }

    /// Writes a marker unless it is there. It is whole at any instant; its name is durable only once
    /// [`Store::sync_markers`] has seen to that.
    pub(crate) fn write_marker(&self, digest: &Digest, size: u64) -> Result<()> {
        if self.marked_size(digest)? == Some(size) {
            return Ok(());
        }
        let marker = self.layout.marker(digest);
        make_dir(&self.layout.marker_folder(digest), 0o700)?;
        loop {
            // Collections leave alone what is locked there, and take what a kill has left.
            let name = format!("{}.{:016x}", digest.hex(), fastrand::u64(..));
            let path = self.layout.partial(digest).with_file_name(name);
            let Some(mut file) = self.lock_partial(digest.algorithm_name(), &path)? else { continue };
            writeln!(file, "{size}")
                .and_then(|()| file.sync_data())
                .map_err(StoreError::io("write", &path))?;
            return fs::rename(&path, &marker).map_err(StoreError::io("name", &marker));
        }
    }

    /// Makes the names of these markers durable.
    pub(crate) fn sync_markers<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Result<()> {
        let folders: BTreeSet<_> = digests.map(|digest| self.layout.marker_folder(digest)).collect();
        if folders.is_empty() {
            return Ok(());
        }
        folders.iter().try_for_each(|folder| sync_dir(folder))?;
        sync_dir(&self.layout.markers())
    }

    /// Deletes the markers of blobs that are not needed; returns which.
    pub(crate) fn discard_markers(
        &self,
        _lock: &ExclusiveLock,
        needed: impl Fn(&Digest) -> bool,
    ) -> Result<Vec<Digest>> {
        let mut gone = digests(&self.layout.markers())?;
        gone.retain(|digest| !needed(digest));
        gone.iter().try_for_each(|digest| remove_file(&self.layout.marker(digest)).map(drop))?;
        Ok(gone)
    }
}
