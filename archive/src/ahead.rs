//! Reading on a thread of its own, so that decompressing and storing go on at the same time.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use crate::{ArchiveError, Result, Stop};

const CHUNK: usize = 256 << 10;
/// How many chunks are read ahead.
const DEPTH: usize = 8;
/// How often who waits for input asks whether to stop: often enough for a person at a terminal.
const PATIENCE: Duration = Duration::from_millis(100);

/// A stream that another thread reads ahead of us.
///
/// The thread is not waited for: when this goes, it ends with its next chunk. While it waits for input that never
/// comes it stays, which nothing but the program's end can change.
pub(crate) struct ReadAhead {
    chunks: Receiver<io::Result<Chunk>>,
    used: SyncSender<Vec<u8>>,
    current: Chunk,
    position: usize,
    ended: bool,
}

/// A buffer, and how much of it is filled.
#[derive(Default)]
struct Chunk {
    buffer: Vec<u8>,
    length: usize,
}

impl ReadAhead {
    pub(crate) fn new(stream: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, chunks) = sync_channel(DEPTH);
        let (used, free) = sync_channel(DEPTH + 2);
        thread::Builder::new()
            .name("read ahead".to_owned())
            .spawn(move || read_all(stream, &sender, &free))
            .map(drop)?;
        Ok(Self { chunks, used, current: Chunk::default(), position: 0, ended: false })
    }

    /// The next bytes, without copying; empty at the end. Waits until there are some, or `stop` says so.
    pub(crate) fn fill(&mut self, stop: Stop<'_>) -> Result<&[u8]> {
        while self.position == self.current.length && !self.ended {
            // A channel that is full or closed: the chunk is freed instead.
            let _ = self.used.try_send(std::mem::take(&mut self.current).buffer);
            self.position = 0;
            match self.chunks.recv_timeout(PATIENCE) {
                Ok(Ok(chunk)) => self.current = chunk,
                Ok(Err(error)) => {
                    self.ended = true;
                    return Err(ArchiveError::Read(error));
                }
                Err(RecvTimeoutError::Timeout) if stop() => return Err(ArchiveError::Interrupted),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.ended = true,
            }
        }
        Ok(&self.current.buffer[self.position..self.current.length])
    }

    /// Takes so many of the bytes that [`ReadAhead::fill`] gave.
    pub(crate) fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.current.length);
    }
}

fn read_all(mut stream: impl Read, chunks: &SyncSender<io::Result<Chunk>>, free: &Receiver<Vec<u8>>) {
    loop {
        let mut buffer = free.try_recv().unwrap_or_default();
        buffer.resize(CHUNK, 0);
        let read = read_full(&mut stream, &mut buffer);
        let last = !matches!(read, Ok(CHUNK));
        // What came before the error is of no use: the archive is broken either way.
        if chunks.send(read.map(|length| Chunk { buffer, length })).is_err() || last {
            return;
        }
    }
}

/// Reads until the buffer is full or the stream at its end.
fn read_full(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match stream.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_bytes_and_then_the_error() {
        struct Broken(u32);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 > 3 {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                buffer.fill(7);
                Ok(buffer.len())
            }
        }
        let mut ahead = ReadAhead::new(Broken(0)).unwrap();
        let mut total = 0;
        let error = loop {
            match ahead.fill(&|| false) {
                Ok(bytes) => {
                    assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 7));
                    total += bytes.len();
                }
                Err(error) => break error,
            }
            ahead.consume(usize::MAX / 2);
        };
        assert!(total > 0);
        assert!(matches!(error, ArchiveError::Read(error) if error.kind() == io::ErrorKind::ConnectionReset));
        assert!(ahead.fill(&|| false).unwrap().is_empty(), "at its end for good");
    }
    #[test]
    fn who_waits_for_input_can_be_stopped() {
        let (silent, _writer) = io::pipe().unwrap();
        let mut ahead = ReadAhead::new(silent).unwrap();
        assert!(matches!(ahead.fill(&|| true), Err(ArchiveError::Interrupted)));
    }
}
