//! Reading a tar that nobody vouches for, as a stream.
//!
//! The `tar` crate parses the headers. Its own iterator is not used, since it reads long names and extended headers
//! into memory whatever size they claim, and expands sparse files; here both have bounds. Names never become paths
//! on the disk. They are still checked, so that an archive made to climb out is refused and not half understood.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tar::{EntryType, Header, PaxExtensions};

use crate::{
    ArchiveError, Result, Stop,
    ahead::ReadAhead,
    compression::{Packed, is_bomb, take_start},
};

const BLOCK: usize = 512;
/// Long names and extended headers, in bytes. Paths have 4 KiB at most.
const MAX_EXTENSION: u64 = 64 << 10;
/// Images have up to 127 layers, and old archives four entries a layer.
const MAX_ENTRIES: u32 = 65_536;
/// What may follow the end of the tar, such as the padding that tape drives want, is read up to so many bytes.
const MAX_TRAILER: u64 = 16 << 20;
/// An entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name, with neither `.` nor `..` nor a leading slash.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Of its content, in bytes.
    pub(crate) size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// A symbolic or hard link, to this name in the archive.
    Link(String),
}

/// A tar, compressed or not.
pub(crate) struct TarStream<'a> {
    input: ReadAhead,
    stop: Stop<'a>,
    /// Bytes before decompression, so far; none if it is not compressed.
    packed: Option<Arc<AtomicU64>>,
    unpacked: u64,
    /// Of the current entry, yet to be read.
    content: u64,
    padding: u64,
    entries: u32,
    /// The name of the entry that is being read, for errors.
    current: String,
}

struct Counting<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// What extended headers say of the entry that follows them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<'a> TarStream<'a> {
    /// Begins to read; the compression is recognised by its first bytes.
    pub(crate) fn open(mut stream: impl Read + Send + 'static, stop: Stop<'a>) -> Result<Self> {
        let start = take_start(&mut stream).map_err(ArchiveError::Read)?;
        let compression = Packed::of(&start);
        let whole = io::Cursor::new(start).chain(stream);
        let (input, packed) = match compression {
            None => (ReadAhead::new(whole), None),
            Some(compression) => {
                let count = Arc::new(AtomicU64::new(0));
                let counting = Counting { inner: whole, count: Arc::clone(&count) };
                let decoder = compression.decode(counting).map_err(ArchiveError::Read)?;
                (ReadAhead::new(decoder), Some(count))
            }
        };
        let input = input.map_err(ArchiveError::Read)?;
        Ok(Self {
            input,
            stop,
            packed,
            unpacked: 0,
            content: 0,
            padding: 0,
            entries: 0,
            current: String::new(),
        })
    }

    /// The next entry; none at the end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                self.drain()?;
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(ArchiveError::invalid(format!("it has more than {MAX_ENTRIES} entries")));
            }
            let size = header.entry_size().map_err(|error| ArchiveError::invalid(error.to_string()))?;
            self.start(size);
            match header.entry_type() {
                EntryType::XGlobalHeader => {}
                EntryType::GNULongName => extension.path = Some(self.long_name(size)?),
                EntryType::GNULongLink => extension.link = Some(self.long_name(size)?),
                EntryType::XHeader => {
                    let bytes = self.extension(size)?;
                    extension.read(&bytes)?;
                }
                kind => return self.entry(&header, kind, size, extension).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, kind: EntryType, size: u64, extension: Extension) -> Result<Entry> {
        let name = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = normal(&name)?;
        self.current.clone_from(&path);
        let link = extension.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let refuse = |what: &str| {
            Err(ArchiveError::invalid(format!("{path:?} is {what}; an image archive has none of those")))
        };
        let mut size = extension.size.unwrap_or(size);
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Link(target(&path, &link.unwrap_or_default(), true)?),
            EntryType::Link => Kind::Link(target(&path, &link.unwrap_or_default(), false)?),
            EntryType::Char | EntryType::Block => return refuse("a device"),
            EntryType::Fifo => return refuse("a named pipe"),
            EntryType::GNUSparse => return refuse("a sparse file"),
            other => {
                return refuse(&format!("an entry of the unknown type {:?}", char::from(other.as_byte())));
            }
        };
        if kind != Kind::File {
            // Some programs give links the size of their target; the content follows for files alone.
            size = 0;
        }
        self.start(size);
        Ok(Entry { path, kind, size })
    }

    /// The next bytes of the current entry; empty at its end. [`TarStream::consume`] takes them.
    pub(crate) fn chunk(&mut self) -> Result<&[u8]> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill(self.stop)?;
        if bytes.is_empty() {
            return Err(ArchiveError::Truncated(self.current.clone()));
        }
        let length = usize::try_from(self.content).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..length])
    }

    /// Takes bytes that [`TarStream::chunk`] gave.
    pub(crate) fn consume(&mut self, count: usize) -> Result<()> {
        self.input.consume(count);
        self.content = self.content.saturating_sub(count as u64);
        self.count(count)
    }

    /// All of the current entry, which must not be larger than `max` bytes.
    pub(crate) fn read_all(&mut self, max: u64) -> Result<Vec<u8>> {
        if self.content > max {
            let name = &self.current;
            return Err(ArchiveError::invalid(format!("{name:?} is larger than {max} bytes")));
        }
        let mut bytes = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(chunk);
            let count = chunk.len();
            self.consume(count)?;
        }
    }

    fn start(&mut self, size: u64) {
        self.content = size;
        self.padding = size.next_multiple_of_block() - size;
    }

    /// Passes over what is left of the current entry.
    fn skip(&mut self) -> Result<()> {
        self.content = self.content.saturating_add(std::mem::take(&mut self.padding));
        loop {
            let count = self.chunk()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count)?;
        }
    }

    fn count(&mut self, count: usize) -> Result<()> {
        self.unpacked += count as u64;
        let Some(packed) = &self.packed else { return Ok(()) };
        let (unpacked, packed) = (self.unpacked, packed.load(Ordering::Relaxed));
        if is_bomb(unpacked, packed) { Err(ArchiveError::Bomb { unpacked, packed }) } else { Ok(()) }
    }

    /// The next header; none at the end of the tar.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.input.fill(self.stop)?;
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&bytes[..count]);
            filled += count;
            self.input.consume(count);
            self.count(count)?;
        }
        if filled < BLOCK {
            return match (self.entries, filled) {
                // Without the blocks of zeros that mark the end, but not in the middle of anything.
                (1.., 0) => Ok(None),
                (0, _) => Err(ArchiveError::NotAnArchive),
                _ => Err(ArchiveError::Truncated("a header".to_owned())),
            };
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block);
        if header.cksum().ok() != Some(checksum(&block)) {
            return Err(match self.entries {
                0 => ArchiveError::NotAnArchive,
                _ => ArchiveError::invalid(format!("the header after {:?} is damaged", self.current)),
            });
        }
        Ok(Some(header.clone()))
    }

    /// Reads to the end of the input: so that whoever writes it into a pipe gets rid of it, and that what the
    /// compression has as a checksum is checked.
    fn drain(&mut self) -> Result<()> {
        let mut left = MAX_TRAILER;
        loop {
            let count = self.input.fill(self.stop)?.len();
            if count == 0 || left == 0 {
                return Ok(());
            }
            left = left.saturating_sub(count as u64);
            self.input.consume(count);
        }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(ArchiveError::invalid(format!("an extended header of {size} bytes")));
        }
        self.read_all(MAX_EXTENSION)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut name = self.extension(size)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }
}

