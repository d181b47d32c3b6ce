//! Writing blobs so that a name is proof of content.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use larder_oci::{Digest, Hasher, ImageKey};
use rustix::fs::{Advice, fadvise};

use crate::{
    AnnexIngest, AnnexWriter, Lease, Store,
    error::{Result, StoreError, found},
    layout::{make_dir, remove_file},
    lock::{same_file, try_lock},
    read::{BlobState, hash_rest},
};

/// After how many bytes the kernel is asked to begin writing them to the disk, so that the sync at the end should find
/// little left to do.
const WRITE_BACK: u64 = 8 << 20;

/// The answer to a wish to write a blob.
#[derive(Debug)]
pub enum Ingest {
    /// The store has the blob: nothing to do.
    Present,
    /// Someone else, in this process or another, is writing it. Ask again in a moment (50 ms is a good one): the
    /// answer will be `Present` when they are done, or `Write` with what they leave when they give up or die.
    Busy,
    /// It is the caller's to write.
    Write(BlobWriter),
}

impl Store {
    /// Where a blob is or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout.blob(digest)
    }

    /// How many bytes of an unfinished blob are there to go on from.
    pub fn partial_size(&self, digest: &Digest) -> Result<u64> {
        let path = self.layout.partial(digest);
        let metadata = found(fs::symlink_metadata(&path)).map_err(StoreError::io("look at", &path))?;
        Ok(metadata.map_or(0, |metadata| metadata.len()))
    }

    /// Writes a small blob that is at hand, such as a manifest. The lease must protect it.
    ///
    /// Never waits for another writer of the same blob, and mends a blob that is there and damaged. One that was handed
    /// over is here again afterwards.
    pub fn put_blob(&self, lease: &Lease, digest: &Digest, bytes: &[u8]) -> Result<()> {
        lease.must_protect(digest)?;
        let size = bytes.len() as u64;
        if self.file_size(digest)? == Some(size) && self.check_file(digest)? == BlobState::Intact {
            return Ok(());
        }
        loop {
            let name = format!("{}.{:016x}", digest.hex(), fastrand::u64(..));
            let path = self.layout.partial(digest).with_file_name(name);
            if let Some(file) = self.lock_partial(digest.algorithm_name(), &path)? {
                let mut writer = BlobWriter::new(self, file, path, digest, size)?;
                writer.write(bytes)?;
                return writer.finish();
            }
        }
    }

    /// Opens the file of a blob in the making and becomes its one writer; `None` if someone else is.
    pub(crate) fn lock_partial(&self, algorithm: &str, path: &Path) -> Result<Option<File>> {
        make_dir(&self.layout.partials().join(algorithm), 0o700)?;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                // The mode that it will have as a blob; the folder keeps others out until then.
                .mode(0o644)
                .open(path)
                .map_err(StoreError::io("create", path))?;
            if !try_lock(&file).map_err(StoreError::io("lock", path))? {
                return Ok(None);
            }
            // Else its writer has finished, or it was collected, after we had opened it. If finished, what we hold is
            // the blob itself: not to be touched.
            if same_file(&file, path).map_err(StoreError::io("look at", path))? {
                return Ok(Some(file));
            }
        }
    }
}

impl Lease {
    /// Asks to write a blob of `size` bytes. The lease must protect it ([`Lease::protect`]).
    ///
    /// A blob that was handed over counts as present. Bytes that an earlier try left are read and hashed again before this
    /// returns.
    pub fn ingest(&self, digest: &Digest, size: u64) -> Result<Ingest> {
        self.ingest_unless(digest, size, Store::has)
    }

    /// The same for those who have the bytes, or will read them again from here: a blob that was handed over counts as
    /// present only if the annex opens it.
    pub fn ingest_readable(&self, digest: &Digest, size: u64) -> Result<Ingest> {
        self.ingest_unless(digest, size, Store::is_readable)
    }

    /// The same for a layer that the annex is about to be given: where the annex takes it so, its bytes go there at once, are
    /// on the disk once, and finished it counts as handed over. What an earlier try left here is gone on with here.
    pub fn ingest_to_annex(&self, digest: &Digest, size: u64) -> Result<Ingest> {
        match self.ingest(digest, size)? {
            Ingest::Write(writer) if writer.offset == 0 => writer.divert(self.key()),
            other => Ok(other),
        }
    }

