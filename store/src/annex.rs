//! Blobs that are elsewhere: a layer that a container runtime has need not be here as well.

use std::{fmt, io};

use bytes::Bytes;
use larder_oci::{Digest, ImageKey};

use crate::StoreId;

/// A place that holds blobs for the store: a container runtime's content store.
///
/// What it has, it has verified. It may lose blobs behind our back; whoever looks after the store finds out and says so
/// ([`Store::lost`](crate::Store::lost)). Calls block.
pub trait Annex: Send + Sync + fmt::Debug {
    /// Whether the annex has this blob, and keeps it from now on for the store, at least until the pull that asks is over.
    /// Where the annex can't say, or gets blobs by itself, it answers as if it had it.
    fn keep(&self, store: &StoreId, digest: &Digest, size: u64) -> io::Result<bool>;

    /// Opens a blob that was handed over. `NotFound` if it is not there any more.
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn AnnexBlob>>;

    /// Begins a layer of an image, or goes on with one, that is to be written to the annex and to no file of the store's.
    fn ingest(&self, image: &ImageKey, digest: &Digest, size: u64) -> io::Result<AnnexIngest> {
        let _ = (image, digest, size);
        Ok(AnnexIngest::Declined)
    }

    /// How many bytes of a layer an earlier [`Annex::ingest`] has left.
    fn begun(&self, digest: &Digest) -> io::Result<u64> {
        let _ = digest;
        Ok(0)
    }
}

/// An annex' answer to a wish to write a blob.
#[derive(Debug)]
pub enum AnnexIngest {
    /// It takes none in this way.
    Declined,
    /// It has the blob, and keeps it.
    Present,
    /// Somebody else is writing it. Ask again in a moment.
    Busy,
    /// It is the caller's to write.
    Write(Box<dyn AnnexWriter>),
}

/// Writes one blob to an annex. Dropped unfinished, the bytes stay for the next try.
pub trait AnnexWriter: Send + fmt::Debug {
    /// How many bytes are there. The next ones to write are those that follow.
    fn offset(&self) -> u64;

    /// Appends the next bytes. A kill may lose the last of them.
    fn write(&mut self, bytes: Bytes) -> io::Result<()>;

    /// Forgets all bytes.
    fn restart(&mut self) -> io::Result<()>;

    /// Has the annex check the bytes against the digest, sync and keep them. The inner error is the digest that they have,
    /// if it is not the blob's; they are gone then.
    fn finish(self: Box<Self>) -> io::Result<Result<(), Digest>>;
}

/// A blob in an annex, open for reading from any offset.
pub trait AnnexBlob: io::Read + io::Seek + Send {}

impl<T: io::Read + io::Seek + Send> AnnexBlob for T {}
