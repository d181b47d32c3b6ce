//! From a folder in OCI image-layout form into the store.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::Path,
    thread,
    time::Duration,
};

use larder_oci::{Digest, Document, manifest::MAX_MANIFEST_SIZE, spec::Descriptor};
use larder_store::{Ingest, Lease, Store, StoreError};

use super::{
    Stop,
    image::usable,
    oci::{descriptors, is_index, is_manifest},
    receive::{MAX_DOCUMENT, check_layout},
};
use crate::{ArchiveError, Result, annotations::INDEX_DIGEST};

const BUFFER: usize = 1 << 20;

/// Copies what `index.json` refers to and is there; returns `index.json`. What is missing is for others to judge.
pub(super) fn receive(
    folder: &Path,
    lease: &Lease,
    stop: Stop<'_>,
    written: &mut BTreeSet<Digest>,
) -> Result<Vec<u8>> {
    let Some(layout) = read_bounded(&folder.join("oci-layout"), MAX_DOCUMENT)? else {
        return Err(ArchiveError::invalid(format!(
            "the folder {} is not an OCI image layout: it has no oci-layout file",
            folder.display()
        )));
    };
    check_layout(&layout)?;
    let index = read_bounded(&folder.join("index.json"), MAX_DOCUMENT)?.ok_or(ArchiveError::NoImages)?;
    let mut copy = Copy { folder, lease, stop, written, seen: BTreeSet::new() };
    let mut open = descriptors(&index)?;
    for descriptor in &open {
        let original = descriptor.annotations().as_ref().and_then(|all| all.get(INDEX_DIGEST));
        if let Some(digest) = original.and_then(|text| text.parse::<Digest>().ok()) {
            copy.blob(&digest)?;
        }
    }
    while let Some(descriptor) = open.pop() {
        open.extend(copy.tree(&descriptor)?);
    }
    Ok(index)
}

struct Copy<'a> {
    folder: &'a Path,
    lease: &'a Lease,
    stop: Stop<'a>,
    written: &'a mut BTreeSet<Digest>,
    seen: BTreeSet<Digest>,
}

impl Copy<'_> {
    /// Copies a blob, and returns what it refers to.
    fn tree(&mut self, descriptor: &Descriptor) -> Result<Vec<Descriptor>> {
        let digest = usable(descriptor)?;
        let document = is_manifest(descriptor) || is_index(descriptor);
        if !self.seen.insert(digest.clone()) || !self.blob(&digest)? || !document {
            return Ok(Vec::new());
        }
        let bytes = self.store().read_blob(&digest, MAX_MANIFEST_SIZE)?;
        let document = Document::parse(Some(descriptor.media_type().as_ref()), &bytes)
            .map_err(|source| ArchiveError::Manifest { digest, source })?;
        Ok(document.descriptors().cloned().collect())
    }

    fn store(&self) -> &Store {
        self.lease.store()
    }

    /// Copies a blob unless the store has it. False if it is in neither.
    fn blob(&mut self, digest: &Digest) -> Result<bool> {
        self.lease.protect([digest])?;
        let path = self.folder.join("blobs").join(digest.algorithm_name()).join(digest.hex());
        let size = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => return Ok(self.store().blob_size(digest)?.is_some()),
        };
        loop {
            match self.lease.ingest_readable(digest, size)? {
                Ingest::Present => return Ok(true),
                Ingest::Busy if (self.stop)() => return Err(ArchiveError::Interrupted),
                Ingest::Busy => thread::sleep(Duration::from_millis(50)),
                Ingest::Write(mut writer) => {
                    if writer.offset() > 0 {
                        writer.restart()?;
                    }
                    self.read(&path, &mut |bytes| writer.write(bytes))?;
                    writer.finish()?;
                    self.written.insert(digest.clone());
                    return Ok(true);
                }
            }
        }
    }

    fn read(
        &self,
        path: &Path,
        take: &mut dyn FnMut(&[u8]) -> std::result::Result<(), StoreError>,
    ) -> Result<()> {
        let mut file = File::open(path).map_err(ArchiveError::file("open", path))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            if (self.stop)() {
                return Err(ArchiveError::Interrupted);
            }
            match file.read(&mut buffer).map_err(ArchiveError::file("read", path))? {
                0 => return Ok(()),
                count => take(&buffer[..count])?,
            }
        }
    }
}

fn read_bounded(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    // Opening a named pipe would wait for whoever writes into it.
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(ArchiveError::file("open", path))?;
    file.take(max + 1).read_to_end(&mut bytes).map_err(ArchiveError::file("read", path))?;
    if bytes.len() as u64 > max {
        return Err(ArchiveError::invalid(format!("{} is larger than {max} bytes", path.display())));
    }
    Ok(Some(bytes))
}
