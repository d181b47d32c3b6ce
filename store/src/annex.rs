//! Blobs that are elsewhere: a layer that a container runtime has need not be here as well.

use std::{fmt, io};

use larder_oci::Digest;

/// A place that holds blobs for the store: a container runtime's content store.
///
/// What it has, it has verified. It may lose blobs behind our back; whoever looks after the store finds out and says so
/// ([`Store::lost`](crate::Store::lost)). Calls block.
pub trait Annex: Send + Sync + fmt::Debug {
    /// Whether the annex has this blob, and keeps it from now on, at least until the pull that asks is over. Where the
    /// annex can't say, or gets blobs by itself, it answers as if it had it.
    fn keep(&self, digest: &Digest, size: u64) -> io::Result<bool>;

    /// Opens a blob that was handed over. `NotFound` if it is not there any more.
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn AnnexBlob>>;
}

/// A blob in an annex, open for reading from any offset.
pub trait AnnexBlob: io::Read + io::Seek + Send {}

impl<T: io::Read + io::Seek + Send> AnnexBlob for T {}
