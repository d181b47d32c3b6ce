//! Fetching one blob: resuming, retrying, and keeping hashing off the async threads.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use larder_oci::{Digest, ImageName};
use larder_registry::RegistryError;
use larder_store::{BlobWriter, Ingest, Lease, StoreError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc},
    task::spawn_blocking,
    time::sleep,
};

use crate::{Event, LARGE, Progress, PullError, Puller, blocking, parts::Ended, turns::Turn};

/// How often in a row a blob may fail with nothing worth the name gained, before the image's own back-off takes over.
const TRIES_WITHOUT_PROGRESS: u32 = 3;
/// So many bytes count as a gain. A connection that brings less and breaks, time after time, would never end the pull.
const GAIN: u64 = 64 << 10;
/// The pause before the second try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How often to look whether another pull has finished a blob that both need.
const BUSY_POLL: Duration = Duration::from_millis(50);
/// Chunks between the network and the disk: enough to keep both busy, few enough to bound memory.
const CHUNKS_IN_FLIGHT: usize = 1;

/// Bytes on their way to the disk, and the right to hold them in memory where that is rationed.
pub(crate) type Chunk = (Bytes, Option<OwnedSemaphorePermit>);

/// One blob that an image needs.
pub(crate) struct Fetch<'a> {
    pub puller: &'a Puller,
    pub name: &'a ImageName,
    pub lease: Arc<Lease>,
    pub digest: Digest,
    pub size: u64,
    /// Whether it is a layer, which may be elsewhere ([`larder_store::Annex`]), or one that must be read from here.
    pub is_layer: bool,
    pub progress: Arc<Progress>,
    pub slots: &'a Semaphore,
    /// Its place in the queue, where layers come one after the other.
    pub turn: Option<Turn<'a>>,
}

/// A blob whose bytes are all there.
struct Arrived {
    writer: BlobWriter,
    resumed: bool,
    /// The mirror that it came from, if it was one.
    mirror: Option<String>,
}

