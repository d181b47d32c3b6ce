//! containerd's content store: blobs, written from the layer store, read back, labelled.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use larder_oci::{Digest, spec::Descriptor};
use larder_store::{Store, StoreError};
use prost_types::FieldMask;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tonic::{Code, Status, Streaming};

use super::{
    client::{Answer, Client, leased, request, timed},
    outgoing::{self, Message, Outgoing},
};
use crate::{
    RuntimeError,
    api::content::{
        AbortRequest, Info, InfoRequest, ReadContentRequest, StatusRequest, UpdateRequest, WriteAction,
        WriteContentRequest, WriteContentResponse,
    },
    socket::CALL_TIMEOUT,
};

/// Bytes sent in one message.
const CHUNK: usize = 512 << 10;
/// How often a blob is begun anew before its failure is believed.
const ATTEMPTS: u32 = 3;
/// How long to wait for somebody else who is writing the same blob before looking again.
const BUSY: Duration = Duration::from_millis(250);
/// After how many such waits somebody else must be stuck.
const MAX_BUSY: u32 = 4 * 60 * 20;

/// `<prefix>.<host>`: the label that tells where a blob can be had.
pub(super) const SOURCE: &str = "containerd.io/distribution.source";

/// A blob to be in the content store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// To be set with it.
    pub(super) labels: BTreeMap<String, String>,
}

/// A blob that is being written.
pub(super) struct Begun {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) answers: Streaming<WriteContentResponse>,
    /// How many bytes of it are there.
    pub(super) offset: u64,
}

/// How an attempt at writing ended.
enum Written {
    /// It is there, and the lease has it.
    There,
    /// It appeared meanwhile. Whether the lease has it must be seen.
    Appeared,
    /// Somebody else is writing it.
    Busy,
    /// What an earlier attempt left is not its beginning.
    Damaged(RuntimeError),
}

impl Blob {
    pub(super) fn new(descriptor: &Descriptor) -> Result<Self, RuntimeError> {
        let digest = Digest::try_from(descriptor.digest()).map_err(StoreError::from)?;
        Ok(Self { digest, size: descriptor.size(), labels: BTreeMap::new() })
    }
}

impl Client {
    /// What containerd knows of a blob that it has.
    pub(super) async fn blob(&self, digest: &Digest) -> Result<Option<Info>, RuntimeError> {
        let message = InfoRequest { digest: digest.to_string() };
        match self.attempt(&format!("look up blob {digest}"), self.content().info(request(message))).await? {
            Answer::Done(answer) => Ok(answer.info),
            Answer::NotFound | Answer::AlreadyExists => Ok(None),
        }
    }

    /// Makes sure that containerd has a blob, and that the lease keeps it. What it has of it is not sent again.
    pub(super) async fn put_blob(&self, store: &Store, blob: &Blob, lease: &str) -> Result<(), RuntimeError> {
        let (mut attempts, mut busy) = (0, 0);
        loop {
            match self.write(store, blob, lease).await? {
                Written::There => return Ok(()),
                Written::Busy if busy < MAX_BUSY => {
                    busy += 1;
                    tokio::time::sleep(BUSY).await;
                }
                Written::Busy => {
                    let what = format!("take blob {}", blob.digest);
                    let cause =
                        "another larder has been writing it for 20 minutes; is it stopped?".to_owned();
                    return Err(RuntimeError::Refused { what, cause });
                }
                Written::Appeared if attempts < ATTEMPTS => attempts += 1,
                Written::Damaged(_) if attempts < ATTEMPTS => {
                    attempts += 1;
                    self.abort_write(&blob.digest).await?;
                }
                Written::Damaged(error) => return Err(error),
                Written::Appeared => {
                    let what = format!("keep blob {}", blob.digest);
                    return Err(RuntimeError::Refused { what, cause: "it comes and goes".to_owned() });
                }
            }
        }
    }

