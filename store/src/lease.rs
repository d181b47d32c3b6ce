//! Leases: what a running pull, load or save needs is not collected.
//!
//! A lease is a file with one digest a line, and its lock is held while its owner lives. A dead owner's lease (he was
//! killed, or has suspended it) goes on protecting what he had, so that the next try finds it and adopts the lease.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use larder_oci::{Digest, ImageKey};

use crate::{
    Store, StoredImage,
    error::{Result, StoreError, found},
    layout::{Layout, names, remove_file},
    lock::{ExclusiveLock, SharedLock, same_file, try_lock},
};

/// The right to write blobs and to rely on those that are there.
///
/// What happens to its file at the end:
/// - dropped after [`Lease::commit`] or [`Lease::release`]: deleted. The image protects its blobs now, or nobody
///   needs them.
/// - dropped otherwise, suspended, or the process is killed: kept, so that blobs and unfinished blobs are there for
///   the next lease of the same image, until it is adopted by that, forgotten ([`Store::forget`]) or too old
///   ([`CollectOptions`](crate::CollectOptions)).
#[derive(Debug)]
pub struct Lease {
    store: Store,
    key: ImageKey,
    path: PathBuf,
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    protected: BTreeSet<Digest>,
    keep: bool,
    /// A dead owner left it.
    adopted: bool,
}

/// A lease that nobody else has: its file is locked.
struct Locked {
    path: PathBuf,
    file: File,
    protected: BTreeSet<Digest>,
}

impl Store {
    /// Takes a lease for an image: the ones that dead owners left, or a new one.
    ///
    /// Several live leases of one image may exist; each protects what it names. Waits for a collection to end.
    pub fn lease(&self, key: &ImageKey) -> Result<Lease> {
        let _shared = SharedLock::take(&self.layout)?;
        // While digests move from one lease to another, no collection may be reading them.
        let mut dead = dead_leases(&self.layout, key)?.into_iter();
        let Some(mut adopted) = dead.next() else { return self.new_lease(key, true) };
        for other in dead {
            let more: Vec<_> = other.protected.difference(&adopted.protected).cloned().collect();
            append(&adopted.path, &adopted.file, more.iter())?;
            adopted.protected.extend(more);
            remove_file(&other.path)?;
        }
        let Locked { path, file, protected } = adopted;
        let state = Mutex::new(State { protected, keep: true, adopted: true });
        let lease = Lease { store: self.clone(), key: key.clone(), path, file, state };
        lease.touch();
        Ok(lease)
    }

    /// Takes a lease on the blobs of an image that is in the store, to read them in peace. It protects nothing
    /// beyond its own life. [`StoreError::NotFound`] if one of the blobs is not there.
    pub fn hold(&self, image: &StoredImage) -> Result<Lease> {
        let lease = {
            let _shared = SharedLock::take(&self.layout)?;
            self.new_lease(&image.key, false)?
        };
        lease.protect([&image.manifest_digest, &image.target])?;
        let blobs = self.image_blobs(image)?;
        lease.protect(blobs.keys())?;
        for digest in blobs.keys().chain([&image.target]) {
            self.blob_size(digest)?.ok_or_else(|| self.not_found(digest))?;
        }
        Ok(lease)
    }

    /// Drops the leases that dead owners left for an image that nobody wants any more. What they protected goes with
    /// the next collection, unless something else needs it. Returns how many there were.
    pub fn forget(&self, key: &ImageKey) -> Result<usize> {
        let _lock = ExclusiveLock::take(&self.layout)?;
        let dead = dead_leases(&self.layout, key)?;
        dead.iter().try_for_each(|lease| remove_file(&lease.path).map(drop))?;
        Ok(dead.len())
    }

    /// The caller holds the store's lock, shared.
    fn new_lease(&self, key: &ImageKey, keep: bool) -> Result<Lease> {
        loop {
            let name = format!("{}{:016x}", prefix(key), fastrand::u64(..));
            let path = self.layout.leases().join(name);
            let open = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path);
            let file = match open {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(StoreError::io("create", &path))?,
            };
            // Between its creation and this, another process may have found and adopted it.
            let ours = try_lock(&file).and_then(|ours| Ok(ours && same_file(&file, &path)?));
            if ours.map_err(StoreError::io("lock", &path))? {
                (&file).write_all(format!("{key}\n").as_bytes()).map_err(StoreError::io("write", &path))?;
                let state = Mutex::new(State { protected: BTreeSet::new(), keep, adopted: false });
                return Ok(Lease { store: self.clone(), key: key.clone(), path, file, state });
            }
        }
    }
}

impl Lease {
    /// The image it was taken for.
    #[must_use]
    pub fn key(&self) -> &ImageKey {
        &self.key
    }

