//! Compression of whole archives: chosen by name or by a file's extension when writing, recognised by content when
//! reading.

use std::{
    ffi::OsStr,
    fmt,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// zstd, RFC 8878.
    Zstd,
}

/// A text that names no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: choose gzip, bzip2, zstd or none")]
pub struct UnknownCompression(String);

impl Compression {
    /// What a file's extension asks for: `.tar.gz`, `.tgz`, `.tar.bz2`, `.tbz2`, `.tar.zst` and the like; none
    /// otherwise.
    #[must_use]
    pub fn of_path(path: &Path) -> Self {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "gz" | "tgz" | "gzip" => Self::Gzip,
            "bz2" | "tbz2" | "tbz" => Self::Bzip2,
            "zst" | "tzst" | "zstd" => Self::Zstd,
            _ => Self::None,
        }
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, UnknownCompression> {
        match text {
            "none" => Ok(Self::None),
            "gzip" | "gz" => Ok(Self::Gzip),
            "bzip2" | "bz2" => Ok(Self::Bzip2),
            "zstd" | "zst" => Ok(Self::Zstd),
            _ => Err(UnknownCompression(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Zstd => "zstd",
        })
    }
}

/// A compression as its first bytes give it away. xz is read and never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packed {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// How many bytes [`Packed::of`] needs to see.
pub(crate) const MAGIC_LENGTH: usize = 6;
/// The largest window that zstd may ask for, as a power of two: what `zstd --long` writes, and what others read
/// without being told to.
const ZSTD_WINDOW_LOG: u32 = 27;
/// The most memory that xz may ask for, in KiB: `xz -9` asks for 65 MiB.
const XZ_MEMORY_KIB: u32 = 160 << 10;

impl Packed {
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // A frame, or one to be skipped, as pzstd begins its files with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Decompresses, all members or frames that follow each other.
    pub(crate) fn decode<'a>(self, packed: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Bzip2 => Box::new(MultiBzDecoder::new(packed)),
            Self::Xz => Box::new(XzReader::new_mem_limit(packed, true, XZ_MEMORY_KIB)),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::new(packed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

/// Takes the first bytes off a stream; fewer if it is shorter.
pub(crate) fn take_start(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(MAGIC_LENGTH);
    stream.take(MAGIC_LENGTH as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// What unpacks to more than this ...
const BOMB_SIZE: u64 = 1 << 30;
/// ... and to so many times its own size is taken for a bomb. Layers of real images shrink to a tenth at best; what
/// shrinks more is zeros.
const BOMB_RATIO: u64 = 250;

/// Whether so many bytes, unpacked so far from so many packed ones, look like an attack on the disk.
pub(crate) fn is_bomb(unpacked: u64, packed: u64) -> bool {
    unpacked > BOMB_SIZE && unpacked / BOMB_RATIO > packed
}
