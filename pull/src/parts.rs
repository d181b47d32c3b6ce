//! Several connections for one blob.
//!
//! One connection fetches the blob as it is. When it turns out slow and much is left, the part of the blob that it will
//! reach last is cut off, and fetched in parts over further connections, into memory that is rationed over all
//! pulls. The parts go to the disk in order, behind what the first connection has brought; that one is given up once
//! the first part shows that the registry serves them. Registries that answer with the whole blob, with other bytes
//! or not at all are left at one connection, and nobody notices.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use larder_oci::{Digest, ImageName};
use larder_registry::{BlobRange, BlobStream, Registry, RegistryError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::blob::{Chunk, Fetch};

/// The bytes of one part, and how many parts may be in memory, over all pulls: 12 MiB in all. One that is on its way to a container
/// runtime is not counted any more.
const PART: u64 = 2 << 20;
const PARTS_IN_MEMORY: usize = 6;
/// How much must be left of a blob. What is in memory is lost with a kill, so it must be little beside the whole.
const WORTH_IT: u64 = 64 << 20;
/// How long, and for how many bytes, one connection is watched before it is judged.
const WATCHED: Duration = Duration::from_millis(250);
const WATCHED_BYTES: u64 = 256 << 10;
/// Bytes a second beyond which one connection is enough.
pub(crate) const FAST: f64 = 48.0 * 1024.0 * 1024.0;
/// After how many parts they are judged, and by how much they must be faster than one connection was.
const JUDGED_AFTER: u32 = 24;
const GAIN: f64 = 1.2;
/// How long the first part may take beyond the time at which it is needed.
const FIRST_PART: Duration = Duration::from_secs(3);
/// How often a part is asked for before the whole download starts over from where it is.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// What all pulls share: the memory for parts, and which registries are left at one connection.
pub(crate) struct Helpers {
    memory: Arc<Semaphore>,
    without: Mutex<BTreeSet<String>>,
}

impl Default for Helpers {
    fn default() -> Self {
        Self { memory: Arc::new(Semaphore::new(PARTS_IN_MEMORY)), without: Mutex::default() }
    }
}

impl Helpers {
    fn without(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.without.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_at_one(&self, registry: &str) {
        self.without().insert(registry.to_owned());
    }
}

/// How a download ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The connection has given all it had.
    All,
    /// More connections are no gain: go on with one.
    OneIsEnough,
}

/// Whether to cut off the rest: after `elapsed`, `arrived` bytes have come and `left` have not.
fn is_slow(elapsed: Duration, arrived: u64, left: u64) -> bool {
    left >= WORTH_IT && arrived >= WATCHED_BYTES && elapsed >= WATCHED && rate(arrived, elapsed) < FAST
}

fn rate(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 / elapsed.as_secs_f64().max(0.001)
}

impl Fetch<'_> {
    /// Passes on what the connection gives, and what further ones do, until all is there or the disk side gives up.
    pub(crate) async fn forward(
        &self,
        mut stream: BlobStream,
        sender: mpsc::Sender<Chunk>,
    ) -> Result<Ended, RegistryError> {
        let (began, start) = (Instant::now(), stream.start);
        let mut position = start;
        let mut parts: Option<Parts> = None;
        while let Some(chunk) = stream.next().await {
            let mut chunk = chunk?;
            if let Some(mut ahead) = parts.take_if(|parts| position + chunk.len() as u64 >= parts.start) {
                let mine = usize::try_from(ahead.start - position).unwrap_or(chunk.len());
                let rest = chunk.split_off(mine);
                if sender.send((chunk, None)).await.is_err() {
                    return Ok(Ended::All);
                }
                if ahead.are_served().await {
                    drop(stream);
                    return ahead.forward(sender).await;
                }
                position = ahead.start;
                chunk = rest;
            }
            position += chunk.len() as u64;
            if sender.send((chunk, None)).await.is_err() {
                break;
            }
            let (arrived, left) = (position - start, self.size - position.min(self.size));
            if parts.is_none() && is_slow(began.elapsed(), arrived, left) {
                parts = self.cut_off(position + PART, rate(arrived, began.elapsed()));
            }
        }
        Ok(Ended::All)
    }

    /// Begins to fetch what comes after `start` in parts, unless this registry is left at one connection.
    fn cut_off(&self, start: u64, single: f64) -> Option<Parts> {
        if self.puller.helpers.without().contains(self.name.registry()) {
            return None;
        }
        let blob = Blob {
            registry: self.puller.registry.clone(),
            name: self.name.clone(),
            digest: self.digest.clone(),
            size: self.size,
        };
        let helpers = self.puller.helpers.clone();
        let queue = VecDeque::new();
        let mut parts = Parts { blob: Arc::new(blob), helpers, start, next: start, single, queue };
        parts.fill();
        (!parts.queue.is_empty()).then_some(parts)
    }
}

/// The blob that parts are of.
struct Blob {
    registry: Registry,
    name: ImageName,
    digest: Digest,
    size: u64,
}