    /// Keeps blobs, whether they are there or are yet to come, from being collected, from now on.
    ///
    /// To rely on a blob that is there, protect it first and look for it then: a collection that was under way is over
    /// when this returns, and the next one will see the lease.
    pub fn protect<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        let mut state = self.state();
        let new: BTreeSet<Digest> =
            digests.into_iter().filter(|digest| !state.protected.contains(*digest)).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        {
            let _shared = SharedLock::take(&self.store.layout)?;
            append(&self.path, &self.file, new.iter())?;
        }
        // Other processes see it already. This is for after a power cut, so that what was fetched is still wanted.
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
        state.protected.extend(new);
        Ok(())
    }

    /// Leaves everything for a later try. The same as dropping it uncommitted, and plainer to read.
    pub fn suspend(self) {
        self.state().keep = true;
    }

    /// Gives up: what only this lease protects goes with the next collection.
    pub fn release(self) {
        self.served();
    }

    /// Leaves things as they were before it was taken: what an earlier try has left is still kept, and a lease that is new
    /// goes with its owner.
    pub fn undo(&self) {
        let mut state = self.state();
        state.keep = state.adopted;
    }

    /// The store that it is a lease of.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The lease is not needed beyond its owner's life.
    pub(crate) fn served(&self) {
        self.state().keep = false;
    }

    pub(crate) fn must_protect(&self, digest: &Digest) -> Result<()> {
        if self.state().protected.contains(digest) {
            Ok(())
        } else {
            Err(StoreError::NotProtected { digest: digest.clone() })
        }
    }

    /// Counts its age from now. Best effort: age only matters once the owner is dead, and then in days.
    pub(crate) fn touch(&self) {
        if let Err(error) = self.file.set_modified(SystemTime::now()) {
            tracing::debug!(lease = %self.path.display(), %error, "cannot set the lease's time");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let state = self.state();
        if state.keep && !state.protected.is_empty() {
            self.touch();
        } else if let Err(error) = remove_file(&self.path) {
            // It stays as a dead lease, and ages.
            tracing::warn!(%error, "cannot delete a lease that has served its purpose");
        }
    }
}

/// What all leases protect; those of dead owners that have not changed since `oldest` are deleted instead. The caller
/// holds the store's lock, so that no lease changes meanwhile.
pub(crate) fn protected(
    layout: &Layout,
    _lock: &ExclusiveLock,
    oldest: SystemTime,
) -> Result<BTreeSet<Digest>> {
    let mut protected = BTreeSet::new();
    for name in names(&layout.leases())? {
        let path = layout.leases().join(name);
        let Some(mut file) = found(File::open(&path)).map_err(StoreError::io("open", &path))? else {
            continue;
        };
        let dead = try_lock(&file).map_err(StoreError::io("lock", &path))?;
        let changed = file.metadata().and_then(|metadata| metadata.modified());
        if dead && changed.map_err(StoreError::io("look at", &path))? < oldest {
            remove_file(&path)?;
        } else {
            protected.append(&mut read(&path, &mut file)?);
        }
    }
    Ok(protected)
}

/// The leases of an image that dead owners left. They are ours now.
fn dead_leases(layout: &Layout, key: &ImageKey) -> Result<Vec<Locked>> {
    let prefix = prefix(key);
    let mut dead = Vec::new();
    for name in names(&layout.leases())? {
        if !name.to_str().is_some_and(|name| name.starts_with(&prefix)) {
            continue;
        }
        let path = layout.leases().join(name);
        let open = found(OpenOptions::new().read(true).append(true).open(&path));
        let Some(mut file) = open.map_err(StoreError::io("open", &path))? else { continue };
        let ours = try_lock(&file).map_err(StoreError::io("lock", &path))?;
        if ours && same_file(&file, &path).map_err(StoreError::io("look at", &path))? {
            let protected = read(&path, &mut file)?;
            dead.push(Locked { path, file, protected });
        }
    }
    Ok(dead)
}

/// The digests in a lease's file. Other lines (the image's name, for people; one that a full disk or a power cut has
/// torn) are passed over.
fn read(path: &Path, file: &mut File) -> Result<BTreeSet<Digest>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect())
}

/// The file is open for appending. A line break comes first, in case the last line is torn.
fn append<'a>(path: &Path, mut file: &File, digests: impl Iterator<Item = &'a Digest>) -> Result<()> {
    let mut text = String::from("\n");
    for digest in digests {
        let _ = writeln!(text, "{digest}");
    }
    file.write_all(text.as_bytes()).map_err(StoreError::io("write", path))
}

/// What the names of an image's leases begin with.
fn prefix(key: &ImageKey) -> String {
    let hash = Digest::sha256(format!("{}\n{}", key.name, key.platform).as_bytes());
    format!("{}-", &hash.hex()[..32])
}
