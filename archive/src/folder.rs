//! Archives in a folder, by names that cannot lead out of it.
//!
//! The folder is opened once and all else is done relative to it; a symbolic link in it is never followed. An archive that is
//! being written has a hidden name and is locked, so that what a kill leaves can be told from what is under way.

use std::{
    ffi::OsStr,
    fs::{File, TryLockError},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use larder_store::Store;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, renameat, statat, unlinkat};
use serde::{Deserialize, Serialize};

use crate::{ArchiveError, Result, SaveImage, SaveOptions, Stop, save};

/// What the hidden names begin with.
const UNFINISHED: &str = ".larder-unfinished-";
/// How many times another hidden name is tried.
const TRIES: u32 = 16;

/// A folder with archives.
#[derive(Debug)]
pub struct ArchiveFolder {
    path: PathBuf,
    dir: OwnedFd,
}

/// By what a file is known again: as long as it has the same stamp, nobody has written or replaced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// Its size in bytes.
    pub size: u64,
    /// When its content last changed, as the file system says: seconds since 1970, and nanoseconds.
    pub modified: (i64, u64),
    /// Its number in the file system.
    pub inode: u64,
}

/// What there is under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Absent,
    /// A file.
    File(Stamp),
    /// Something else, such as `a symbolic link`.
    Other(&'static str),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        // Their types differ between architectures.
        #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion, reason = "on this one")]
        Self {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: (
                i64::try_from(stat.st_mtime).unwrap_or_default(),
                u64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            ),
            inode: u64::try_from(stat.st_ino).unwrap_or_default(),
        }
    }
}

impl Entry {
    fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File(Stamp::of(stat)),
            FileType::Directory => Self::Other("a folder"),
            FileType::Symlink => Self::Other("a symbolic link"),
            FileType::Fifo => Self::Other("a named pipe"),
            FileType::Socket => Self::Other("a socket"),
            FileType::CharacterDevice | FileType::BlockDevice => Self::Other("a device"),
            FileType::Unknown => Self::Other("something unknown"),
        }
    }
}

impl ArchiveFolder {
    /// Opens a folder, which must be there.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty());
        let dir = dir.map_err(io::Error::from).map_err(ArchiveError::file("open the folder", path))?;
        Ok(Self { path: path.to_owned(), dir })
    }

    /// What there is under a name.
    pub fn look(&self, name: &str) -> Result<Entry> {
        self.check(name)?;
        match statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Entry::of(&stat)),
            Err(rustix::io::Errno::NOENT) => Ok(Entry::Absent),
            Err(error) => Err(self.failed("look at", name, error)),
        }
    }

    /// Opens an archive for reading, and says what it was at that moment.
    pub fn read(&self, name: &str) -> Result<(File, Stamp)> {
        self.check(name)?;
        // Opening a named pipe would wait for whoever writes into it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::LOOP => self.irregular(name, "a symbolic link"),
            error => self.failed("open", name, error),
        })?;
        match fstat(&file).map(|stat| Entry::of(&stat)) {
            Ok(Entry::File(stamp)) => Ok((file.into(), stamp)),
            Ok(Entry::Other(what)) => Err(self.irregular(name, what)),
            Ok(Entry::Absent) => Err(self.failed("open", name, rustix::io::Errno::NOENT)),
            Err(error) => Err(self.failed("look at", name, error)),
        }
    }

    /// Saves images under a name. It appears when it is whole and on the disk, in the place of what had the name; a symbolic
    /// link is replaced, and not followed. Nothing is left of a save that failed.
    ///
    /// Only the owner may read it, and the group: an image may be private. Files belong to the group of a folder with the
    /// setgid bit, so that whoever owns the folder can let others read without a program that runs as them.
    pub fn save(
        &self,
        store: &Store,
        images: &[SaveImage],
        options: SaveOptions,
        name: &str,
        stop: Stop<'_>,
    ) -> Result<Stamp> {
        self.check(name)?;
        let path = self.path.join(name);
        let unfinished = Unfinished::new(self)?;
        save(store, images, options, &unfinished.file, stop).map_err(|error| error.at(&path))?;
        unfinished.file.sync_all().map_err(|error| ArchiveError::Write(error).at(&path))?;
        let stat = fstat(&unfinished.file).map_err(|error| self.failed("look at", name, error))?;
        renameat(&self.dir, &*unfinished.name, &self.dir, name)
            .map_err(|error| self.failed("replace", name, error))?;
        rustix::fs::fsync(&self.dir).map_err(|error| ArchiveError::file("sync", &self.path)(error.into()))?;
        Ok(Stamp::of(&stat))
    }

    /// Removes the file with this name if it still has this stamp. False if it is gone or another.
    pub fn remove(&self, name: &str, stamp: &Stamp) -> Result<bool> {
        if self.look(name)? != Entry::File(*stamp) {
            return Ok(false);
        }
        match unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed("remove", name, error)),
        }
    }

    /// Removes what saves have left that were killed.
    pub fn clean(&self) -> Result<()> {
        let entries = Dir::read_from(&self.dir).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
        let entries = entries.map_err(|error| ArchiveError::file("list", &self.path)(error.into()))?;
        for entry in entries {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if !name.to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = openat(&self.dir, name, flags, Mode::empty()) else { continue };
            if File::from(file).try_lock().is_ok() {
                unlinkat(&self.dir, name, AtFlags::empty())
                    .map_err(|error| ArchiveError::file("remove", &self.path.join(name))(error.into()))?;
            }
        }
        Ok(())
    }

    /// The last of several checks of a name that others have chosen: the one that counts.
    fn check(&self, name: &str) -> Result<()> {
        if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
            return Err(self.irregular(name, "no name of a file in this folder"));
        }
        Ok(())
    }

    fn irregular(&self, name: &str, why: &'static str) -> ArchiveError {
        ArchiveError::NotAFile { path: self.path.join(name), why }
    }

    fn failed(&self, doing: &'static str, name: &str, error: rustix::io::Errno) -> ArchiveError {
        let path = self.path.join(name);
        ArchiveError::file(doing, &path)(error.into()).at(&path)
    }
}

/// An archive that is being written. Dropped before it has its name, it goes.
struct Unfinished<'a> {
    folder: &'a ArchiveFolder,
    name: String,
    file: File,
}

impl<'a> Unfinished<'a> {
    fn new(folder: &'a ArchiveFolder) -> Result<Self> {
        let mut error = rustix::io::Errno::EXIST;
        for _ in 0..TRIES {
            let name = format!("{UNFINISHED}{:016x}", fastrand::u64(..));
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(&folder.dir, &*name, flags, Mode::from_raw_mode(0o640)) {
                Ok(file) => {
                    let unfinished = Self { folder, name, file: file.into() };
                    match unfinished.file.try_lock() {
                        Ok(()) => return Ok(unfinished),
                        // Somebody takes it for what a kill has left.
                        Err(TryLockError::WouldBlock) => {}
                        Err(TryLockError::Error(error)) => {
                            return Err(ArchiveError::file("lock a file in", &folder.path)(error));
                        }
                    }
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(other) => {
                    error = other;
                    break;
                }
            }
        }
        Err(ArchiveError::file("create a file in", &folder.path)(error.into()).at(&folder.path))
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // After the rename there is nothing of this name.
        match unlinkat(&self.folder.dir, &*self.name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => {
                tracing::warn!(name = self.name, %error, "cannot remove an archive that was not finished");
            }
        }
    }
}
