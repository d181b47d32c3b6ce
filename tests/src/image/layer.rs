//! Layers: gzip-compressed tar archives whose bytes depend on their content alone.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use larder_oci::Digest;
use larder_oci::digest::{Algorithm, Hasher};

use crate::process::run;
use crate::tools::in_path;
use crate::{Error, Result};

/// A compressed layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// The digest of the tar archive in it, as `rootfs.diff_ids` has it.
    pub diff_id: Digest,
    /// The compressed bytes.
    pub bytes: Bytes,
}

impl Layer {
    /// Files by name and content.
    pub fn of(files: &[(&str, &[u8])]) -> Result<Self> {
        let mut writer = LayerWriter::new();
        for (name, content) in files {
            writer.file(Path::new(name), content, 0o644)?;
        }
        writer.finish()
    }

    /// A statically linked busybox (Debian's), with a link for each of its commands: a system with a shell.
    pub fn busybox() -> Result<Self> {
        let path = in_path("busybox")?;
        let program = std::fs::read(&path).map_err(Error::file("read", &path))?;
        let listed = run(&path, &["--list"], &[], b"")?.ok()?;
        let mut writer = LayerWriter::new();
        writer.file(Path::new("bin/busybox"), &program, 0o755)?;
        for command in listed.stdout.lines().filter(|command| *command != "busybox") {
            writer.link(&Path::new("bin").join(command), Path::new("busybox"))?;
        }
        writer.file(
            Path::new("etc/passwd"),
            b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
            0o644,
        )?;
        writer.finish()
    }

    /// One file of bytes that do not compress: a layer of a little more than `size` bytes. The same seed gives the
    /// same layer.
    pub fn random(seed: u64, size: usize) -> Result<Self> {
        let mut content = vec![0; size];
        fastrand::Rng::with_seed(seed).fill(&mut content);
        let mut writer = LayerWriter::new();
        writer.file(Path::new(&format!("data/{seed}.bin")), &content, 0o644)?;
        writer.finish()
    }

    /// Its length in bytes, compressed.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// The files of this machine's `/usr`, in a fixed order, to be dealt out to layers.
#[derive(Debug)]
pub struct MachineFiles {
    files: std::vec::IntoIter<PathBuf>,
}

impl MachineFiles {
    /// Lists the files under `/usr/bin`, `/usr/share` and `/usr/lib`.
    pub fn list() -> Result<Self> {
        let mut files = Vec::new();
        for folder in ["/usr/bin", "/usr/share", "/usr/lib"] {
            walk(Path::new(folder), &mut files);
        }
        if files.is_empty() {
            return Err(Error::Data { what: "files of this machine", problem: "none under /usr".to_owned() });
        }
        Ok(Self { files: files.into_iter() })
    }

    /// A layer of the next files: at least `size` bytes, compressed. What one layer has no other gets.
    pub fn layer(&mut self, size: u64) -> Result<Layer> {
        const LARGEST: u64 = 8 << 20;
        let mut writer = LayerWriter::new();
        while writer.compressed() < size {
            let path = self.files.next().ok_or_else(|| Error::Data {
                what: "layer",
                problem: format!("this machine's /usr has too few files for {size} more bytes"),
            })?;
            // Files that only others may read, or that went away meanwhile, are passed over.
            let Ok(file) = std::fs::File::open(&path) else { continue };
            let mut content = Vec::new();
            if file.take(LARGEST + 1).read_to_end(&mut content).is_err() {
                continue;
            }
            if content.len() as u64 <= LARGEST {
                writer.file(path.strip_prefix("/").unwrap_or(&path), &content, 0o755)?;
            }
        }
        writer.finish()
    }
}

/// Regular files under a folder, sorted; what cannot be read is passed over.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

/// tar → hash → gzip → memory.
struct LayerWriter {
    tar: tar::Builder<HashingGzip>,
}

struct HashingGzip {
    diff_id: Hasher,
    gzip: GzEncoder<Vec<u8>>,
}

impl Write for HashingGzip {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.gzip.write(bytes)?;
        self.diff_id.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.gzip.flush()
    }
}

impl LayerWriter {
    fn new() -> Self {
        let gzip = GzEncoder::new(Vec::new(), Compression::fast());
        Self { tar: tar::Builder::new(HashingGzip { diff_id: Hasher::new(Algorithm::Sha256), gzip }) }
    }

    /// Bytes that have come out of the compressor so far.
    fn compressed(&self) -> u64 {
        self.tar.get_ref().gzip.get_ref().len() as u64
    }

    /// Adds a file. Owner and time are fixed, so that the same content gives the same digest.
    fn file(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        self.tar.append_data(&mut header, path, content).map_err(Error::data("layer"))
    }

    fn link(&mut self, path: &Path, target: &Path) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_mtime(0);
        self.tar.append_link(&mut header, path, target).map_err(Error::data("layer"))
    }

    fn finish(self) -> Result<Layer> {
        let HashingGzip { diff_id, gzip } = self.tar.into_inner().map_err(Error::data("layer"))?;
        let bytes = gzip.finish().map_err(Error::data("layer"))?;
        Ok(Layer { digest: Digest::sha256(&bytes), diff_id: diff_id.finish(), bytes: bytes.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_gives_the_same_layer() {
        let make = || Layer::random(7, 100_000).unwrap();
        assert_eq!(make().digest, make().digest);
        assert_ne!(make().digest, Layer::random(8, 100_000).unwrap().digest);
        assert!(make().size() >= 100_000);
    }

    #[test]
    fn machine_files_give_distinct_layers_of_the_size_asked_for() {
        let mut files = MachineFiles::list().unwrap();
        let (first, second) = (files.layer(1 << 20).unwrap(), files.layer(1 << 20).unwrap());
        assert!(first.size() >= 1 << 20 && second.size() >= 1 << 20);
        assert_ne!(first.digest, second.digest);
    }
}
