//! Why an image could not be had, in the one word that a status shows.

use larder_archive::ArchiveError;
use larder_crds::FailureReason;
use larder_pull::PullError;
use larder_registry::{CredentialsError, RegistryError};
use larder_runtime::{Category, RuntimeError};
use larder_store::StoreError;

use crate::engine::FetchError;

/// The reason that a status shows.
#[must_use]
pub fn of(error: &PullError) -> FailureReason {
    match error {
        PullError::Registry(error) => registry_reason(error),
        PullError::Store(StoreError::DiskFull { .. }) => FailureReason::DiskFull,
        PullError::Store(StoreError::DigestMismatch { .. }) => FailureReason::DigestMismatch,
        PullError::Store(StoreError::SizeMismatch { .. }) => FailureReason::SizeMismatch,
        PullError::Store(StoreError::Annex { .. }) => FailureReason::RuntimeUnavailable,
        PullError::InsufficientDisk(_) => FailureReason::InsufficientDisk,
        PullError::Store(_) | PullError::Interrupted => FailureReason::StoreError,
    }
}

/// The reason that a status shows where an image could not be fetched.
pub(crate) fn of_fetch(error: &FetchError) -> FailureReason {
    match error {
        FetchError::Pull(error) => of(error),
        FetchError::Load(error) => error.reason,
        FetchError::Unsettled => FailureReason::InvalidArchive,
        FetchError::TimedOut { .. } => FailureReason::PullTimeout,
    }
}

/// The reason that a status shows where an image could not be had from an archive.
pub(crate) fn of_loading(error: &ArchiveError) -> FailureReason {
    match error {
        ArchiveError::DiskFull { .. } => FailureReason::DiskFull,
        ArchiveError::NoPlatform { .. } => FailureReason::NoMatchingPlatform,
        ArchiveError::NotAFile { .. } | ArchiveError::File { .. } => FailureReason::ArchiveNotFound,
        // What a disk says has a number; what decompressing says has none.
        ArchiveError::Read(error) if error.raw_os_error().is_some() => FailureReason::StoreError,
        ArchiveError::Write(_) | ArchiveError::Interrupted => FailureReason::StoreError,
        ArchiveError::Store(error) => match error.category() {
            // Of the bytes that came out of the archive.
            larder_store::Category::DigestMismatch
            | larder_store::Category::SizeMismatch
            | larder_store::Category::InvalidManifest => FailureReason::InvalidArchive,
            larder_store::Category::DiskFull => FailureReason::DiskFull,
            larder_store::Category::NotFound | larder_store::Category::Store => of_store(error),
        },
        _ => FailureReason::InvalidArchive,
    }
}

/// The reason that a status shows where an archive could not be written.
pub(crate) fn of_saving(error: &ArchiveError) -> FailureReason {
    match error {
        ArchiveError::DiskFull { .. } => FailureReason::DiskFull,
        ArchiveError::Store(error) => of_store(error),
        _ => FailureReason::StoreError,
    }
}

fn of_store(error: &StoreError) -> FailureReason {
    match error {
        StoreError::DiskFull { .. } => FailureReason::DiskFull,
        StoreError::Annex { .. } => FailureReason::RuntimeUnavailable,
        _ => FailureReason::StoreError,
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
        RegistryError::Unauthorized { .. } | RegistryError::LoginRefused { .. } => {
            FailureReason::Unauthorized
        }
        RegistryError::Credentials { source, .. } => match source {
            CredentialsError::Unavailable { is_passing: false, .. } => FailureReason::PullSecretUnavailable,
            // The API server, in fact: like a registry it comes back without anybody's doing.
            CredentialsError::Unavailable { is_passing: true, .. } => FailureReason::RegistryUnreachable,
            _ => FailureReason::Unauthorized,
        },
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
