//! Layers that go into containerd's content store as they come from a registry.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use larder_oci::Digest;
use larder_store::{AnnexIngest, AnnexWriter};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};
use tonic::{Code, Status};

use super::{
    client::Client,
    content::{Begun, Blob, is_busy, message},
    outgoing::{Message, Outgoing, Pieces},
};
use crate::{RuntimeError, api::content::WriteAction};

/// The fewest and the most bytes that are sent in one message.
const CHUNK: (u64, u64) = (64 << 10, 512 << 10);
/// Which part of a layer a message is, between these. A few messages of each layer that is under way are lost with a kill, so
/// they are to be small; but what a message costs containerd does not depend much on its length.
const PART: u64 = 128;
/// How often, and how long apart, a blob is begun anew until containerd has let go of the former attempt.
const RESTARTS: (u32, Duration) = (100, Duration::from_millis(50));

/// A blob on its way. Blocks on calls to containerd, as [`super::annex`] does.
struct Writer {
    client: Client,
    runtime: Handle,
    blob: Blob,
    lease: String,
    /// Those in `pending` included.
    offset: u64,
    /// What has come and was not sent.
    pending: Pieces,
    /// The length at which it is sent.
    chunk: usize,
    call: Option<Call>,
}

/// One call, which takes the bytes.
struct Call {
    outgoing: Outgoing,
    /// Whether the blob was committed.
    ended: JoinHandle<Result<bool, Status>>,
}

/// Begins a blob, or goes on with it.
pub(super) fn begin(
    client: &Client,
    runtime: &Handle,
    blob: Blob,
    lease: String,
) -> Result<AnnexIngest, RuntimeError> {
    let chunk = chunk(blob.size);
    let mut writer = Writer {
        client: client.clone(),
        runtime: runtime.clone(),
        blob,
        lease,
        offset: 0,
        pending: Pieces::default(),
        chunk,
        call: None,
    };
    match runtime.block_on(writer.client.begin_write(&writer.blob, &writer.lease)) {
        Ok(begun) => {
            writer.take_up(begun);
            if writer.offset > writer.blob.size {
                runtime.block_on(writer.begin_anew())?;
            }
            Ok(AnnexIngest::Write(Box::new(writer)))
        }
        // Asked for the first time: then it has also been added to the lease.
        Err(status) if status.code() == Code::AlreadyExists => Ok(AnnexIngest::Present),
        Err(status) if is_busy(&status) => Ok(AnnexIngest::Busy),
        Err(status) => Err(writer.failed(&status)),
    }
}

/// How many bytes of a layer of this size are sent in one message.
fn chunk(size: u64) -> usize {
    let chunk = (size / PART).clamp(CHUNK.0, CHUNK.1);
    usize::try_from(chunk).unwrap_or(64 << 10)
}

impl Writer {
    fn take_up(&mut self, begun: Begun) {
        let Begun { messages, mut answers, offset } = begun;
        let (running, over) = watch::channel(());
        let client = self.client.clone();
        let ended = self.runtime.spawn(async move {
            let _running = running;
            loop {
                match client.work(answers.message()).await? {
                    Some(answer) if answer.action() == WriteAction::Commit => return Ok(true),
                    Some(_) => {}
                    None => return Ok(false),
                }
            }
        });
        let outgoing = Outgoing { messages, over, runtime: self.runtime.clone() };
        self.call = Some(Call { outgoing, ended });
        self.offset = offset;
    }

    async fn begin_anew(&mut self) -> Result<(), RuntimeError> {
        self.pending = Pieces::default();
        self.call = None;
        let mut left = RESTARTS.0;
        loop {
            self.client.abort_write(&self.blob.digest).await?;
            match self.client.begin_write(&self.blob, &self.lease).await {
                Ok(begun) if begun.offset == 0 => {
                    self.take_up(begun);
                    return Ok(());
                }
                Err(status) if !is_busy(&status) || left == 0 => return Err(self.failed(&status)),
                Ok(_) if left == 0 => {
                    let cause = "it keeps what it was told to drop".to_owned();
                    return Err(RuntimeError::Refused { what: self.what(), cause });
                }
                _ => tokio::time::sleep(RESTARTS.1).await,
            }
            left -= 1;
        }
    }

