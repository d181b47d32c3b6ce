//! Writing content whose digest is known only once all of it has been seen, such as the layers in docker's archives.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
};

use larder_oci::{Digest, Hasher, digest::Algorithm};

use crate::{
    Lease,
    error::{Result, StoreError},
    layout::{make_dir, remove_file},
};

/// Writes one blob whose digest is not known yet. Dropped unfinished, it leaves nothing behind; after a kill, the next
/// collection takes what is there.
pub struct SpoolWriter<'a> {
    lease: &'a Lease,
    /// Its lock keeps collections away.
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
}

impl Lease {
    /// Begins a blob whose digest, of this algorithm, will be known at its end.
    pub fn spool(&self, algorithm: Algorithm) -> Result<SpoolWriter<'_>> {
        self.touch();
        // Any folder of the partial blobs serves.
        let folder = "sha256";
        loop {
            let name = format!("spool.{:016x}", fastrand::u64(..));
            let path = self.store().layout.partials().join(folder).join(name);
            if let Some(file) = self.store().lock_partial(folder, &path)? {
                return Ok(SpoolWriter { lease: self, file, path, hasher: Hasher::new(algorithm), size: 0 });
            }
        }
    }
}

impl SpoolWriter<'_> {
    /// Appends the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(StoreError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives the content the name of its digest, which the lease protects from now on, and returns that and the size
    /// in bytes. Where the store has the blob already, or can read it from where it was handed over, that one stays.
    pub fn finish(self) -> Result<(Digest, u64)> {
        let digest = self.hasher.clone().finish();
        self.lease.protect([&digest])?;
        let store = self.lease.store();
        if !store.is_readable(&digest, self.size)? {
            self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
            make_dir(&store.layout.blob_folder(&digest), 0o755)?;
            let blob = store.layout.blob(&digest);
            fs::rename(&self.path, &blob).map_err(StoreError::io("name", &blob))?;
        }
        Ok((digest, self.size))
    }
}

impl Drop for SpoolWriter<'_> {
    fn drop(&mut self) {
        // After the rename there is nothing at this path.
        if let Err(error) = remove_file(&self.path) {
            tracing::warn!(%error, "cannot delete what an interrupted write has left");
        }
    }
}
