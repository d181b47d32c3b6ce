//! Fetching one blob: resuming, retrying, and keeping hashing off the async threads.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use larder_oci::{Digest, ImageName};
use larder_store::{BlobWriter, Ingest, Lease, StoreError};
use tokio::{sync::mpsc, task::spawn_blocking, time::sleep};

use super::{Progress, PullError, blocking};
use larder_registry::{BlobStream, Registry, RegistryError};

/// How often in a row a blob may fail without a single byte gained, before the image's own back-off takes over.
const TRIES_WITHOUT_PROGRESS: u32 = 3;
/// The pause before the second try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How often to look whether another pull has finished a blob that both need.
const BUSY_POLL: Duration = Duration::from_millis(50);
/// Chunks between the network and the disk: enough to keep both busy, few enough to bound memory.
const CHUNKS_IN_FLIGHT: usize = 4;

/// One blob that an image needs.
pub(super) struct Fetch<'a> {
    pub registry: &'a Registry,
    pub name: &'a ImageName,
    pub lease: Arc<Lease>,
    pub digest: Digest,
    pub size: u64,
    pub progress: Arc<Progress>,
}

impl Fetch<'_> {
    /// Fetches the blob unless the store has it, or another pull is about to.
    pub(super) async fn run(self) -> Result<(), PullError> {
        let mut writer = loop {
            let (lease, digest, size) = (self.lease.clone(), self.digest.clone(), self.size);
            match blocking(move || Ok(lease.ingest(&digest, size)?)).await? {
                Ingest::Present => {
                    self.progress.add(self.size);
                    return Ok(());
                }
                Ingest::Busy => sleep(BUSY_POLL).await,
                Ingest::Write(writer) => break writer,
            }
        };
        self.progress.add(writer.offset());
        let resumed = writer.offset() > 0;
        writer = self.complete(writer).await?;
        match blocking(move || Ok(writer.finish()?)).await {
            // Bytes from before a power cut may be wrong. They are gone now; fetch the blob whole, once.
            Err(PullError::Store(StoreError::DigestMismatch { .. })) if resumed => {
                tracing::warn!(blob = %self.digest, "the bytes kept from an earlier pull were damaged; fetching again");
                self.progress.take_back(self.size);
                Box::pin(self.run()).await
            }
            other => other,
        }
    }

    /// Brings the writer to its full size, over as many connections as that takes.
    async fn complete(&self, mut writer: BlobWriter) -> Result<BlobWriter, PullError> {
        let mut fruitless = 0;
        while writer.offset() < self.size {
            let before = writer.offset();
            let (returned, result) = self.one_connection(writer).await?;
            writer = returned;
            match result {
                Ok(()) => break,
                Err(error) if !error.is_passing() => return Err(error.into()),
                Err(error) => {
                    fruitless = if writer.offset() > before { 1 } else { fruitless + 1 };
                    if fruitless >= TRIES_WITHOUT_PROGRESS {
                        return Err(error.into());
                    }
                    tracing::debug!(blob = %self.digest, offset = writer.offset(), %error, "resuming");
                    sleep(FIRST_PAUSE * 2_u32.pow(fruitless - 1)).await;
                }
            }
        }
        Ok(writer)
    }

    /// Takes what one connection gives. The writer comes back with what has arrived; the inner result is the
    /// registry's, an outer error the disk's.
    async fn one_connection(
        &self,
        mut writer: BlobWriter,
    ) -> Result<(BlobWriter, Result<(), RegistryError>), PullError> {
        let stream = match self.registry.blob(self.name, &self.digest, self.size, writer.offset()).await {
            Ok(stream) => stream,
            Err(error) => return Ok((writer, Err(error))),
        };
        if stream.start != writer.offset() {
            self.progress.take_back(writer.offset());
            writer = blocking(move || {
                writer.restart()?;
                Ok(writer)
            })
            .await?;
        }
        let (to_disk, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let progress = self.progress.clone();
        let disk = spawn_blocking(move || write_chunks(writer, chunks, &progress));
        let received = forward(stream, to_disk).await;
        let writer = disk.await.map_err(|_| PullError::Interrupted)??;
        let short = received.is_ok() && writer.offset() < self.size;
        let received = if short {
            Err(RegistryError::Unreachable {
                registry: self.name.registry().to_owned(),
                cause: format!("the connection ended after {} of {} bytes", writer.offset(), self.size),
            })
        } else {
            received
        };
        Ok((writer, received))
    }
}

/// Passes chunks on until the stream ends, fails, or the disk side has given up.
async fn forward(mut stream: BlobStream, sender: mpsc::Sender<Bytes>) -> Result<(), RegistryError> {
    while let Some(chunk) = stream.next().await {
        if sender.send(chunk?).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn write_chunks(
    mut writer: BlobWriter,
    mut chunks: mpsc::Receiver<Bytes>,
    progress: &Progress,
) -> Result<BlobWriter, StoreError> {
    while let Some(chunk) = chunks.blocking_recv() {
        writer.write(&chunk)?;
        progress.add(chunk.len() as u64);
    }
    Ok(writer)
}
