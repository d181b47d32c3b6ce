//! From a stream into the store, in one pass: entries may come in any order, and nothing is kept elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use larder_oci::{Digest, digest::Algorithm};
use larder_store::{BlobWriter, Ingest, Lease, StoreError};

use super::Stop;
use crate::{
    ArchiveError, Result,
    tar_stream::{Entry, Kind, TarStream},
};

/// The largest `index.json` or `manifest.json` that is read, in bytes.
pub(super) const MAX_DOCUMENT: u64 = 16 << 20;
/// How many links may follow each other.
const MAX_LINKS: usize = 8;

/// What came with an archive. The blobs are in the store.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// `index.json`, of the OCI image layout.
    pub(super) index: Option<Vec<u8>>,
    /// `manifest.json`, of docker's archives.
    pub(super) manifest: Option<Vec<u8>>,
    layout: Option<Vec<u8>>,
    /// Files whose names say nothing of their digests.
    files: BTreeMap<String, Digest>,
    links: BTreeMap<String, String>,
    /// Files below `blobs/`.
    pub(super) blobs: BTreeSet<Digest>,
    /// What this has put into the store.
    pub(super) written: BTreeSet<Digest>,
}

impl Received {
    /// The content at a name that `manifest.json` gives, links followed.
    pub(super) fn find(&self, name: &str) -> Option<Digest> {
        let mut name = name.trim_start_matches("./");
        for _ in 0..MAX_LINKS {
            if let Some(digest) = self.files.get(name) {
                return Some(digest.clone());
            }
            if let Some(digest) = blob_name(name).filter(|digest| self.blobs.contains(digest)) {
                return Some(digest);
            }
            name = self.links.get(name)?;
        }
        None
    }
}

/// Reads all of an archive.
pub(super) fn receive(stream: impl Read + Send + 'static, lease: &Lease, stop: Stop<'_>) -> Result<Received> {
    let mut tar = TarStream::open(stream, stop)?;
    let mut received = Received::default();
    while let Some(entry) = tar.next_entry()? {
        match &entry.kind {
            Kind::Folder => {}
            Kind::Link(target) => received.link(&entry.path, target)?,
            Kind::File => received.file(&entry, &mut tar, lease, stop)?,
        }
    }
    if let Some(layout) = &received.layout {
        check_layout(layout)?;
    }
    Ok(received)
}

/// There is one version of the image layout.
pub(super) fn check_layout(bytes: &[u8]) -> Result<()> {
    let version = serde_json::from_slice::<serde_json::Value>(bytes)
        .ok()
        .and_then(|value| Some(value.get("imageLayoutVersion")?.as_str()?.to_owned()));
    match version.as_deref() {
        Some("1.0.0") => Ok(()),
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(ArchiveError::invalid(format!("its oci-layout says version {other:?}, only 1.0.0 is known")))
        }
        None => Err(ArchiveError::invalid("its oci-layout file does not say which version it has")),
    }
}

impl Received {
    fn file(&mut self, entry: &Entry, tar: &mut TarStream<'_>, lease: &Lease, stop: Stop<'_>) -> Result<()> {
        let document = match entry.path.as_str() {
            "index.json" => Some(&mut self.index),
            "manifest.json" => Some(&mut self.manifest),
            "oci-layout" => Some(&mut self.layout),
            _ => None,
        };
        if let Some(document) = document {
            let bytes = tar.read_all(MAX_DOCUMENT)?;
            return if document.replace(bytes).is_some() { Err(twice(&entry.path)) } else { Ok(()) };
        }
        if let Some(digest) = blob_name(&entry.path) {
            self.blob(digest, entry, tar, lease, stop)
        } else if is_of_docker_1_9(&entry.path) {
            Ok(())
        } else {
            self.check_new(&entry.path)?;
            let mut spool = lease.spool(Algorithm::Sha256)?;
            copy(tar, stop, |bytes| Ok(spool.write(bytes)?))?;
            let (digest, _) = spool.finish()?;
            self.written.insert(digest.clone());
            self.files.insert(entry.path.clone(), digest);
            Ok(())
        }
    }

    fn blob(
        &mut self,
        digest: Digest,
        entry: &Entry,
        tar: &mut TarStream<'_>,
        lease: &Lease,
        stop: Stop<'_>,
    ) -> Result<()> {
        lease.protect([&digest])?;
        match lease.ingest_readable(&digest, entry.size)? {
            Ingest::Present => {}
            Ingest::Write(writer) => {
                write(writer, tar, stop)?;
                self.written.insert(digest.clone());
            }
            Ingest::Busy => {
                // A stream cannot wait for a pull that may take hours: a file of its own, then.
                spool_named(&digest, lease, |take| copy(tar, stop, take))?;
                self.written.insert(digest.clone());
            }
        }
        self.blobs.insert(digest);
        Ok(())
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        if blob_name(path).is_some() || matches!(path, "index.json" | "manifest.json" | "oci-layout") {
            return Err(ArchiveError::invalid(format!("{path:?} is a link where a file is expected")));
        }
        self.check_new(path)?;
        self.links.insert(path.to_owned(), target.to_owned());
        Ok(())
    }

    fn check_new(&self, path: &str) -> Result<()> {
        if self.files.contains_key(path) || self.links.contains_key(path) { Err(twice(path)) } else { Ok(()) }
    }
}

fn twice(path: &str) -> ArchiveError {
    ArchiveError::invalid(format!("it holds {path:?} twice"))
}

/// `blobs/<algorithm>/<hex>`
fn blob_name(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// What docker up to 1.9 needs beside the layers; newer ones write it still, and nobody else reads it.
fn is_of_docker_1_9(path: &str) -> bool {
    path == "repositories" || path.split_once('/').is_some_and(|(_, name)| matches!(name, "json" | "VERSION"))
}

/// The rest of the entry, piece by piece.
fn copy(tar: &mut TarStream<'_>, stop: Stop<'_>, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    loop {
        if stop() {
            return Err(ArchiveError::Interrupted);
        }
        let chunk = tar.chunk()?;
        if chunk.is_empty() {
            return Ok(());
        }
        take(chunk)?;
        let count = chunk.len();
        tar.consume(count)?;
    }
}

fn write(mut writer: BlobWriter, tar: &mut TarStream<'_>, stop: Stop<'_>) -> Result<()> {
    if writer.offset() > 0 {
        // All of it is here: what an earlier try has left saves nothing.
        writer.restart()?;
    }
    copy(tar, stop, |bytes| Ok(writer.write(bytes)?))?;
    Ok(writer.finish()?)
}

/// Writes a blob whose digest is known though somebody else is at it too.
pub(super) fn spool_named(
    expected: &Digest,
    lease: &Lease,
    source: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let mut spool = lease.spool(expected.algorithm())?;
    source(&mut |bytes| Ok(spool.write(bytes)?))?;
    let (actual, _) = spool.finish()?;
    if actual == *expected {
        return Ok(());
    }
    let expected = expected.clone();
    Err(StoreError::DigestMismatch { expected, actual, resumed: false }.into())
}
