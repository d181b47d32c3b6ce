//! Compression on all cores.
//!
//! The stream is cut into blocks of a fixed size, and each becomes a gzip member, a bzip2 stream or a zstd frame of
//! its own. One after the other they are a valid file of their kind, which every tool reads. Where the cuts are does
//! not depend on the machine or on the sizes of the writes: the same input gives the same bytes everywhere.

use std::{
    collections::VecDeque,
    io::{self, Write},
    mem,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use crate::Compression;

/// More threads than this are not kept busy by one reader, and each costs memory.
const MAX_WORKERS: usize = 16;
const BZIP2_LEVEL: u32 = 9;
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// How much goes into one block. Large enough that what the cut costs in size is not seen (below 1 %), small enough that
    /// several in memory are not seen either: for bzip2 exactly what its level 9 sorts at a time, for gzip many times its
    /// window, for zstd its window.
    fn block_size(self) -> usize {
        match self {
            Self::None | Self::Gzip => 1 << 20,
            Self::Bzip2 => 900_000,
            Self::Zstd => 2 << 20,
        }
    }
}

/// What a worker needs to compress block after block.
enum Packer {
    Gzip,
    Bzip2,
    /// It compresses a block from where it is, without the window's copy that its stream makes.
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Packer {
    fn new(compression: Compression) -> io::Result<Option<Self>> {
        Ok(match compression {
            Compression::None => None,
            Compression::Gzip => Some(Self::Gzip),
            Compression::Bzip2 => Some(Self::Bzip2),
            Compression::Zstd => {
                let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
                // gzip and bzip2 have one; with it, every byte of the archive is checked when it is read.
                compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
                Some(Self::Zstd(Box::new(compressor)))
            }
        })
    }

    fn pack(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let room = || Vec::with_capacity(block.len() / 2);
        match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(room(), flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(block)?;
                encoder.finish()
            }
            Self::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(room(), bzip2::Compression::new(BZIP2_LEVEL));
                encoder.write_all(block)?;
                encoder.finish()
            }
            Self::Zstd(compressor) => {
                let mut packed = compressor.compress(block)?;
                packed.shrink_to_fit();
                Ok(packed)
            }
        }
    }
}

struct Job {
    block: Vec<u8>,
    result: SyncSender<io::Result<Vec<u8>>>,
}

/// Compresses what is written to it. [`Compressor::finish`] must be called at the end, or the end is missing.
pub(crate) struct Compressor<W: Write> {
    output: W,
    compression: Compression,
    block: Vec<u8>,
    /// None once there is nothing more to do, which ends the workers.
    jobs: Option<SyncSender<Job>>,
    /// In the order of the blocks.
    results: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    workers: Vec<JoinHandle<()>>,
    any: bool,
}

impl<W: Write> Compressor<W> {
    /// With as many workers as there are cores, or fewer if `most` says so.
    pub(crate) fn new(output: W, compression: Compression, most: Option<NonZeroUsize>) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let most = most.map_or(MAX_WORKERS, NonZeroUsize::get).min(MAX_WORKERS);
        let count = if compression == Compression::None { 0 } else { cores.min(most) };
        Self::with_workers(output, compression, count)
    }

    fn with_workers(output: W, compression: Compression, count: usize) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(count.max(1));
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Vec::new();
        for _ in 0..count {
            let Some(packer) = Packer::new(compression)? else { break };
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name("compress".to_owned());
            workers.push(thread.spawn(move || work(packer, &queue))?);
        }
        Ok(Self {
            output,
            compression,
            block: Vec::new(),
            jobs: Some(jobs),
            results: VecDeque::new(),
            workers,
            any: false,
        })
    }

    /// Hands the block to the workers; waits for the oldest one while as many are under way as keep them busy.
    fn submit(&mut self) -> io::Result<()> {
        self.any = true;
        while self.results.len() > self.workers.len() {
            self.write_oldest()?;
        }
        let block = mem::take(&mut self.block);
        let (result, receiver) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job { block, result }).map_err(|_| gone())?;
        self.results.push_back(receiver);
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(result) = self.results.pop_front() else { return Ok(()) };
        self.output.write_all(&result.recv().map_err(|_| gone())??)
    }

    /// Compresses and writes what is left, and gives back where it went.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if self.compression != Compression::None {
            // An empty file is no gzip file; one empty member is.
            if !self.block.is_empty() || !self.any {
                self.submit()?;
            }
            while !self.results.is_empty() {
                self.write_oldest()?;
            }
        }
        self.jobs = None;
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| gone())?;
        }
        self.output.flush()?;
        Ok(self.output)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.compression == Compression::None {
            return self.output.write(bytes);
        }
        let size = self.compression.block_size();
        if self.block.capacity() == 0 {
            self.block.reserve_exact(size);
        }
        let taken = bytes.len().min(size - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == size {
            self.submit()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

fn work(mut packer: Packer, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { block, result }) = job else { return };
        // Nobody waits for it any more when the writing has failed.
        let bytes = packer.pack(&block);
        drop(block);
        let _ = result.send(bytes);
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread that compresses has ended")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::compression::Packed;

    const ALL: [Compression; 3] = [Compression::Gzip, Compression::Bzip2, Compression::Zstd];

    fn packed(compression: Compression, workers: usize, bytes: &[u8], step: usize) -> Vec<u8> {
        let mut compressor = Compressor::with_workers(Vec::new(), compression, workers).unwrap();
        bytes.chunks(step).for_each(|chunk| compressor.write_all(chunk).unwrap());
        compressor.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Packed::of(bytes).unwrap().decode(bytes).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    fn text(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..length).map(|_| random.u8(..16)).collect()
    }

    #[test]
    fn bytes_depend_on_neither_cores_nor_writes_and_read_back() {
        let text = text(5 << 20);
        for compression in ALL {
            let one = packed(compression, 1, &text, 1 << 20);
            assert_eq!(one, packed(compression, 5, &text, 7777), "{compression}");
            assert_eq!(unpacked(&one), text, "{compression}");
            assert!(one.len() < text.len() * 6 / 10, "{compression}: {}", one.len());
        }
    }

    #[test]
    fn an_error_of_the_output_is_returned() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut compressor = Compressor::new(Full, Compression::Gzip, None).unwrap();
        let written = compressor.write_all(&vec![0; 8 << 20]).and_then(|()| compressor.finish().map(drop));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn reads_back(bytes in prop::collection::vec(any::<u8>(), 0..5000), which in 0..3_usize) {
            prop_assert_eq!(unpacked(&packed(ALL[which], 2, &bytes, 1 + bytes.len() / 3)), bytes);
        }
    }
}