    /// The next message, if there is anything to send.
    fn next(&mut self) -> Option<Message> {
        if self.pending.len() == 0 {
            return None;
        }
        let mut write = message(&self.blob, WriteAction::Write, self.offset - self.pending.len() as u64);
        // Without what is expected: containerd would look for the finished blob at every message.
        write.expected.clear();
        Some(Message::new(&write, self.pending.take()))
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(message) = self.next() else { return Ok(()) };
        let sent = self.call.as_mut().is_some_and(|call| call.outgoing.send(message));
        if sent {
            return Ok(());
        }
        Err(match self.end() {
            Err(status) => io::Error::other(self.failed(&status)),
            Ok(_) => io::Error::other(self.failed(&Status::unavailable("the connection ended"))),
        })
    }

    /// How the call ended.
    fn end(&mut self) -> Result<bool, Status> {
        let Some(Call { outgoing, ended }) = self.call.take() else {
            return Err(Status::unavailable("the connection ended before"));
        };
        drop(outgoing);
        self.runtime.block_on(ended).unwrap_or_else(|error| Err(Status::internal(error.to_string())))
    }

    fn what(&self) -> String {
        format!("take blob {}", self.blob.digest)
    }

    fn failed(&self, status: &Status) -> RuntimeError {
        self.client.failed(&self.what(), status)
    }
}

impl AnnexWriter for Writer {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn write(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let now = bytes.split_to(bytes.len().min(self.chunk - self.pending.len()));
            self.offset += now.len() as u64;
            self.pending.push(now);
            if self.pending.len() == self.chunk {
                self.send()?;
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.begin_anew()).map_err(io::Error::other)
    }

    fn finish(mut self: Box<Self>) -> io::Result<Result<(), Digest>> {
        self.send()?;
        let mut commit = message(&self.blob, WriteAction::Commit, self.offset);
        commit.labels.clone_from(&self.blob.labels);
        if let Some(call) = &mut self.call {
            // How that went is for the answer to tell.
            call.outgoing.send(Message::new(&commit, Vec::new()));
        }
        let status = match self.end() {
            Ok(true) => return Ok(Ok(())),
            Ok(false) => Status::unavailable("the connection ended"),
            Err(status) => status,
        };
        match (status.code(), other_digest(status.message(), &self.blob.digest)) {
            // Somebody else was faster. The delivery sees to it that the lease has it.
            (Code::AlreadyExists, _) => Ok(Ok(())),
            (Code::FailedPrecondition, Some(actual)) => {
                let dropped = self.runtime.block_on(self.client.abort_write(&self.blob.digest));
                dropped.map_err(io::Error::other)?;
                Ok(Err(actual))
            }
            _ => Err(io::Error::other(self.failed(&status))),
        }
    }
}

/// The digest in "unexpected commit digest X, expected Y"
/// (<https://github.com/containerd/containerd/blob/v2.2.1/plugins/content/local/writer.go>).
fn other_digest(message: &str, expected: &Digest) -> Option<Digest> {
    let words = message.split(|c: char| c.is_whitespace() || c == ',');
    words.filter_map(|word| word.parse().ok()).find(|digest| digest != expected)
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What has come is worth keeping for the next try.
        if let Some(message) = self.next()
            && let Some(call) = &self.call
        {
            call.outgoing.messages.try_send(message).ok();
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Writer({}, {} of {} bytes)", self.blob.digest, self.offset, self.blob.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_small_beside_their_layer_and_not_too_many() {
        assert_eq!(chunk(0), 64 << 10);
        assert_eq!(chunk(32 << 20), 256 << 10);
        assert_eq!(chunk(u64::MAX), 512 << 10);
    }

    #[test]
    fn containerds_words_tell_the_digest() {
        let [expected, actual] = [b"expected", b"received"].map(|text| Digest::sha256(text));
        let message = format!("unexpected commit digest {actual}, expected {expected}: failed precondition");
        assert_eq!(other_digest(&message, &expected), Some(actual));
        assert_eq!(other_digest("unexpected commit size 3, expected 4", &expected), None);
    }
}
