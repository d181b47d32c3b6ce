//! How far a pull is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of one image, as they arrive. Cheap to read at any time, from anywhere.
#[derive(Debug, Default)]
pub struct Progress {
    begun: AtomicBool,
    total: AtomicU64,
    present: AtomicU64,
}

impl Progress {
    /// The image's size in bytes; 0 until its manifest is known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes of it that are in the store, in blobs complete or in the making.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.present.load(Ordering::Relaxed)
    }

    /// Whether the pull has begun, rather than waiting for its turn.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Says that the pull has begun.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    pub(super) fn start(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.present.store(0, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: u64) {
        self.present.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn take_back(&self, bytes: u64) {
        self.present.fetch_sub(bytes, Ordering::Relaxed);
    }
}
