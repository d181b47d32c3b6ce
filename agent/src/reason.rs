//! Why an image could not be had, in the one word that a status shows.

use larder_crds::FailureReason;
use larder_pull::PullError;
use larder_registry::RegistryError;
use larder_runtime::{Category, RuntimeError};
use larder_store::StoreError;

/// The reason that a status shows.
#[must_use]
pub fn of(error: &PullError) -> FailureReason {
    match error {
        PullError::Registry(error) => registry_reason(error),
        PullError::Store(StoreError::DiskFull { .. }) => FailureReason::DiskFull,
        PullError::Store(StoreError::DigestMismatch { .. }) => FailureReason::DigestMismatch,
        PullError::Store(StoreError::SizeMismatch { .. }) => FailureReason::SizeMismatch,
        PullError::Store(StoreError::Annex { .. }) => FailureReason::RuntimeUnavailable,
        PullError::Store(_) | PullError::Interrupted => FailureReason::StoreError,
    }
}

/// The reason that a status shows where the container runtime did not take an image.
#[must_use]
pub fn of_runtime(error: &RuntimeError) -> FailureReason {
    match error.category() {
        Category::Unreachable => FailureReason::RuntimeUnavailable,
        Category::Refused => FailureReason::RuntimeError,
        Category::DiskFull => FailureReason::DiskFull,
        Category::Store | Category::Interrupted => FailureReason::StoreError,
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