/// A part that is being fetched. `None`: the registry does not serve it.
type Part = AbortOnDropHandle<Result<Option<Chunk>, RegistryError>>;

/// The rest of a blob, in parts.
struct Parts {
    blob: Arc<Blob>,
    helpers: Arc<Helpers>,
    /// Where the first part begins.
    start: u64,
    /// Where the next part to be asked for begins.
    next: u64,
    /// The bytes a second that one connection gave.
    single: f64,
    queue: VecDeque<Part>,
}

impl Parts {
    /// Asks for as many parts as there is memory for.
    fn fill(&mut self) {
        while self.next < self.blob.size {
            let Ok(permit) = self.helpers.memory.clone().try_acquire_owned() else { return };
            self.ask(permit);
        }
    }

    fn ask(&mut self, permit: OwnedSemaphorePermit) {
        let end = self.blob.size.min(self.next + PART);
        let part = fetch(self.blob.clone(), self.next..end, permit);
        self.queue.push_back(AbortOnDropHandle::new(tokio::spawn(part)));
        self.next = end;
    }

    /// Waits for the first part, and not for long: there is a connection that serves the whole.
    async fn are_served(&mut self) -> bool {
        let Some(first) = self.queue.front_mut() else { return false };
        match timeout(FIRST_PART, first).await {
            Ok(Ok(Ok(Some(chunk)))) => {
                self.queue.pop_front();
                // Put back as a part that is there already.
                let there = AbortOnDropHandle::new(tokio::spawn(std::future::ready(Ok(Some(chunk)))));
                self.queue.push_front(there);
                true
            }
            other => {
                let hangs = other.is_err();
                tracing::debug!(blob = %self.blob.digest, hangs, "ranges are not served; going on with one connection");
                self.helpers.leave_at_one(self.blob.name.registry());
                false
            }
        }
    }

    /// Passes all parts on in order.
    async fn forward(mut self, sender: mpsc::Sender<Chunk>) -> Result<Ended, RegistryError> {
        let began = Instant::now();
        let (mut bytes, mut number) = (0, 0);
        loop {
            self.fill();
            if self.queue.is_empty() {
                if self.next >= self.blob.size {
                    return Ok(Ended::All);
                }
                // Other blobs' parts fill the memory; they will be written without our doing.
                let Ok(permit) = self.helpers.memory.clone().acquire_owned().await else {
                    return Ok(Ended::OneIsEnough);
                };
                self.ask(permit);
            }
            let Some(part) = self.queue.pop_front() else { continue };
            let Some(chunk) = part.await.unwrap_or(Ok(None))? else {
                self.helpers.leave_at_one(self.blob.name.registry());
                return Ok(Ended::OneIsEnough);
            };
            bytes += chunk.0.len() as u64;
            number += 1;
            if sender.send(chunk).await.is_err() {
                return Ok(Ended::All);
            }
            if number == JUDGED_AFTER && rate(bytes, began.elapsed()) < self.single * GAIN {
                tracing::debug!(blob = %self.blob.digest, "several connections are no faster than one");
                self.helpers.leave_at_one(self.blob.name.registry());
                return Ok(Ended::OneIsEnough);
            }
        }
    }
}

async fn fetch(
    blob: Arc<Blob>,
    range: Range<u64>,
    permit: OwnedSemaphorePermit,
) -> Result<Option<Chunk>, RegistryError> {
    let mut tries = 0;
    loop {
        match fetch_once(&blob, range.clone()).await {
            Ok(bytes) => return Ok(bytes.map(|bytes| (bytes, Some(permit)))),
            Err(error) if error.is_passing() && tries + 1 < TRIES => {
                tries += 1;
                tracing::debug!(blob = %blob.digest, ?range, %error, "asking for the part again");
                sleep(PAUSE * tries).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn fetch_once(blob: &Blob, range: Range<u64>) -> Result<Option<Bytes>, RegistryError> {
    let length = usize::try_from(range.end - range.start).unwrap_or_default();
    let asked = blob.registry.blob_range(&blob.name, &blob.digest, blob.size, range).await?;
    let BlobRange::Part(mut stream) = asked else { return Ok(None) };
    // One allocation of a known size, not the client's many buffers.
    let mut bytes = Vec::with_capacity(length);
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    if bytes.len() < length {
        return Err(RegistryError::Unreachable {
            registry: blob.name.registry().to_owned(),
            cause: format!("the connection ended after {} of {length} bytes of a part", bytes.len()),
        });
    }
    Ok(Some(bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slow_and_long_downloads_are_cut() {
        let (mib, second) = (1 << 20, Duration::from_secs(1));
        assert!(is_slow(second, 10 * mib, 500 * mib));
        assert!(!is_slow(second, 100 * mib, 500 * mib), "fast enough");
        assert!(!is_slow(second, 10 * mib, 10 * mib), "nearly there");
        assert!(!is_slow(second / 10, mib, 500 * mib), "not known yet");
        assert!(!is_slow(second, 1000, 500 * mib), "it has hardly begun");
    }
}
