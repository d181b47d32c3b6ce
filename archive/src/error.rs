//! What can go wrong with an archive.

use std::{
    io,
    path::{Path, PathBuf},
};

use larder_oci::{Digest, InvalidName, ManifestError, Platform};
use larder_store::StoreError;

/// Why an archive could not be written or read. No archive is left of a save that failed, and no image of a load.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The layer store could not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk that the archive goes to, or the user's share of it, has no room left.
    #[error("no space left to write {}: free some space or write it to a larger disk ({source})", path.display())]
    DiskFull {
        /// The archive.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be used.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried: a verb.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Where the archive goes cannot be written to.
    #[error("cannot write the archive: {0}")]
    Write(#[source] io::Error),
    /// The output is something else than a file.
    #[error("invalid output path: {path:?} must be a regular file: {why}")]
    NotAFile {
        /// The path that was given.
        path: PathBuf,
        /// What is there.
        why: &'static str,
    },
    /// The bytes of the archive could not be read, or not be decompressed.
    #[error("cannot read the archive: {0}")]
    Read(#[source] io::Error),
    /// The archive is not what it should be.
    #[error("the archive is invalid: {0}")]
    Invalid(String),
    /// The archive ends too early.
    #[error("the archive ends in the middle of {0:?}: it is truncated; copy or download it again")]
    Truncated(String),
    /// Neither a tar nor a compressed one.
    #[error(
        "this is not an image archive: expected a tar file, plain or compressed with gzip, bzip2, xz or zstd"
    )]
    NotAnArchive,
    /// A tar or a folder without what would say which images it holds.
    #[error(
        "no images found: there is neither an index.json (OCI layout) nor a manifest.json (docker save) in it"
    )]
    NoImages,
    /// A manifest or index that cannot be used.
    #[error("blob {digest}: {source}")]
    Manifest {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A name that is none.
    #[error("the archive gives an image a name that cannot be used: {0}")]
    Name(#[from] InvalidName),
    /// The archive lacks a part of an image.
    #[error("image {image}: blob {digest} is neither in the archive nor in the store")]
    Missing {
        /// The image's name or digest.
        image: String,
        /// What is missing.
        digest: Digest,
    },
    /// Decompresses to far more than anything refers to.
    #[error(
        "the archive has unpacked to {unpacked} bytes from {packed} and looks like a decompression bomb; if you trust \
         it, decompress it yourself and load the result"
    )]
    Bomb {
        /// Bytes after decompression, so far.
        unpacked: u64,
        /// Bytes before it.
        packed: u64,
    },
    /// No image in the archive serves the platform that was asked for.
    #[error("no image in the archive is for {wanted}; it has {available}")]
    NoPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        available: String,
    },
    /// It does not hold the image that was asked for.
    #[error("the archive has no image {wanted}; it holds {holds}")]
    Absent {
        /// What was asked for.
        wanted: String,
        /// What there is.
        holds: String,
    },
    /// An image that only the OCI form can hold.
    #[error(
        "{0} is an artifact, not an image that runs: a docker-archive cannot hold it; use --format oci-archive"
    )]
    Artifact(String),
    /// A blob in the store does not have its digest any more.
    #[error(
        "blob {0} in the store is damaged: its content does not have the digest that is its name; `larder verify` \
         mends it"
    )]
    Damaged(Digest),
    /// The caller asked for it to stop.
    #[error("interrupted")]
    Interrupted,
}

/// A short form of `Result` for this crate.
pub type Result<T> = std::result::Result<T, ArchiveError>;

impl ArchiveError {
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { doing, path: path.to_owned(), source }
    }

    /// The same error, said of the file that is being written where its disk is full.
    pub(crate) fn at(self, path: &Path) -> Self {
        match self {
            Self::File { source, .. } | Self::Write(source)
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Self::DiskFull { path: path.to_owned(), source: source.kind().into() }
            }
            other => other,
        }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }
}