    /// As [`Client::put_blob`], for what may be there with other labels.
    pub(super) async fn put_labelled(
        &self,
        store: &Store,
        blob: &Blob,
        lease: &str,
    ) -> Result<(), RuntimeError> {
        self.put_blob(store, blob, lease).await?;
        let Some(found) = self.blob(&blob.digest).await? else {
            let what = format!("keep blob {}", blob.digest);
            return Err(RuntimeError::Refused { what, cause: "it went as soon as it was there".to_owned() });
        };
        let mut labels = blob.labels.clone();
        // Where it can be had besides is for those to say who got it there.
        labels.retain(|label, value| match found.labels.get(label) {
            Some(found) => found != value && !label.starts_with(SOURCE),
            None => true,
        });
        self.label_blob(&blob.digest, labels).await
    }

    /// Sets labels of a blob; others stay.
    pub(super) async fn label_blob(
        &self,
        digest: &Digest,
        labels: BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|label| format!("labels.{label}")).collect();
        let info = Info { digest: digest.to_string(), labels, ..Info::default() };
        let message = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
        self.call(&format!("label blob {digest}"), self.content().update(request(message))).await.map(drop)
    }

    /// Begins to write a blob under a lease, or goes on where somebody stopped.
    pub(super) async fn begin_write(&self, blob: &Blob, lease: &str) -> Result<Begun, Status> {
        let (messages, body) = outgoing::channel();
        // Never full: it is the first.
        messages.try_send(Message::new(&message(blob, WriteAction::Stat, 0), Vec::new())).ok();
        timed(CALL_TIMEOUT, async {
            // In place of the body that tonic would make.
            let mut client = self.content_with(body);
            let mut answers = client.write(leased(lease, futures::stream::empty())).await?.into_inner();
            let offset = answers.message().await?.map_or(0, |first| first.offset);
            Ok(Begun { messages, answers, offset: u64::try_from(offset).unwrap_or(0) })
        })
        .await
    }

    /// How many bytes there are of a blob that somebody began to write for us.
    pub(super) async fn begun(&self, digest: &Digest) -> Result<u64, RuntimeError> {
        let message = StatusRequest { r#ref: reference(digest) };
        let what = format!("look up what there is of blob {digest}");
        match self.attempt(&what, self.content().status(request(message))).await? {
            Answer::Done(answer) => {
                let offset = answer.status.map_or(0, |status| status.offset);
                Ok(u64::try_from(offset).unwrap_or_default())
            }
            Answer::NotFound | Answer::AlreadyExists => Ok(0),
        }
    }

    /// Drops what there is of a blob that is not complete.
    pub(super) async fn abort_write(&self, digest: &Digest) -> Result<(), RuntimeError> {
        let message = AbortRequest { r#ref: reference(digest) };
        self.attempt("drop a damaged blob", self.content().abort(request(message))).await.map(drop)
    }

    async fn write(&self, store: &Store, blob: &Blob, lease: &str) -> Result<Written, RuntimeError> {
        let what = format!("take blob {}", blob.digest);
        let Begun { messages, mut answers, offset } = match self.begin_write(blob, lease).await {
            Ok(begun) => begun,
            // Asked for the first time: then it has also been added to the lease.
            Err(status) if status.code() == Code::AlreadyExists => return Ok(Written::There),
            Err(status) => return self.not_written(&what, &status, false),
        };
        let resumed = offset > 0;
        let (running, over) = watch::channel(());
        let mut outgoing = Outgoing { messages, over, runtime: Handle::current() };
        let reader = tokio::task::spawn_blocking({
            let (store, blob) = (store.clone(), blob.clone());
            move || send(&store, &blob, offset, &mut outgoing)
        });
        let outcome = loop {
            match self.work(answers.message()).await {
                Ok(Some(answer)) if answer.action() == WriteAction::Commit => break Ok(Written::There),
                Ok(Some(_)) => {}
                Ok(None) => break Err(Status::unavailable("the connection ended")),
                Err(status) => break Err(status),
            }
        };
        // An answer that ended early is the reader's fault if it has one.
        drop((answers, running));
        reader.await.map_err(|error| unreadable(store, blob)(io::Error::other(error)))??;
        outcome.or_else(|status| self.not_written(&what, &status, resumed))
    }

    fn not_written(&self, what: &str, status: &Status, resumed: bool) -> Result<Written, RuntimeError> {
        match status.code() {
            Code::AlreadyExists => Ok(Written::Appeared),
            _ if is_busy(status) => Ok(Written::Busy),
            Code::FailedPrecondition | Code::OutOfRange if resumed => {
                Ok(Written::Damaged(self.failed(what, status)))
            }
            _ => Err(self.failed(what, status)),
        }
    }

    /// Reads a part of a blob, not more than `length` bytes; less only at its end.
    pub(super) async fn read_blob(
        &self,
        digest: &Digest,
        offset: u64,
        length: usize,
    ) -> Result<Answer<Bytes>, RuntimeError> {
        let what = format!("read blob {digest}");
        let message = ReadContentRequest {
            digest: digest.to_string(),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            size: i64::try_from(length).unwrap_or(i64::MAX),
        };
        let read = timed(CALL_TIMEOUT, async {
            let mut parts = self.content().read(request(message)).await?.into_inner();
            let mut bytes = BytesMut::new();
            while let Some(part) = parts.message().await? {
                bytes.extend_from_slice(&part.data);
                if bytes.len() > length {
                    return Err(Status::internal("it gives more than was asked for"));
                }
            }
            Ok(bytes.freeze())
        });
        match read.await {
            Ok(bytes) => Ok(Answer::Done(bytes)),
            Err(status) => self.planned(&what, &status),
        }
    }
}

/// The name of a blob in the making. It is ours, so that nobody else's is ever touched, and the same at each attempt, so that
/// one goes on where another was interrupted.
fn reference(digest: &Digest) -> String {
    format!("larder-{digest}")
}

/// Whether somebody else is writing the same blob
/// (<https://github.com/containerd/containerd/blob/v2.2.1/plugins/content/local/locks.go>).
pub(super) fn is_busy(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("locked")
}

pub(super) fn message(blob: &Blob, action: WriteAction, offset: u64) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: reference(&blob.digest),
        total: i64::try_from(blob.size).unwrap_or(i64::MAX),
        expected: blob.digest.to_string(),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        ..WriteContentRequest::default()
    }
}

