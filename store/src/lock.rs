//! Locks between processes, on `flock(2)`: the kernel drops them when their owner dies, however it dies.
//!
//! Every lock belongs to an open file of its own, so it holds between threads of one process just as it does
//! between processes. Lock files are never deleted while they may be waited for (the store's lock) or are checked
//! to be still at their path after they were taken (leases, partial blobs; see [`same_file`]).

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use crate::{
    error::{Result, StoreError, found},
    layout::Layout,
};

/// The store's lock, shared: no collection and no change of `index.json` goes on meanwhile.
pub(crate) struct SharedLock {
    _file: File,
}

/// The store's lock, exclusive: the right to change `index.json` and to delete blobs. Functions that do so take a
/// reference to it.
pub(crate) struct ExclusiveLock {
    _file: File,
}

impl SharedLock {
    /// Waits for the lock.
    pub(crate) fn take(layout: &Layout) -> Result<Self> {
        take(layout, File::lock_shared).map(|file| Self { _file: file })
    }
}

impl ExclusiveLock {
    /// Waits for the lock.
    pub(crate) fn take(layout: &Layout) -> Result<Self> {
        take(layout, File::lock).map(|file| Self { _file: file })
    }
}

fn take(layout: &Layout, lock: fn(&File) -> io::Result<()>) -> Result<File> {
    let path = layout.lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    loop {
        match lock(&file) {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StoreError::io("lock", &path)(error)),
        }
    }
}

/// Takes a file's lock if nobody has it.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Whether the open file is still the one at `path`. Between opening a file and locking it, its former owner may
/// have renamed or deleted it.
pub(crate) fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    Ok(found(std::fs::symlink_metadata(path))?
        .is_some_and(|there| there.dev() == ours.dev() && there.ino() == ours.ino()))
}
