//! What can go wrong with a runtime.

use std::path::PathBuf;

use larder_store::StoreError;

/// Why the runtime could not be asked, or would not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no socket, or nobody answers on it.
    #[error("the container runtime at {} does not answer: {cause}; see whether it runs and whether its socket is mounted", endpoint.display())]
    Unreachable {
        /// The socket.
        endpoint: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// It answered that it can't.
    #[error("the container runtime failed to {what}: {cause}")]
    Refused {
        /// What it was asked, such as `unpack layer sha256:…`.
        what: String,
        /// What it says, shortened.
        cause: String,
    },
    /// It lacks what is needed.
    #[error("{0}")]
    Unsupported(String),
    /// The layer store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pull that was to bring the layers ended without them.
    #[error("the layers did not all arrive")]
    Interrupted,
}

/// What sort of error it is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// The runtime can't be reached; it may come back by itself.
    Unreachable,
    /// The runtime refuses.
    Refused,
    /// The node's disk has no room.
    DiskFull,
    /// The layer store fails.
    Store,
    /// Not an error of its own.
    Interrupted,
}

impl RuntimeError {
    /// What sort of error it is.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Unreachable { .. } => Category::Unreachable,
            Self::Refused { cause, .. } if cause.contains("no space left on device") => Category::DiskFull,
            Self::Refused { .. } | Self::Unsupported(_) => Category::Refused,
            Self::Store(error) if error.category() == larder_store::Category::DiskFull => Category::DiskFull,
            Self::Store(_) => Category::Store,
            Self::Interrupted => Category::Interrupted,
        }
    }
}
