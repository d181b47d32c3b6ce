//! Archives as files: whole, or not at all.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::Path,
};

use larder_store::Store;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use tempfile::{Builder, NamedTempFile};

use super::{SaveImage, SaveOptions, Saved, save};
use crate::{ArchiveError, Result, Stop};

/// Saves into a file that only its owner may read. It appears when it is whole and on the disk; a file that was there
/// before stays until then. Refuses folders and devices, as docker does.
pub fn to_file(
    store: &Store,
    images: &[SaveImage],
    options: SaveOptions,
    path: &Path,
    stop: Stop<'_>,
) -> Result<Saved> {
    refuse_others(path)?;
    write(store, images, options, path, stop).map_err(|error| error.at(path))
}

fn write(
    store: &Store,
    images: &[SaveImage],
    options: SaveOptions,
    path: &Path,
    stop: Stop<'_>,
) -> Result<Saved> {
    let Some(name) = path.file_name() else { return Err(not_a_file(path, "it has no file name")) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unfinished = Unfinished::new(folder, name).map_err(ArchiveError::file("create a file in", folder))?;
    let saved = save(store, images, options, unfinished.file(), stop)?;
    unfinished.file().sync_all().map_err(ArchiveError::Write)?;
    unfinished.name(folder, name).map_err(ArchiveError::file("name", path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ArchiveError::file("sync", folder))?;
    Ok(saved)
}

/// A file that is being written.
enum Unfinished {
    /// Without a name: if we are killed, the kernel clears it away.
    Nameless(File),
    /// For file systems that know no such files: beside the archive, under a hidden name.
    Hidden(NamedTempFile),
}

impl Unfinished {
    fn new(folder: &Path, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let can_be_named = Path::new("/proc/self/fd").exists();
        match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) if can_be_named => Ok(Self::Nameless(file.into())),
            // Old file systems say all sorts of things; if the folder is what is wrong, this one says so too.
            _ => Builder::new()
                .prefix(&prefix(name))
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(folder)
                .map(Self::Hidden),
        }
    }

    fn file(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Hidden(file) => file.as_file(),
        }
    }

    /// Gives it its name, in the place of what has that name now.
    fn name(self, folder: &Path, name: &OsStr) -> io::Result<()> {
        let hidden = match self {
            // A link can replace nothing, a rename can; so it has a hidden name for an instant.
            Self::Nameless(file) => {
                let own = format!("/proc/self/fd/{}", file.as_raw_fd());
                let link = |path: &Path| Ok(linkat(CWD, &own, CWD, path, AtFlags::SYMLINK_FOLLOW)?);
                Builder::new().prefix(&prefix(name)).make_in(folder, link)?.into_temp_path()
            }
            Self::Hidden(file) => file.into_temp_path(),
        };
        hidden.persist(folder.join(name)).map_err(|error| error.error)
    }
}

/// What hidden names begin with.
fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix
}

fn refuse_others(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let kind = metadata.file_type();
    let why = if kind.is_dir() {
        "it is a folder"
    } else if kind.is_char_device() || kind.is_block_device() {
        "got a device"
    } else if !kind.is_file() {
        "got an irregular file"
    } else {
        return Ok(());
    };
    Err(not_a_file(path, why))
}

fn not_a_file(path: &Path, why: &'static str) -> ArchiveError {
    ArchiveError::NotAFile { path: path.to_owned(), why }
}
