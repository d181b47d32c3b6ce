//! What can go wrong with a store.

use std::{
    io,
    path::{Path, PathBuf},
};

use larder_oci::{Digest, ImageKey, InvalidDigest, ManifestError};

/// Why the store could not do what was asked. Every message names the file or blob and, where there is something
/// a person can do about it, says what.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the user's share of it, has no room left.
    #[error("no space left to write {}: free some space or move the store to a larger disk ({source})", path.display())]
    DiskFull {
        /// The file that could not be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system refused something else.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `read`.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder is something else than a store.
    #[error("{} is not a layer store: {why}; choose an empty folder or one in OCI image-layout form", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// A file of the store does not hold what it must. Nothing was changed or deleted.
    #[error("{} is damaged: {why}; {advice}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// A blob is not in the store.
    #[error("blob {digest} is not in the store {}", root.display())]
    NotFound {
        /// The blob.
        digest: Digest,
        /// The store.
        root: PathBuf,
    },
    /// A layer was handed over to the node's container runtime, and no way leads there from this program.
    #[error(
        "layer {digest} is in the node's container runtime and not in the store: run larder on the node, and let \
         --runtime name the runtime"
    )]
    Elsewhere {
        /// The layer.
        digest: Digest,
    },
    /// A layer was handed over to the node's container runtime, which has lost it.
    #[error(
        "layer {digest} was left to the node's container runtime, which does not have it any more; pull its image again"
    )]
    Lost {
        /// The layer.
        digest: Digest,
    },
    /// A layer that was handed over to the node's container runtime can't be read there.
    #[error("cannot read layer {digest} from the node's container runtime: {source}")]
    Annex {
        /// The layer.
        digest: Digest,
        /// What the runtime says.
        source: io::Error,
    },
    /// An image is not in the store, or no longer.
    #[error("image {key} is not in the store any more")]
    NoImage {
        /// The image.
        key: Box<ImageKey>,
    },
    /// The bytes received are not those that the digest stands for. They have been deleted.
    #[error("the bytes received have the digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
        /// Whether some of the bytes were kept from an earlier try. If so, those may be at fault (a power cut can
        /// damage them) and fetching the whole blob again at once is worth while.
        resumed: bool,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("blob {digest} has {actual} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Bytes that the descriptor announces.
        expected: u64,
        /// Bytes there are; at least so many where more were coming.
        actual: u64,
    },
    /// A blob is larger than the caller wants to hold in memory.
    #[error("blob {digest} has {size} bytes, more than the {max} that are read into memory")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The most that was to be read.
        max: u64,
    },
    /// A blob that must be a manifest or an index is not a usable one.
    #[error("blob {digest}: {source}")]
    Manifest {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A descriptor names a blob by a digest that cannot be used.
    #[error("a descriptor names a blob by an {0}")]
    Digest(#[from] InvalidDigest),
    /// A blob was to be written without a lease that keeps it from being collected: a mistake in the program.
    #[error("blob {digest} is not protected by the lease that is to write it; protect it first")]
    NotProtected {
        /// The blob.
        digest: Digest,
    },
}

/// A short form of `Result` for this crate.
pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// What an error is about: the closed list by which callers decide what to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// No room on the disk.
    DiskFull,
    /// The wrong bytes arrived.
    DigestMismatch,
    /// Too many or too few bytes arrived.
    SizeMismatch,
    /// A manifest cannot be used.
    InvalidManifest,
    /// A blob or an image is not there.
    NotFound,
    /// The store itself is damaged, cannot be read or written, or was used wrongly.
    Store,
}

impl StoreError {
    /// What the error is about.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::DiskFull { .. } => Category::DiskFull,
            Self::DigestMismatch { .. } => Category::DigestMismatch,
            Self::SizeMismatch { .. } => Category::SizeMismatch,
            Self::Manifest { .. } | Self::Digest(_) => Category::InvalidManifest,
            Self::NotFound { .. } | Self::NoImage { .. } | Self::Lost { .. } => Category::NotFound,
            Self::Io { .. }
            | Self::NotAStore { .. }
            | Self::Corrupt { .. }
            | Self::TooLarge { .. }
            | Self::Elsewhere { .. }
            | Self::Annex { .. }
            | Self::NotProtected { .. } => Category::Store,
        }
    }

    /// For `map_err`: an error of the file system, with what was tried on which path.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), source }
            }
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }
}

/// `None` where the file does not exist.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_trouble() {
        let path = Path::new("/store/blobs");
        for (code, category) in [
            (rustix::io::Errno::NOSPC, Category::DiskFull),
            (rustix::io::Errno::DQUOT, Category::DiskFull),
            (rustix::io::Errno::IO, Category::Store),
            (rustix::io::Errno::ACCESS, Category::Store),
        ] {
            let error = StoreError::io("write", path)(code.into());
            assert_eq!(error.category(), category, "{error}");
            assert!(error.to_string().contains("/store/blobs"), "{error}");
        }
    }
}
