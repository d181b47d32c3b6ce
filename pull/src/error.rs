//! Why an image could not be had.

use std::time::Duration;

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
    /// There is no room for it, says who was asked ([`Admission`](crate::Admission)). Nothing was fetched.
    #[error("{0}")]
    InsufficientDisk(String),
    /// The program is stopping.
    #[error("interrupted")]
    Interrupted,
}

impl PullError {
    /// How long the registry asks to wait before the next try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Registry(error) => error.retry_after(),
            _ => None,
        }
    }
}
