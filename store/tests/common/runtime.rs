//! What stands for a container runtime: a folder of blobs that several processes may use.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use larder_oci::Digest;
use larder_store::{Annex, AnnexBlob, Store, StoreId};

#[derive(Debug, Clone)]
pub struct Runtime {
    folder: PathBuf,
}

impl Runtime {
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        Self { folder: folder.to_owned() }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    pub fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let temporary = self.folder.join(format!("new.{:016x}", fastrand::u64(..)));
        fs::write(&temporary, bytes).unwrap();
        fs::rename(temporary, self.path(&digest)).unwrap();
        digest
    }

    pub fn lose(&self, digest: &Digest) {
        let _ = fs::remove_file(self.path(digest));
    }

    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Takes a layer and drops it from the store.
    pub fn take(&self, store: &Store, bytes: &[u8]) -> u64 {
        let digest = self.put(bytes);
        store.hand_over([&digest]).unwrap()
    }
}

impl Annex for Runtime {
    fn keep(&self, _store: &StoreId, digest: &Digest, size: u64) -> io::Result<bool> {
        match fs::metadata(self.path(digest)) {
            Ok(metadata) => Ok(metadata.len() == size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn AnnexBlob>> {
        Ok(Box::new(File::open(self.path(digest))?))
    }
}