    fn ingest_unless(
        &self,
        digest: &Digest,
        size: u64,
        present: fn(&Store, &Digest, u64) -> Result<bool>,
    ) -> Result<Ingest> {
        self.must_protect(digest)?;
        self.touch();
        let store = self.store();
        if present(store, digest, size)? {
            return Ok(Ingest::Present);
        }
        let path = store.layout.partial(digest);
        let Some(file) = store.lock_partial(digest.algorithm_name(), &path)? else { return Ok(Ingest::Busy) };
        // The former writer may have finished between the two steps above.
        if present(store, digest, size)? {
            remove_file(&path)?;
            return Ok(Ingest::Present);
        }
        BlobWriter::new(store, file, path, digest, size).map(Ingest::Write)
    }
}

/// Writes one blob. Bytes are hashed as they arrive, and only [`BlobWriter::finish`] gives the file the blob's name. One that
/// goes straight into the annex is hashed there, and the annex refuses to name what has another digest.
///
/// Nothing is held back in memory: after each write the bytes are the kernel's, and a kill loses none of them.
/// Dropped unfinished, the bytes stay for the next try.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    /// Its lock makes this the blob's one writer.
    file: File,
    path: PathBuf,
    digest: Digest,
    size: u64,
    offset: u64,
    /// Up to where the kernel has been asked to begin writing.
    written_back: u64,
    resumed: bool,
    hasher: HasherState,
    /// Where the bytes go instead. The file stays empty, and is there for its lock alone.
    annex: Option<Box<dyn AnnexWriter>>,
}

/// Keeps the hasher out of `Debug`.
struct HasherState(Box<Hasher>);

impl fmt::Debug for HasherState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Hasher")
    }
}

impl BlobWriter {
    fn new(store: &Store, file: File, path: PathBuf, digest: &Digest, size: u64) -> Result<Self> {
        let hasher = HasherState(Box::new(Hasher::new(digest.algorithm())));
        let (store, digest) = (store.clone(), digest.clone());
        let mut writer = Self {
            store,
            file,
            path,
            digest,
            size,
            offset: 0,
            written_back: 0,
            resumed: false,
            hasher,
            annex: None,
        };
        let there = writer.file.metadata().map_err(StoreError::io("look at", &writer.path))?.len();
        if there > size {
            writer.restart()?;
        } else if there > 0 {
            let read = hash_rest(&mut writer.file, &mut writer.hasher.0);
            writer.offset = read.map_err(StoreError::io("read", &writer.path))?;
            writer.written_back = writer.offset;
            writer.resumed = true;
        }
        Ok(writer)
    }

    /// Writes to the annex instead, where that takes the blob so.
    fn divert(mut self, image: &ImageKey) -> Result<Ingest> {
        let Some(annex) = &self.store.annex else { return Ok(Ingest::Write(self)) };
        let begun = annex.ingest(image, &self.digest, self.size);
        match begun.map_err(|error| self.annex_failed(error))? {
            AnnexIngest::Declined => Ok(Ingest::Write(self)),
            AnnexIngest::Busy => Ok(Ingest::Busy),
            AnnexIngest::Present => {
                self.left_to_annex()?;
                Ok(Ingest::Present)
            }
            AnnexIngest::Write(writer) => {
                self.offset = writer.offset();
                self.resumed = self.offset > 0;
                self.annex = Some(writer);
                Ok(Ingest::Write(self))
            }
        }
    }

    fn annex_failed(&self, source: io::Error) -> StoreError {
        StoreError::Annex { digest: self.digest.clone(), source }
    }

    /// The annex has the blob.
    fn left_to_annex(&self) -> Result<()> {
        self.store.write_marker(&self.digest, self.size)?;
        remove_file(&self.path).map(drop)
    }

