//! containerd's content store, as the place where the layer store's layers are.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::{Buf, Bytes};
use larder_oci::{Digest, ImageKey};
use larder_store::{Annex, AnnexBlob, AnnexIngest, StoreId};
use tokio::runtime::Handle;

use super::{
    client::{Answer, Client},
    deliver::source,
    ingest,
};
use crate::{Owner, RuntimeError};

/// Bytes read with one call.
const CHUNK: usize = 1 << 20;

/// Blocks on calls to containerd: to be used from threads that may, such as those of `spawn_blocking`, never from a task.
#[derive(Debug)]
pub(super) struct ContentStore {
    client: Client,
    /// The tokio runtime that the connection belongs to, if it was there already.
    runtime: Option<Handle>,
}

impl ContentStore {
    pub(super) fn new(client: Client) -> Self {
        Self { client, runtime: Handle::try_current().ok() }
    }

    fn runtime(&self) -> io::Result<Handle> {
        let found = self.runtime.clone().map_or_else(Handle::try_current, Ok);
        found.map_err(|error| io::Error::other(format!("containerd can't be asked from here: {error}")))
    }
}

impl Annex for ContentStore {
    fn keep(&self, store: &StoreId, digest: &Digest, size: u64) -> io::Result<bool> {
        self.runtime()?.block_on(async {
            if self.client.blob(digest).await.map_err(failed)?.is_none() {
                return Ok(false);
            }
            self.client.lease_blob_for_now(store, digest).await.map_err(failed)?;
            // Only from now on it can't go any more.
            let found = self.client.blob(digest).await.map_err(failed)?;
            Ok(found.is_some_and(|found| u64::try_from(found.size).ok() == Some(size)))
        })
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn AnnexBlob>> {
        let runtime = self.runtime()?;
        let info = runtime.block_on(self.client.blob(digest)).map_err(failed)?;
        let info = info.ok_or_else(|| gone(digest))?;
        Ok(Box::new(Blob {
            client: self.client.clone(),
            runtime,
            digest: digest.clone(),
            size: u64::try_from(info.size).unwrap_or(0),
            position: 0,
            chunk: Bytes::new(),
        }))
    }

    fn ingest(&self, image: &ImageKey, digest: &Digest, size: u64) -> io::Result<AnnexIngest> {
        let runtime = self.runtime()?;
        let labels = source(image).into_iter().collect();
        let blob = super::content::Blob { digest: digest.clone(), size, labels };
        // The delivery that goes on beside the pull has the same lease.
        let lease =
            runtime.block_on(self.client.lease_image(image, Owner::Agent { pin: true })).map_err(failed)?;
        ingest::begin(&self.client, &runtime, blob, lease).map_err(failed)
    }

    fn begun(&self, digest: &Digest) -> io::Result<u64> {
        self.runtime()?.block_on(self.client.begun(digest)).map_err(failed)
    }
}

/// A blob, read in parts, each of them with a call of its own: whoever stops reading leaves nothing open.
struct Blob {
    client: Client,
    runtime: Handle,
    digest: Digest,
    size: u64,
    position: u64,
    /// What has been read from `position` on.
    chunk: Bytes,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.size {
            return Ok(0);
        }
        if self.chunk.is_empty() {
            let read = self.client.read_blob(&self.digest, self.position, CHUNK);
            self.chunk = match self.runtime.block_on(read).map_err(failed)? {
                Answer::Done(chunk) if chunk.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Answer::Done(chunk) => chunk,
                Answer::NotFound | Answer::AlreadyExists => return Err(gone(&self.digest)),
            };
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for Blob {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        if position != self.position {
            self.chunk.clear();
            self.position = position;
        }
        Ok(position)
    }
}

fn failed(error: RuntimeError) -> io::Error {
    io::Error::other(error)
}

fn gone(digest: &Digest) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("containerd does not have {digest} any more"))
}
