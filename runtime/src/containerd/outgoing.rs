//! The messages with which a blob is written: gRPC's frames
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>) of protobuf, made here and not by tonic.
//!
//! Its encoder copies what a message holds into memory that it asks for anew each time. At half a megabyte, for each of a
//! layer's messages, that was half of all that the agent did.

use std::convert::Infallible;

use bytes::{BufMut, Bytes};
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

    use super::*;
    use crate::api::content::WriteAction;

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
