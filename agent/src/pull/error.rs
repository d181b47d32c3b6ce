//! Why an image could not be had.

use std::time::Duration;

use larder_crds::FailureReason;
use larder_registry::RegistryError;
use larder_store::StoreError;

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry's fault, or the image's.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The disk's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The program is stopping.
    #[error("interrupted")]
    Interrupted,
}

impl PullError {
    /// The reason that a status shows.
    #[must_use]
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Registry(error) => registry_reason(error),
            Self::Store(StoreError::DiskFull { .. }) => FailureReason::DiskFull,
            Self::Store(StoreError::DigestMismatch { .. }) => FailureReason::DigestMismatch,
            Self::Store(StoreError::SizeMismatch { .. }) => FailureReason::SizeMismatch,
            Self::Store(_) | Self::Interrupted => FailureReason::StoreError,
        }
    }

    /// How long the registry asks to wait before the next try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Registry(error) => error.retry_after(),
            _ => None,
        }
    }
}

fn registry_reason(error: &RegistryError) -> FailureReason {
    match error {
        RegistryError::NotFound { .. } => FailureReason::NotFound,
        RegistryError::Unauthorized { .. }
        | RegistryError::LoginRefused { .. }
        | RegistryError::Credentials { .. } => FailureReason::Unauthorized,
        RegistryError::TooManyRequests { .. } => FailureReason::TooManyRequests,
        RegistryError::Status { .. } | RegistryError::Protocol { .. } | RegistryError::Hosts(_) => {
            FailureReason::RegistryError
        }
        // Of pushing alone, which an agent does not do.
        RegistryError::Source { .. } => FailureReason::StoreError,
        RegistryError::Unreachable { .. } => FailureReason::RegistryUnreachable,
        RegistryError::DigestMismatch { .. } => FailureReason::DigestMismatch,
        RegistryError::SizeMismatch { .. } => FailureReason::SizeMismatch,
        RegistryError::Manifest { .. } => FailureReason::InvalidManifest,
        RegistryError::NoMatch { .. } => FailureReason::NoMatchingPlatform,
    }
}
