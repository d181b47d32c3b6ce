//! Reading blobs, wherever they are.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
};

use larder_oci::{Digest, Hasher};

use crate::{
    AnnexBlob, Store,
    error::{Result, StoreError, found},
    layout::remove_file,
    lock::ExclusiveLock,
};

/// How much is read at a time when a blob is hashed.
const HASH_BUFFER: usize = 1 << 20;

/// What is known of a blob after reading all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// It is not there.
    Absent,
    /// It is there and has its digest.
    Intact,
    /// It is there and does not have its digest: the disk or another program damaged it.
    Damaged,
}

/// A blob, open for reading. It stays readable even if it is collected or handed over meanwhile.
pub struct Blob {
    source: Source,
    size: u64,
    digest: Digest,
    /// Where its file is or was.
    path: PathBuf,
}

enum Source {
    Here(File),
    Elsewhere(Box<dyn AnnexBlob>),
}

impl Blob {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its file, for those who can do better with one; `None` if it was handed over.
    #[must_use]
    pub fn as_file(&self) -> Option<&File> {
        match &self.source {
            Source::Here(file) => Some(file),
            Source::Elsewhere(_) => None,
        }
    }

    /// Its file, at the position it was read to; itself if it was handed over.
    pub fn into_file(self) -> std::result::Result<File, Self> {
        match self.source {
            Source::Here(file) => Ok(file),
            source @ Source::Elsewhere(_) => Err(Self { source, ..self }),
        }
    }

    /// Says of an error that reading it gave, what could not be read.
    #[must_use]
    pub fn failed(&self, error: io::Error) -> StoreError {
        match self.source {
            Source::Here(_) => StoreError::io("read", &self.path)(error),
            Source::Elsewhere(_) => StoreError::Annex { digest: self.digest.clone(), source: error },
        }
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.as_file().is_some() { "here" } else { "elsewhere" };
        write!(formatter, "Blob({} bytes, {place})", self.size)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Here(file) => file.read(buffer),
            Source::Elsewhere(blob) => blob.read(buffer),
        }
    }
}

impl Seek for Blob {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.source {
            Source::Here(file) => file.seek(to),
            Source::Elsewhere(blob) => blob.seek(to),
        }
    }
}