impl Fetch<'_> {
    /// Fetches the blob unless the store has it, or another pull is about to. Says whether it was missing.
    pub async fn run(mut self) -> Result<bool, PullError> {
        if self.is_there().await? {
            return Ok(self.present());
        }
        let mut again = false;
        loop {
            if let Some(turn) = &self.turn {
                turn.wait(&self.progress).await;
            }
            let arrived = self.download().await?;
            // While this one is made durable, the next one arrives.
            self.turn = None;
            let Some(arrived) = arrived else { return Ok(self.present()) };
            self.progress.tell(&self.digest, Event::Verifying);
            let Arrived { writer, resumed, mirror } = arrived;
            match blocking(move || Ok(writer.finish()?)).await {
                // Bytes from before a power cut may be wrong, and so may a mirror's. They are gone now; fetch the
                // blob whole, once.
                Err(PullError::Store(StoreError::DigestMismatch { .. }))
                    if !again && (resumed || mirror.is_some()) =>
                {
                    tracing::warn!(blob = %self.digest, resumed, mirror, "damaged; fetching it again");
                    if let Some(mirror) = mirror {
                        self.puller.registry.set_aside(&mirror);
                    }
                    self.progress.take_back(self.size);
                    again = true;
                }
                // The store knows the bytes, and not whose they are.
                Err(PullError::Store(StoreError::DigestMismatch { expected, actual, .. })) => {
                    return Err(RegistryError::DigestMismatch {
                        registry: self.name.registry().to_owned(),
                        what: format!("blob {} of {}", self.digest, self.name),
                        expected,
                        actual: actual.to_string(),
                    }
                    .into());
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    self.progress.tell(&self.digest, Event::Complete);
                    return Ok(true);
                }
            }
        }
    }

    /// A quick look, so that what is there does not queue, and what the node's container runtime has is not fetched.
    async fn is_there(&self) -> Result<bool, PullError> {
        let (lease, digest, size) = (self.lease.clone(), self.digest.clone(), self.size);
        let (is_layer, to_be_read) = (self.is_layer, self.puller.is_to_be_read());
        blocking(move || {
            let store = lease.store();
            Ok(match (is_layer, to_be_read) {
                (true, false) => store.find_layer(&lease, &digest, size)?,
                (true, true) => store.find_readable_layer(&lease, &digest, size)?,
                (false, _) => store.is_readable(&digest, size)?,
            })
        })
        .await
    }

    fn present(&self) -> bool {
        self.progress.add(self.size);
        self.progress.tell(&self.digest, Event::AlreadyExists);
        false
    }

    /// Waits for a turn and brings the bytes in. The turn is over when this returns: while this blob is made durable,
    /// the next one arrives. `None`: someone else has brought it in.
    async fn download(&self) -> Result<Option<Arrived>, PullError> {
        let _slot = self.slot().await?;
        let mut told = false;
        let writer = loop {
            let (lease, digest, size) = (self.lease.clone(), self.digest.clone(), self.size);
            let ingest = match (self.is_layer, self.puller.to_annex) {
                (true, true) => Lease::ingest_to_annex,
                (true, false) if !self.puller.is_to_be_read() => Lease::ingest,
                _ => Lease::ingest_readable,
            };
            match blocking(move || Ok(ingest(&lease, &digest, size)?)).await? {
                Ingest::Present => return Ok(None),
                Ingest::Busy => {
                    if !std::mem::replace(&mut told, true) {
                        self.progress.tell(&self.digest, Event::Waiting);
                    }
                    sleep(BUSY_POLL).await;
                }
                Ingest::Write(writer) => break writer,
            }
        };
        self.progress.add(writer.offset());
        self.progress.tell(&self.digest, Event::Downloading(writer.offset()));
        let resumed = writer.offset() > 0;
        let host = Mutex::new(None);
        let writer = self.complete(writer, &host).await?;
        let host = host.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mirror = host.filter(|host| host != self.name.registry());
        Ok(Some(Arrived { writer, resumed, mirror }))
    }

    async fn slot(&self) -> Result<SemaphorePermit<'_>, PullError> {
        let weight = if self.size >= LARGE { 2 } else { 1 };
        if let Ok(slot) = self.slots.try_acquire_many(weight) {
            return Ok(slot);
        }
        self.progress.tell(&self.digest, Event::Waiting);
        self.slots.acquire_many(weight).await.map_err(|_| PullError::Interrupted)
    }

    /// Brings the writer to its full size, over as many connections as that takes.
    async fn complete(
        &self,
        mut writer: BlobWriter,
        host: &Mutex<Option<String>>,
    ) -> Result<BlobWriter, PullError> {
        let mut fruitless = 0;
        while writer.offset() < self.size {
            let before = writer.offset();
            let (returned, result) = self.one_connection(writer, host).await?;
            writer = returned;
            match result {
                Ok(Ended::All) => break,
                Ok(Ended::OneIsEnough) => {}
                Err(error) if !error.is_passing() => return Err(error.into()),
                Err(error) => {
                    fruitless = if writer.offset() >= before + GAIN { 1 } else { fruitless + 1 };
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

    /// Takes what one connection gives, and further ones beside it. The writer comes back with what has arrived; the
    /// inner result is the registry's, an outer error the disk's.
    async fn one_connection(
        &self,
        mut writer: BlobWriter,
        host: &Mutex<Option<String>>,
    ) -> Result<(BlobWriter, Result<Ended, RegistryError>), PullError> {
        let registry = &self.puller.registry;
        let stream = match registry.blob(self.name, &self.digest, self.size, writer.offset()).await {
            Ok(stream) => stream,
            Err(error) => return Ok((writer, Err(error))),
        };
        *host.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.host.clone());
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
        let received = self.forward(stream, to_disk).await;
        let writer = disk.await.map_err(|_| PullError::Interrupted)??;
        let short = matches!(received, Ok(Ended::All)) && writer.offset() < self.size;
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

fn write_chunks(
    mut writer: BlobWriter,
    mut chunks: mpsc::Receiver<Chunk>,
    progress: &Progress,
) -> Result<BlobWriter, StoreError> {
    let digest = writer.digest().clone();
    while let Some((chunk, _permit)) = chunks.blocking_recv() {
        let length = chunk.len() as u64;
        writer.write_owned(chunk)?;
        progress.receive(length);
        progress.tell(&digest, Event::Downloading(writer.offset()));
    }
    Ok(writer)
}
