//! Layers: the same files give the same bytes, whoever packs them and when.

use std::collections::BTreeMap;
use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use larder_oci::digest::Algorithm;
use larder_oci::{Digest, Hasher};
use tar::{EntryType, Header};

/// The files of a layer, by their paths in the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Folder,
    File { mode: u32, content: Vec<u8> },
}

/// A packed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What made it, for the image's history.
    pub made_by: String,
    /// A tar file, compressed with gzip.
    pub blob: Vec<u8>,
    /// The blob's digest.
    pub digest: Digest,
    /// The digest of the tar file before compression.
    pub diff_id: Digest,
    /// The size of the tar file before compression, in bytes.
    pub unpacked: u64,
}

impl Files {
    /// Adds a file that everybody may read.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.add(path, 0o644, content.into());
    }

    /// Adds a file that everybody may run.
    pub fn program(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.add(path, 0o755, content.into());
    }

    fn add(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            self.0.entry(path[..end].to_owned()).or_insert(Entry::Folder);
        }
        self.0.insert(path.to_owned(), Entry::File { mode, content });
    }

    /// Packs them: folders before what is in them, in the order of their paths, all root's, all of the epoch. (A time
    /// that says when it was built would make a new layer of the same files with each version.)
    pub fn pack(&self, made_by: impl Into<String>, compression: Compression) -> io::Result<Layer> {
        // Neither a time nor a file name in the header, and the same system everywhere: RFC 1952, 2.3.
        let gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), compression);
        let hashing = Hashing { inner: gzip, hasher: Hasher::new(Algorithm::Sha256), size: 0 };
        let mut tar = tar::Builder::new(hashing);
        for (path, entry) in &self.0 {
            let (kind, mode, content) = match entry {
                Entry::Folder => (EntryType::Directory, 0o755, &[][..]),
                Entry::File { mode, content } => (EntryType::Regular, *mode, &content[..]),
            };
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content)?;
        }
        let Hashing { inner, hasher, size } = tar.into_inner()?;
        let blob = inner.finish()?;
        Ok(Layer {
            made_by: made_by.into(),
            digest: Digest::sha256(&blob),
            diff_id: hasher.finish(),
            unpacked: size,
            blob,
        })
    }
}

struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn files(order: &[(&str, &str)]) -> Files {
        let mut files = Files::default();
        for (path, content) in order {
            files.file(path, *content);
        }
        files
    }

    #[test]
    fn the_order_in_which_files_come_does_not_matter() {
        let one = files(&[("/etc/b", "2"), ("/etc/a", "1"), ("/a/b/c", "3")])
            .pack("x", Compression::fast())
            .unwrap();
        let other = files(&[("/a/b/c", "3"), ("/etc/a", "1"), ("/etc/b", "2")])
            .pack("x", Compression::fast())
            .unwrap();
        assert_eq!(one, other);
        assert_ne!(one.digest, files(&[("/etc/a", "1")]).pack("x", Compression::fast()).unwrap().digest);
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut files = files(&[("/etc/ssl/certs/x", "1"), ("/etc/passwd", "2")]);
        files.program("/usr/bin/run", "3");
        let layer = files.pack("test", Compression::fast()).unwrap();
        let mut tar_file = Vec::new();
        flate2::read::GzDecoder::new(&layer.blob[..]).read_to_end(&mut tar_file).unwrap();
        assert_eq!(layer.unpacked, tar_file.len() as u64);
        assert!(layer.diff_id.matches(&tar_file) && layer.digest.matches(&layer.blob));
        let mut archive = tar::Archive::new(&tar_file[..]);
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(
                    (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                    (0, 0, 0)
                );
                (entry.path().unwrap().display().to_string(), header.mode().unwrap())
            })
            .collect();
        let expected = [
            ("etc", 0o755),
            ("etc/passwd", 0o644),
            ("etc/ssl", 0o755),
            ("etc/ssl/certs", 0o755),
            ("etc/ssl/certs/x", 0o644),
            ("usr", 0o755),
            ("usr/bin", 0o755),
            ("usr/bin/run", 0o755),
        ];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }
}