    /// The blob's digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The size in bytes that the blob will have.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes are there. The next ones to write are those that follow.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends the next bytes. More than the blob's size is refused, and then none of them are written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &self.annex {
            Some(_) => self.write_owned(Bytes::copy_from_slice(bytes)),
            None => self.write_here(bytes),
        }
    }

    /// As [`BlobWriter::write`], and an annex is given the bytes themselves, not a copy.
    pub fn write_owned(&mut self, bytes: Bytes) -> Result<()> {
        self.check_room(bytes.len())?;
        let Some(annex) = &mut self.annex else { return self.write_here(&bytes) };
        let written = annex.write(bytes);
        self.offset = annex.offset();
        written.map_err(|error| self.annex_failed(error))
    }

    fn check_room(&self, length: usize) -> Result<()> {
        let actual = self.offset.saturating_add(length as u64);
        if actual <= self.size {
            return Ok(());
        }
        Err(StoreError::SizeMismatch { digest: self.digest.clone(), expected: self.size, actual })
    }

    fn write_here(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.check_room(bytes.len())?;
        // What was written is hashed even if a later part is not, so that hash and file stay together.
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(StoreError::io("write", &self.path)(io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    let (done, rest) = bytes.split_at(written);
                    self.hasher.0.update(done);
                    self.offset += done.len() as u64;
                    bytes = rest;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("write", &self.path)(error)),
            }
        }
        self.begin_write_back();
        Ok(())
    }

    /// Has the kernel begin to write what it holds of this file. "Not needed" is what makes Linux do so without anyone
    /// waiting (`sync_file_range` is the other way, which takes unsafe code); pages that are on their way to the disk
    /// stay in memory all the same. A hint: that it fails changes nothing.
    fn begin_write_back(&mut self) {
        let new = self.offset - self.written_back;
        if let Some(length) = std::num::NonZeroU64::new(new).filter(|length| length.get() >= WRITE_BACK) {
            let _ = fadvise(&self.file, self.written_back, Some(length), Advice::DontNeed);
            self.written_back = self.offset;
        }
    }

    /// Forgets all bytes, for sources that cannot go on from an offset.
    pub fn restart(&mut self) -> Result<()> {
        if let Some(annex) = &mut self.annex {
            let restarted = annex.restart();
            (self.offset, self.resumed) = (annex.offset(), false);
            return restarted.map_err(|error| self.annex_failed(error));
        }
        let empty = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0)).map(drop)
        };
        empty(&mut self.file).map_err(StoreError::io("empty", &self.path))?;
        self.hasher = HasherState(Box::new(Hasher::new(self.digest.algorithm())));
        self.offset = 0;
        self.written_back = 0;
        self.resumed = false;
        Ok(())
    }

    /// Checks size and digest, and gives the file its name.
    ///
    /// Too few bytes are an error, and they stay for the next try. With the wrong digest they are deleted. The
    /// content is on the disk before it gets the name; the name itself is when the image is committed.
    pub fn finish(mut self) -> Result<()> {
        if self.offset != self.size {
            return Err(StoreError::SizeMismatch {
                digest: self.digest,
                expected: self.size,
                actual: self.offset,
            });
        }
        match self.annex.take() {
            Some(annex) => self.finish_in(annex),
            None => self.finish_here(),
        }
    }

    fn finish_in(self, annex: Box<dyn AnnexWriter>) -> Result<()> {
        match annex.finish().map_err(|error| self.annex_failed(error))? {
            Ok(()) => self.left_to_annex(),
            Err(actual) => {
                Err(StoreError::DigestMismatch { expected: self.digest, actual, resumed: self.resumed })
            }
        }
    }

    fn finish_here(self) -> Result<()> {
        let Self { store, file, path, digest, resumed, hasher, .. } = self;
        let actual = hasher.0.finish();
        if actual != digest {
            remove_file(&path)?;
            return Err(StoreError::DigestMismatch { expected: digest, actual, resumed });
        }
        file.sync_data().map_err(StoreError::io("sync", &path))?;
        make_dir(&store.layout.blob_folder(&digest), 0o755)?;
        let blob = store.layout.blob(&digest);
        fs::rename(&path, &blob).map_err(StoreError::io("name", &blob))
        // Only here does `file` go, and with it the lock.
    }
}
