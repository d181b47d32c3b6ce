//! How far a pull is.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use larder_oci::{Digest, spec::Descriptor};

/// Bytes of one image, as they arrive. Cheap to read at any time, from anywhere.
#[derive(Default)]
pub struct Progress {
    begun: AtomicBool,
    total: AtomicU64,
    present: AtomicU64,
    received: AtomicU64,
    observer: Option<Arc<dyn Observer>>,
}

/// Who is told of each layer as it happens. Called from several threads, and often: it must not block.
pub trait Observer: Send + Sync {
    /// The platform's manifest, its configuration and the index that the name stands for, if it stands for one, are in the
    /// store. Layers come after this.
    fn resolved(&self, manifest: &Descriptor, index: Option<&Descriptor>) {
        let _ = (manifest, index);
    }
    /// The layers that the image has, with their sizes in bytes. Comes first, and again when a pull is begun again.
    fn layers(&self, layers: &[(Digest, u64)]);
    /// Something happened to a blob. It may be another than a layer, such as the configuration.
    fn event(&self, blob: &Digest, event: Event);
}

/// What happens to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its turn has not come, or another process is fetching it.
    Waiting,
    /// The store has it already.
    AlreadyExists,
    /// So many bytes of it are there.
    Downloading(u64),
    /// All bytes are there and are being made durable.
    Verifying,
    /// It is in the store, verified.
    Complete,
}

impl fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Progress({} of {})", self.present(), self.total())
    }
}

impl Progress {
    /// Progress that somebody watches layer by layer.
    #[must_use]
    pub fn observed(observer: Arc<dyn Observer>) -> Self {
        Self { observer: Some(observer), ..Self::default() }
    }

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

    /// Bytes that came from a registry or out of an archive, whatever became of them: those that were there before are not
    /// among them, and those that came twice count twice.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
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

    /// Says how many bytes there will be in all, none of which are there.
    pub fn start(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.present.store(0, Ordering::Relaxed);
    }

    pub(crate) fn announce(&self, layers: &[(Digest, u64)]) {
        if let Some(observer) = &self.observer {
            observer.layers(layers);
        }
    }

    pub(crate) fn resolved(&self, manifest: &Descriptor, index: Option<&Descriptor>) {
        if let Some(observer) = &self.observer {
            observer.resolved(manifest, index);
        }
    }

    pub(crate) fn tell(&self, blob: &Digest, event: Event) {
        if let Some(observer) = &self.observer {
            observer.event(blob, event);
        }
    }

    /// Says that more bytes have come from where the image comes from.
    pub fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.add(bytes);
    }

    /// Says that more bytes are there.
    pub fn add(&self, bytes: u64) {
        self.present.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn take_back(&self, bytes: u64) {
        self.present.fetch_sub(bytes, Ordering::Relaxed);
    }
}
