//! A folder for a test's files.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Error, Result, cleanup};

/// A temporary folder. It goes when this value is dropped; after a panic it stays, and its place is printed.
#[derive(Debug)]
pub struct Scratch {
    // Taken out by `drop` alone.
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// Makes a folder whose name begins with `larder-` and `label`.
    pub fn new(label: &str) -> Result<Self> {
        Self::in_folder(&std::env::temp_dir(), label)
    }

    /// The same within a folder other than the system's for temporary files.
    pub fn in_folder(parent: &Path, label: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("larder-{label}-"))
            .tempdir_in(parent)
            .map_err(Error::file("make a folder in", parent))?;
        let path = dir.path().to_owned();
        cleanup::register_folder(&path);
        Ok(Self { dir: Some(dir), path })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder inside it, with its parents, and gives its path.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).map_err(Error::file("make", &path))?;
        Ok(path)
    }

    /// Writes a file inside it that only its owner may read, and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path.join(name);
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_ref()))
            .map_err(Error::file("write", &path))?;
        Ok(path)
    }

    /// Removes it, after a panic too.
    pub(crate) fn discard(mut self) -> Result<()> {
        cleanup::forget_folder(&self.path);
        self.dir.take().map_or(Ok(()), TempDir::close).map_err(Error::file("remove", &self.path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        cleanup::forget_folder(&self.path);
        let Some(dir) = self.dir.take() else { return };
        if std::thread::panicking() {
            eprintln!("harness: files kept in {}", dir.keep().display());
        } else if let Err(error) = dir.close() {
            eprintln!("harness: cannot remove {}: {error}", self.path.display());
        }
    }
}
