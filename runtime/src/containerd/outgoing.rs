//! The messages with which a blob is written: gRPC's frames
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>) of protobuf, made here and not by tonic.
//!
//! Its encoder copies what a message holds into memory that it asks for anew each time. At half a megabyte, for each of a
//! layer's messages, that was half of all that the agent did.

use std::{convert::Infallible, mem};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tonic::body::Body;

use crate::api::content::WriteContentRequest;

/// The field of `WriteContentRequest` that holds the bytes.
const DATA: u32 = 6;
/// How many messages may wait for containerd.
const WAITING: usize = 2;

/// A piece as large as this is passed on as it is. A smaller one is copied: it may be a few bytes of a buffer that is much larger,
/// and would keep all of it.
const WHOLE: usize = 16 << 10;
/// So many bytes of small pieces are gathered into one.
const GATHERED: usize = 64 << 10;

/// Bytes as they come, until there are enough for a message.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    done: Vec<Bytes>,
    /// What came after those, in small pieces.
    small: BytesMut,
    /// The length of both.
    length: usize,
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if piece.len() >= WHOLE {
            self.gather();
            self.done.push(piece);
            return;
        }
        if self.small.capacity() == 0 {
            self.small.reserve(GATHERED);
        }
        self.small.extend_from_slice(&piece);
        if self.small.len() > GATHERED - WHOLE {
            self.gather();
        }
    }

    /// All of them, in order. None are left.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.gather();
        self.length = 0;
        mem::take(&mut self.done)
    }

    fn gather(&mut self) {
        if !self.small.is_empty() {
            self.done.push(mem::take(&mut self.small).freeze());
        }
    }
}

/// One message, in the pieces in which it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message(Vec<Bytes>);

impl Message {
    /// The request, with these bytes as its data, one after the other.
    pub(super) fn new(request: &WriteContentRequest, data: Vec<Bytes>) -> Self {
        debug_assert!(request.data.is_empty(), "the data is given apart");
        let length: usize = data.iter().map(Bytes::len).sum();
        let mut fields = request.encode_to_vec();
        if length > 0 {
            encode_key(DATA, WireType::LengthDelimited, &mut fields);
            encode_varint(length as u64, &mut fields);
        }
        let mut head = Vec::with_capacity(5 + fields.len());
        // Not compressed.
        head.put_u8(0);
        // It is never near the 4 GiB that a frame may have, nor the 16 MiB that containerd takes.
        head.put_u32(u32::try_from(fields.len() + length).unwrap_or(u32::MAX));
        head.extend_from_slice(&fields);
        Self([Bytes::from(head)].into_iter().chain(data).collect())
    }
}

/// Where messages are put, and the body of the request that sends them.
pub(super) fn channel() -> (mpsc::Sender<Message>, Body) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (sender, Body::new(StreamBody::new(frames(receiver))))
}

fn frames(receiver: mpsc::Receiver<Message>) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let messages =
        stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    messages.flat_map(|Message(pieces)| stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece)))))
}

/// Messages that a thread sends which may block. It stops when the call is over, also one that takes no more messages.
pub(super) struct Outgoing {
    pub(super) messages: mpsc::Sender<Message>,
    /// Whoever waits for the call's end has the other side, and drops it then.
    pub(super) over: watch::Receiver<()>,
    pub(super) runtime: Handle,
}

impl Outgoing {
    /// Blocks. False: the call is over.
    pub(super) fn send(&mut self, message: Message) -> bool {
        self.runtime.block_on(async {
            tokio::select! {
                sent = self.messages.send(message) => sent.is_ok(),
                _ = self.over.changed() => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Buf;
    use http_body_util::BodyExt;

    use super::*;
    use crate::api::content::WriteAction;

    #[test]
    fn small_pieces_are_gathered_and_large_ones_are_not_copied() {
        let mut pieces = Pieces::default();
        let large = Bytes::from(vec![1; WHOLE]);
        let mut expected = Vec::new();
        for number in 0..200_000_u32 {
            let byte = Bytes::copy_from_slice(&number.to_le_bytes()[..1]);
            expected.extend_from_slice(&byte);
            pieces.push(byte);
            if number % 50_000 == 7 {
                expected.extend_from_slice(&large);
                pieces.push(large.clone());
            }
        }
        assert_eq!(pieces.len(), expected.len());
        let taken = pieces.take();
        assert!(taken.len() < 20, "{}", taken.len());
        assert!(taken.iter().all(|piece| piece.len() <= GATHERED));
        let is_large = |piece: &&Bytes| piece.as_ptr() == large.as_ptr();
        assert_eq!(taken.iter().filter(is_large).count(), 4);
        assert_eq!(taken.concat(), expected);
        assert_eq!((pieces.len(), pieces.take()), (0, vec![]));
    }

    /// Messages one after the other, as a server's reader takes them apart.
    #[tokio::test]
    async fn a_body_is_its_messages() {
        let (sender, body) = channel();
        let request = |offset| WriteContentRequest { offset, ..WriteContentRequest::default() };
        sender
            .send(Message::new(&request(1), vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]))
            .await
            .unwrap();
        sender.send(Message::new(&request(4), Vec::new())).await.unwrap();
        drop(sender);
        let mut sent = body.collect().await.unwrap().to_bytes();
        let mut read = Vec::new();
        while !sent.is_empty() {
            assert_eq!(sent.get_u8(), 0);
            let length = sent.get_u32() as usize;
            read.push(WriteContentRequest::decode(sent.split_to(length)).unwrap());
        }
        let first = WriteContentRequest { data: Bytes::from_static(b"abc"), ..request(1) };
        assert_eq!(read, [first, request(4)]);
    }

    /// What tonic's own encoder would have sent, as far as a reader can tell.
    #[test]
    fn a_message_reads_back_as_the_request() {
        let request = WriteContentRequest {
            action: WriteAction::Write.into(),
            r#ref: "larder-sha256:0".to_owned(),
            total: 1 << 40,
            expected: "sha256:0".to_owned(),
            offset: 12,
            data: Bytes::new(),
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]).into_iter().collect(),
        };
        for data in [
            vec![],
            vec![Bytes::from_static(b"one")],
            vec![Bytes::from(vec![7; 300]), Bytes::from_static(b"!")],
        ] {
            let Message(pieces) = Message::new(&request, data.clone());
            assert_eq!(pieces[1..], data[..], "the bytes themselves are not copied");
            let sent = pieces.concat();
            assert_eq!(sent[0], 0);
            assert_eq!(u32::from_be_bytes(sent[1..5].try_into().unwrap()) as usize, sent.len() - 5);
            let read = WriteContentRequest::decode(&sent[5..]).unwrap();
            assert_eq!(read, WriteContentRequest { data: data.concat().into(), ..request.clone() });
        }
    }
}
