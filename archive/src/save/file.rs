//! Archives as files: whole, or not at all.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
};

use larder_store::Store;

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
    let Some(name) = path.file_name() else { return Err(not_a_file(path, "it has no file name")) };
    refuse_others(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    let temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(ArchiveError::file("create a file in", folder))?;
    let saved = save(store, images, options, temporary.as_file(), stop)?;
    temporary.as_file().sync_all().map_err(ArchiveError::Write)?;
    temporary.persist(path).map_err(|error| ArchiveError::file("name", path)(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ArchiveError::file("sync", folder))?;
    Ok(saved)
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
