//! Bodies, passed on in small pieces.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::time::Instant;

use super::Shared;

/// The most that is handed to the connection at once.
const PIECE: usize = 16 << 10;

/// How long a cut waits for the bytes before it to leave our buffers. When it is too short the client sees fewer
/// bytes than the rule says, as on any connection that breaks.
const SETTLE: Duration = Duration::from_millis(20);

/// A response's body.
pub(super) type ProxyBody = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

/// How a body ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Reset,
    Close,
    Stall,
}

/// What happens to the bytes on their way.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// After how many bytes it ends, and how.
    pub end: Option<(u64, End)>,
    /// Offsets of bytes to change.
    pub flips: Vec<u64>,
    /// Bytes a second.
    pub rate: Option<u64>,
}

struct Sender {
    shared: Arc<Shared>,
    number: usize,
    reset: Arc<AtomicBool>,
    pieces: Pieces,
    content: BoxStream<'static, io::Result<Bytes>>,
    pending: Bytes,
    position: u64,
    next: Instant,
}

/// Passes content on as a body, piece by piece, and counts it for the exchange of that number.
pub(super) fn send(
    shared: Arc<Shared>,
    number: usize,
    reset: Arc<AtomicBool>,
    pieces: Pieces,
    content: BoxStream<'static, io::Result<Bytes>>,
) -> ProxyBody {
    let sender = Sender {
        shared,
        number,
        reset,
        pieces,
        content,
        pending: Bytes::new(),
        position: 0,
        next: Instant::now(),
    };
    StreamBody::new(
        stream::try_unfold(sender, |mut sender| async move {
            Ok(sender.next().await?.map(|piece| (Frame::data(piece), sender)))
        })
        .boxed(),
    )
}

impl Sender {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some((offset, end)) = self.pieces.end
            && self.position >= offset
        {
            self.cut(end).await?;
        }
        while self.pending.is_empty() {
            match self.content.next().await {
                None => return Ok(None),
                Some(bytes) => self.pending = bytes?,
            }
        }
        let room = self.pieces.end.map_or(u64::MAX, |(offset, _)| offset - self.position);
        // A piece is sent at once: at a low rate, no more than what a tenth of a second brings.
        let steady = self.pieces.rate.map_or(u64::MAX, |rate| (rate / 10).max(1));
        let length =
            self.pending.len().min(PIECE).min(usize::try_from(room.min(steady)).unwrap_or(usize::MAX));
        let piece = self.pending.split_to(length);
        let piece = self.flipped(piece);
        let size = piece.len() as u64;
        self.shared.pace(size).await;
        if let Some(rate) = self.pieces.rate {
            let start = self.next.max(Instant::now());
            self.next = start + duration_of(size, rate);
            sleep_until(start).await;
        }
        self.position += size;
        self.shared.count(self.number, size);
        Ok(Some(piece))
    }

    async fn cut(&mut self, end: End) -> io::Result<()> {
        match end {
            End::Stall => std::future::pending().await,
            End::Reset | End::Close => {
                tokio::time::sleep(SETTLE).await;
                self.reset.store(end == End::Reset, Ordering::SeqCst);
                Err(io::Error::from(io::ErrorKind::ConnectionAborted))
            }
        }
    }

    fn flipped(&self, piece: Bytes) -> Bytes {
        let end = self.position + piece.len() as u64;
        let here: Vec<usize> = (self.pieces.flips.iter())
            .filter(|&&offset| (self.position..end).contains(&offset))
            .filter_map(|offset| usize::try_from(offset - self.position).ok())
            .collect();
        if here.is_empty() {
            return piece;
        }
        let mut piece = BytesMut::from(piece);
        for offset in here {
            piece[offset] ^= 0xff;
        }
        piece.freeze()
    }
}

/// The first `limit` bytes of some content.
pub(super) fn first(
    content: BoxStream<'static, io::Result<Bytes>>,
    limit: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    content
        .scan(limit, |left, bytes| {
            let bytes = bytes.map(|mut bytes| {
                bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len()));
                *left -= bytes.len() as u64;
                bytes
            });
            std::future::ready(Some(bytes))
        })
        .take_while(|bytes| std::future::ready(bytes.as_ref().map_or(true, |bytes| !bytes.is_empty())))
        .boxed()
}

/// How long so many bytes take at this rate.
pub(super) fn duration_of(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / bytes_per_second.max(1))
}

/// Sleeps, unless it is for less than the timer's millisecond: short waits add up to one that counts.
pub(super) async fn sleep_until(instant: Instant) {
    if instant.saturating_duration_since(Instant::now()) >= Duration::from_millis(1) {
        tokio::time::sleep_until(instant).await;
    }
}
