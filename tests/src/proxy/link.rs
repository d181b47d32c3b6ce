//! A long way to a registry: every byte comes later, and no connection is faster than it may be.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::body::duration_of;
use crate::runtime::{block_on, runtime};
use crate::{Error, Result};

/// Bytes that are read at a time.
const PIECE: usize = 32 << 10;
/// Pieces under way at a time: more than any delay and rate that make sense can fill.
const UNDER_WAY: usize = 256;

/// A TCP proxy with a delay, and a limit for each connection. Dropping it closes all connections.
///
/// The handshake of a new connection is not delayed, since it is the kernel's; its first bytes are, twice.
#[derive(Debug)]
pub struct Link {
    host: String,
    server: AbortHandle,
}

impl Link {
    /// Starts one in front of `upstream` (`host:port`): what is sent arrives half a `round_trip` later, and what
    /// comes back at most at `bytes_per_second` on each connection.
    pub fn start(upstream: &str, round_trip: Duration, bytes_per_second: u64) -> Result<Self> {
        let bind = async { TcpListener::bind("127.0.0.1:0").await.map_err(Error::data("proxy's socket")) };
        let listener = block_on(bind)?;
        let host = listener.local_addr().map_err(Error::data("proxy's socket"))?.to_string();
        let upstream = upstream.to_owned();
        let server = runtime()?.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connection(client, upstream.clone(), round_trip, bytes_per_second));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { host, server: server.abort_handle() })
    }

    /// `127.0.0.1:PORT`, as image names begin.
    #[must_use]
    pub fn host(&self) -> String {
        self.host.clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn connection(client: TcpStream, upstream: String, round_trip: Duration, rate: u64) {
    // What the handshake would have taken.
    tokio::time::sleep(round_trip).await;
    let Ok(server) = TcpStream::connect(&upstream).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok();
    }
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let one_way = round_trip / 2;
    tokio::join!(
        pass(client_in, server_out, one_way, None),
        pass(server_in, client_out, one_way, Some(rate))
    );
}

/// Passes bytes on, each piece when it is due.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, rate: Option<u64>) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Bytes)>(UNDER_WAY);
    let read = async move {
        let mut buffer = vec![0; PIECE];
        let mut free_at = Instant::now();
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            // The piece leaves when the ones before it have left, and arrives a delay after its last byte has.
            let begin = free_at.max(Instant::now());
            free_at = begin + rate.map_or(Duration::ZERO, |rate| duration_of(length as u64, rate));
            let piece = Bytes::copy_from_slice(&buffer[..length]);
            if sender.send((free_at + delay, piece)).await.is_err() {
                return;
            }
            // No further ahead of the line than its own length.
            sleep_until(free_at).await;
        }
    };
    let write = async move {
        while let Some((due, piece)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        to.shutdown().await.ok();
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_arrive_whole_and_no_sooner_than_they_may() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = listener.local_addr().unwrap().to_string();
        let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let expected = sent.clone();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).unwrap();
            stream.write_all(&sent).unwrap();
        });
        let link = Link::start(&upstream, Duration::from_millis(40), 1_000_000).unwrap();
        let start = std::time::Instant::now();
        let mut client = std::net::TcpStream::connect(link.host()).unwrap();
        client.write_all(b"hello").unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        server.join().unwrap();
        assert!(received == expected);
        // 300 kB at 1 MB/s and two round trips; how much later is the machine's affair.
        assert!(start.elapsed() >= Duration::from_millis(360));
    }
}