impl Extension {
    fn read(&mut self, bytes: &[u8]) -> Result<()> {
        let broken = || ArchiveError::invalid("a malformed extended header");
        for record in PaxExtensions::new(bytes) {
            let record = record.map_err(|_| broken())?;
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().to_owned()),
                b"linkpath" => self.link = Some(record.value_bytes().to_owned()),
                b"size" => {
                    let size = record.value().ok().and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(broken)?);
                }
                key if key.starts_with(b"GNU.sparse") => {
                    return Err(ArchiveError::invalid(
                        "it holds a sparse file; an image archive has none of those",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

trait Blocks {
    fn next_multiple_of_block(self) -> Self;
}

impl Blocks for u64 {
    fn next_multiple_of_block(self) -> Self {
        self.checked_next_multiple_of(BLOCK as Self).unwrap_or(Self::MAX)
    }
}

fn checksum(block: &[u8; BLOCK]) -> u32 {
    // The checksum's own field counts as blanks.
    let field = 148..156;
    block.iter().enumerate().map(|(at, byte)| u32::from(if field.contains(&at) { b' ' } else { *byte })).sum()
}

fn text(name: &[u8]) -> Result<&str> {
    std::str::from_utf8(name).map_err(|_| {
        ArchiveError::invalid(format!("{:?} is not UTF-8 as a name", String::from_utf8_lossy(name)))
    })
}

fn climbs(name: &str) -> ArchiveError {
    let name: String = name.chars().take(200).collect();
    ArchiveError::invalid(format!("the name {name:?} leads out of it"))
}

fn normal(name: &[u8]) -> Result<String> {
    let name = text(name)?;
    if name.starts_with('/') {
        return Err(climbs(name));
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") { Err(climbs(name)) } else { Ok(parts.join("/")) }
}

/// Where a link leads: a symbolic one from the folder that it is in, a hard one from the top.
fn target(path: &str, link: &[u8], symbolic: bool) -> Result<String> {
    let link = text(link)?;
    let mut parts: Vec<&str> = if symbolic { path.split('/').collect() } else { vec![""] };
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| climbs(link))?;
            }
            part => parts.push(part),
        }
    }
    if link.starts_with('/') { Err(climbs(link)) } else { Ok(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_links_stay_inside() {
        assert_eq!(normal(b"./blobs//sha256/./a").unwrap(), "blobs/sha256/a");
        for name in ["/etc/passwd", "../a", "a/../../b", "a/.."] {
            assert!(normal(name.as_bytes()).is_err(), "{name}");
        }
        assert_eq!(target("a/layer.tar", b"../b/layer.tar", true).unwrap(), "b/layer.tar");
        assert_eq!(target("a/layer.tar", b"b/layer.tar", false).unwrap(), "b/layer.tar");
        for link in ["../../b", "/etc/passwd", "x/../../../b"] {
            assert!(target("a/layer.tar", link.as_bytes(), true).is_err(), "{link}");
        }
    }
}
