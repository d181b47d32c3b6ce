//! Writing images from the layer store into an archive.
//!
//! The same images give the same bytes: no times, no owners, a fixed order. What says which images there are comes
//! first, so that whoever reads a stream knows what to expect; the blobs follow in the order of their digests. Each
//! blob is hashed on its way out, and a lease keeps all of them from being collected meanwhile.

mod documents;
mod file;

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{self, BufReader, BufWriter, Read, Write},
    num::NonZeroUsize,
    str::FromStr,
};

use larder_oci::{Digest, Hasher, ImageName};
use larder_store::{Lease, Store, StoredImage};
use tar::{EntryType, Header};

use crate::{ArchiveError, Compression, Result, Stop, parallel::Compressor};

pub use file::to_file;

const BUFFER: usize = 1 << 20;

/// What an archive is to be readable as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Both in one: an OCI image layout with a `manifest.json` beside it, as `docker save` writes.
    #[default]
    Both,
    /// docker's own: a `manifest.json`, configurations and layers. Manifests, and with them digests, are not kept.
    DockerArchive,
    /// An OCI image layout.
    OciArchive,
}

/// A text that names no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown archive format {0:?}: choose docker-archive or oci-archive")]
pub struct UnknownForm(String);

impl FromStr for Form {
    type Err = UnknownForm;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownForm> {
        match text {
            "docker-archive" => Ok(Self::DockerArchive),
            "oci-archive" => Ok(Self::OciArchive),
            _ => Err(UnknownForm(text.chars().take(40).collect())),
        }
    }
}

/// How to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SaveOptions {
    /// What the archive is to be readable as.
    pub form: Form,
    /// How it is compressed.
    pub compression: Compression,
    /// The most threads that compress: as many as there are cores, and 16 at most, where nothing is said. Each takes a few MiB.
    /// The bytes are the same.
    pub threads: Option<NonZeroUsize>,
}

/// An image to save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveImage {
    /// The image.
    pub image: StoredImage,
    /// What it is to be called in the archive; nothing, for an image that was asked for by its ID.
    pub names: Vec<ImageName>,
}

/// What has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// The archive's size in bytes.
    pub bytes: u64,
    /// How many blobs it holds.
    pub blobs: usize,
}

/// Writes an archive of some images. Calls block; memory stays bounded whatever the images' sizes.
///
/// After an error, what has been written is no archive. [`to_file`] leaves none then.
pub fn save(
    store: &Store,
    images: &[SaveImage],
    options: SaveOptions,
    output: impl Write,
    stop: Stop<'_>,
) -> Result<Saved> {
    let contents = Contents::gather(store, images, options.form)?;
    let counting = Counting { inner: output, count: 0 };
    let compressor =
        Compressor::new(counting, options.compression, options.threads).map_err(ArchiveError::Write)?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(BUFFER, compressor));
    for folder in &contents.folders {
        append(&mut tar, folder, EntryType::Directory, 0, io::empty()).map_err(ArchiveError::Write)?;
    }
    for (path, bytes) in &contents.documents {
        append(&mut tar, path, EntryType::Regular, bytes.len() as u64, bytes.as_slice())
            .map_err(ArchiveError::Write)?;
    }
    for (path, blob) in &contents.blobs {
        append_blob(&mut tar, store, path, blob, stop)?;
    }
    let buffer = tar.into_inner().map_err(ArchiveError::Write)?;
    let compressor = buffer.into_inner().map_err(|error| ArchiveError::Write(error.into_error()))?;
    let counting = compressor.finish().map_err(ArchiveError::Write)?;
    Ok(Saved { bytes: counting.count, blobs: contents.blobs.len() })
}

struct Counting<W> {
    inner: W,
    count: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// All that goes into an archive.
struct Contents {
    folders: Vec<&'static str>,
    documents: Vec<(&'static str, Vec<u8>)>,
    /// By their names in the archive.
    blobs: BTreeMap<String, Blob>,
    /// Keep the blobs where they are.
    _leases: Vec<Lease>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Blob {
    digest: Digest,
    size: u64,
}

impl Contents {
    fn gather(store: &Store, images: &[SaveImage], form: Form) -> Result<Self> {
        let leases =
            images.iter().map(|image| store.hold(&image.image)).collect::<std::result::Result<_, _>>()?;
        let listed =
            images.iter().map(|image| documents::Listed::read(store, image)).collect::<Result<Vec<_>>>()?;
        let mut blobs = BTreeMap::new();
        let mut documents = Vec::new();
        let mut folders = Vec::new();
        if form == Form::DockerArchive {
            for image in &listed {
                let (config, layers) = image.docker_parts()?;
                blobs.extend([(documents::config_file(&config.digest), config.clone())]);
                blobs.extend(layers.iter().map(|layer| (layer.file(), layer.blob.clone())));
            }
            documents.push(("manifest.json", documents::manifest(&listed, form)?));
        } else {
            for image in &listed {
                let all = image.all_blobs(store)?;
                blobs.extend(all.into_iter().map(|blob| (documents::blob_file(&blob.digest), blob)));
            }
            documents.push(("oci-layout", documents::LAYOUT.to_vec()));
            documents.push(("index.json", documents::index(images)?));
            if form == Form::Both {
                documents.push(("manifest.json", documents::manifest(&listed, form)?));
            }
            folders.push("blobs/");
            for (folder, algorithm) in [("blobs/sha256/", "sha256"), ("blobs/sha512/", "sha512")] {
                if blobs.values().any(|blob: &Blob| blob.digest.algorithm_name() == algorithm) {
                    folders.push(folder);
                }
            }
        }
        Ok(Self { folders, documents, blobs, _leases: leases })
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    kind: EntryType,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    tar.append_data(&mut header, path, content)
}

fn append_blob<W: Write>(
    tar: &mut tar::Builder<W>,
    store: &Store,
    path: &str,
    blob: &Blob,
    stop: Stop<'_>,
) -> Result<()> {
    let content = store.open_blob(&blob.digest)?;
    let failure = Cell::new(None);
    let mut hashing = Hashing {
        content,
        hasher: Hasher::new(blob.digest.algorithm()),
        left: blob.size,
        failure: &failure,
        stop,
    };
    // The copy within `tar` moves 8 KiB at a time; the file and the hash do better with more.
    let buffered = BufReader::with_capacity(BUFFER, &mut hashing);
    let written = append(tar, path, EntryType::Regular, blob.size, buffered);
    let left = hashing.left;
    match failure.take() {
        Some(Failure::Stopped) => return Err(ArchiveError::Interrupted),
        Some(Failure::Read(error)) => {
            return Err(hashing.content.failed(error).into());
        }
        None => written.map_err(ArchiveError::Write)?,
    }
    if left > 0 || hashing.hasher.finish() != blob.digest {
        return Err(ArchiveError::Damaged(blob.digest.clone()));
    }
    Ok(())
}

/// Why reading a blob failed, to tell it from a failure to write.
enum Failure {
    Stopped,
    Read(io::Error),
}

struct Hashing<'a> {
    content: larder_store::Blob,
    hasher: Hasher,
    left: u64,
    failure: &'a Cell<Option<Failure>>,
    stop: Stop<'a>,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.stop)() {
            self.failure.set(Some(Failure::Stopped));
            return Err(io::Error::other("stopped"));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match self.content.read(&mut buffer[..most]) {
            Ok(count) => {
                self.hasher.update(&buffer[..count]);
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure.set(Some(Failure::Read(error)));
                Err(kind.into())
            }
        }
    }
}