fn unreadable(store: &Store, blob: &Blob) -> impl Fn(io::Error) -> StoreError {
    let path = store.blob_path(&blob.digest);
    move |source| StoreError::Io { doing: "read", path: path.clone(), source }
}

/// Sends the blob from `offset` on, and the commit. Blocks. Ends early, without an error, when nobody listens any more.
fn send(store: &Store, blob: &Blob, offset: u64, outgoing: &mut Outgoing) -> Result<(), StoreError> {
    let failed = unreadable(store, blob);
    let mut file = store.open_blob(&blob.digest)?;
    // More than the blob has is no beginning of it.
    let mut offset = if offset > blob.size { 0 } else { offset };
    file.seek(SeekFrom::Start(offset)).map_err(&failed)?;
    while offset < blob.size {
        let mut chunk = Vec::with_capacity(CHUNK);
        (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).map_err(&failed)?;
        if chunk.is_empty() {
            return Err(StoreError::SizeMismatch {
                digest: blob.digest.clone(),
                expected: blob.size,
                actual: offset,
            });
        }
        let length = chunk.len() as u64;
        // Without what is expected: containerd would look for the finished blob at every message.
        let mut write = message(blob, WriteAction::Write, offset);
        write.expected.clear();
        if !outgoing.send(Message::new(&write, vec![chunk.into()])) {
            return Ok(());
        }
        offset += length;
    }
    let mut commit = message(blob, WriteAction::Commit, offset);
    commit.labels.clone_from(&blob.labels);
    outgoing.send(Message::new(&commit, Vec::new()));
    Ok(())
}