impl Store {
    /// A blob's size in bytes, if the store has it, be it here or handed over.
    ///
    /// Without a lease that protects the blob, a collection may take it the moment after.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        if let Some(size) = self.file_size(digest)? {
            return Ok(Some(size));
        }
        match self.marked_size(digest)? {
            Some(size) => Ok(Some(size)),
            // It may have come back between the two looks, and its marker gone.
            None => self.file_size(digest),
        }
    }

    /// The size of a blob's file.
    pub(crate) fn file_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.layout.blob(digest);
        match found(fs::symlink_metadata(&path)).map_err(StoreError::io("look at", &path))? {
            Some(metadata) if !metadata.is_file() => Err(StoreError::Corrupt {
                path,
                why: "it is not a regular file".to_owned(),
                advice: "remove it; what needs the blob will fetch it again",
            }),
            other => Ok(other.map(|metadata| metadata.len())),
        }
    }

    /// Opens a blob for reading, in the annex if it was handed over.
    pub fn open_blob(&self, digest: &Digest) -> Result<Blob> {
        if let Some(blob) = self.open_file(digest)? {
            return Ok(blob);
        }
        // Only now: what is handed over has its marker before its file goes.
        match self.marked_size(digest)? {
            Some(size) => self.open_elsewhere(digest, size),
            None => self.open_file(digest)?.ok_or_else(|| self.not_found(digest)),
        }
    }

    fn open_file(&self, digest: &Digest) -> Result<Option<Blob>> {
        let path = self.layout.blob(digest);
        let Some(file) = found(File::open(&path)).map_err(StoreError::io("open", &path))? else {
            return Ok(None);
        };
        let size = file.metadata().map_err(StoreError::io("look at", &path))?.len();
        Ok(Some(Blob { source: Source::Here(file), size, digest: digest.clone(), path }))
    }

    fn open_elsewhere(&self, digest: &Digest, size: u64) -> Result<Blob> {
        let Some(annex) = &self.annex else { return Err(StoreError::Elsewhere { digest: digest.clone() }) };
        match annex.open(digest) {
            Ok(blob) => Ok(Blob {
                source: Source::Elsewhere(blob),
                size,
                digest: digest.clone(),
                path: self.layout.blob(digest),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Lost { digest: digest.clone() })
            }
            Err(source) => Err(StoreError::Annex { digest: digest.clone(), source }),
        }
    }

    /// Reads a blob of at most `max` bytes into memory and checks it against its digest.
    pub fn read_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let size = self.blob_size(digest)?.ok_or_else(|| self.not_found(digest))?;
        if size > max {
            return Err(StoreError::TooLarge { digest: digest.clone(), size, max });
        }
        let mut bytes = Vec::new();
        let mut blob = self.open_blob(digest)?;
        blob.by_ref().take(max).read_to_end(&mut bytes).map_err(|error| blob.failed(error))?;
        if digest.matches(&bytes) { Ok(bytes) } else { Err(self.damaged(digest, blob.as_file().is_some())) }
    }

    /// Reads a whole blob and compares it with its digest.
    pub fn check_blob(&self, digest: &Digest) -> Result<BlobState> {
        match self.open_blob(digest) {
            Err(StoreError::NotFound { .. } | StoreError::Lost { .. }) => Ok(BlobState::Absent),
            other => check(digest, other?),
        }
    }

    /// The same for the blob's file alone.
    pub(crate) fn check_file(&self, digest: &Digest) -> Result<BlobState> {
        match self.open_file(digest)? {
            None => Ok(BlobState::Absent),
            Some(blob) => check(digest, blob),
        }
    }

    /// Removes a blob that does not have its digest, so that it can be fetched again, and says in which state it was.
    ///
    /// [`StoreError::Corrupt`] if it was handed over: the store can't remove what a container runtime has.
    pub fn discard_damaged(&self, digest: &Digest) -> Result<BlobState> {
        let state = self.check_blob(digest)?;
        if state != BlobState::Damaged {
            return Ok(state);
        }
        let _lock = ExclusiveLock::take(&self.layout)?;
        // Someone may have replaced it while we waited.
        match self.check_file(digest)? {
            BlobState::Damaged => remove_file(&self.layout.blob(digest)).map(|_| BlobState::Damaged),
            BlobState::Absent if self.marked_size(digest)?.is_some() => Err(self.damaged(digest, false)),
            state => Ok(state),
        }
    }

    pub(crate) fn not_found(&self, digest: &Digest) -> StoreError {
        StoreError::NotFound { digest: digest.clone(), root: self.root().to_owned() }
    }

    fn damaged(&self, digest: &Digest, is_here: bool) -> StoreError {
        if is_here {
            StoreError::Corrupt {
                path: self.layout.blob(digest),
                why: "its content does not have the digest that is its name".to_owned(),
                advice: "remove it; what needs the blob will fetch it again",
            }
        } else {
            StoreError::Corrupt {
                path: self.layout.marker(digest),
                why: "the node's container runtime has other bytes for this digest".to_owned(),
                advice: "remove there the images that have the layer, and pull them again",
            }
        }
    }

    /// Whether the store has the blob, be it here or handed over. One whose size is not the expected one is either damaged
    /// and counts as absent, or it is the descriptor that lies.
    pub(crate) fn has(&self, digest: &Digest, expected: u64) -> Result<bool> {
        Ok(self.has_file(digest, expected)? || self.marked_size(digest)? == Some(expected))
    }

    /// The same, and a blob that was handed over can be read from here.
    pub fn is_readable(&self, digest: &Digest, expected: u64) -> Result<bool> {
        if self.has_file(digest, expected)? {
            return Ok(true);
        }
        if self.marked_size(digest)? != Some(expected) {
            return Ok(false);
        }
        Ok(self.open_elsewhere(digest, expected).is_ok())
    }

    pub(crate) fn has_file(&self, digest: &Digest, expected: u64) -> Result<bool> {
        match self.file_size(digest)? {
            Some(actual) if actual == expected => Ok(true),
            Some(actual) if self.check_file(digest)? == BlobState::Intact => {
                Err(StoreError::SizeMismatch { digest: digest.clone(), expected, actual })
            }
            None | Some(_) => Ok(false),
        }
    }
}

fn check(digest: &Digest, mut blob: Blob) -> Result<BlobState> {
    let mut hasher = Hasher::new(digest.algorithm());
    hash_rest(&mut blob, &mut hasher).map_err(|error| blob.failed(error))?;
    Ok(if hasher.finish() == *digest { BlobState::Intact } else { BlobState::Damaged })
}

/// Hashes from where it is to its end; returns the number of bytes.
pub(crate) fn hash_rest(bytes: &mut impl Read, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; HASH_BUFFER];
    let mut total = 0;
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                total += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
