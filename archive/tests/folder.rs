//! Archives in a folder: written as a whole or not at all, and never outside of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use common::{Folder, folder, image, save_image};
use larder_archive::{ArchiveError, ArchiveFolder, Compression, Entry, SaveOptions, Stamp};

const ZSTD: SaveOptions = SaveOptions {
    form: larder_archive::Form::Both,
    compression: Compression::Zstd,
    threads: std::num::NonZeroUsize::new(1),
};

fn export(shop: &Folder) -> (ArchiveFolder, std::path::PathBuf) {
    let path = shop.dir.path().join("export");
    fs::create_dir(&path).unwrap();
    (ArchiveFolder::open(&path).unwrap(), path)
}

fn save(archives: &ArchiveFolder, shop: &Folder, name: &str) -> Result<Stamp, ArchiveError> {
    let stored = shop.put(&image(&[b"layer"]), "app:v1");
    archives.save(&shop.store, &[save_image(&stored)], ZSTD, name, &|| false)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_saved_is_known_again_until_somebody_touches_it() {
    let shop = folder();
    let (archives, path) = export(&shop);
    assert_eq!(archives.look("app.tar.zst").unwrap(), Entry::Absent);
    let stamp = save(&archives, &shop, "app.tar.zst").unwrap();
    assert_eq!(archives.look("app.tar.zst").unwrap(), Entry::File(stamp));
    assert_eq!(names(&path), ["app.tar.zst"]);
    let metadata = fs::metadata(path.join("app.tar.zst")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640, "images may be private");
    assert_eq!(folder().load_path(&path.join("app.tar.zst")).unwrap().len(), 1);

    // Whose business the mode is, is the administrator's.
    fs::set_permissions(path.join("app.tar.zst"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(archives.look("app.tar.zst").unwrap(), Entry::File(stamp));
    fs::write(path.join("app.tar.zst"), b"mine").unwrap();
    assert_ne!(archives.look("app.tar.zst").unwrap(), Entry::File(stamp));
    assert!(!archives.remove("app.tar.zst", &stamp).unwrap(), "it is not ours any more");
    assert_eq!(fs::read(path.join("app.tar.zst")).unwrap(), b"mine");
    let stamp = save(&archives, &shop, "app.tar.zst").unwrap();
    assert!(archives.remove("app.tar.zst", &stamp).unwrap());
    assert!(!archives.remove("app.tar.zst", &stamp).unwrap());
    assert_eq!(names(&path), [""; 0]);
}

#[test]
fn names_and_links_do_not_lead_out() {
    let shop = folder();
    let (archives, path) = export(&shop);
    let outside = shop.dir.path().join("outside");
    for name in ["../outside", "a/b.tar", "/tmp/x", "..", ".", "", ".hidden", "a\0b"] {
        let error = save(&archives, &shop, name).unwrap_err();
        assert!(matches!(error, ArchiveError::NotAFile { .. }), "{name:?}: {error}");
        assert!(archives.look(name).is_err() && archives.read(name).is_err(), "{name:?}");
    }
    fs::write(&outside, b"not yours").unwrap();
    symlink(&outside, path.join("app.tar")).unwrap();
    assert_eq!(archives.look("app.tar").unwrap(), Entry::Other("a symbolic link"));
    let error = archives.read("app.tar").unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    save(&archives, &shop, "app.tar").unwrap();
    assert!(matches!(archives.look("app.tar").unwrap(), Entry::File(_)), "the link is replaced");
    assert_eq!(fs::read(&outside).unwrap(), b"not yours");

    fs::create_dir(path.join("folder.tar")).unwrap();
    let error = save(&archives, &shop, "folder.tar").unwrap_err().to_string();
    assert!(error.contains("folder.tar"), "{error}");
    assert!(archives.read("folder.tar").unwrap_err().to_string().contains("a folder"));
    let fifo = path.join("pipe.tar");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert!(archives.read("pipe.tar").unwrap_err().to_string().contains("a named pipe"));
    assert_eq!(names(&path), ["app.tar", "folder.tar", "pipe.tar"], "nothing unfinished stays");
}

#[test]
fn nothing_is_left_of_what_failed_or_was_killed() {
    let shop = folder();
    let (archives, path) = export(&shop);
    save(&archives, &shop, "app.tar").unwrap();
    let before = fs::metadata(path.join("app.tar")).unwrap().ino();
    let stored = shop.put(&image(&[&vec![7; 3 << 20]]), "app:v2");
    let stopped = archives.save(&shop.store, &[save_image(&stored)], ZSTD, "app.tar", &|| true);
    assert!(matches!(stopped, Err(ArchiveError::Interrupted)));
    assert_eq!(
        (names(&path), fs::metadata(path.join("app.tar")).unwrap().ino()),
        (vec!["app.tar".to_owned()], before)
    );

    let (dead, alive) = (path.join(".larder-unfinished-1"), path.join(".larder-unfinished-2"));
    fs::write(&dead, b"half").unwrap();
    fs::write(path.join(".mine"), b"somebody's").unwrap();
    let writer = File::create(&alive).unwrap();
    writer.lock().unwrap();
    archives.clean().unwrap();
    assert_eq!(names(&path), [".larder-unfinished-2", ".mine", "app.tar"]);
    drop(writer);
    archives.clean().unwrap();
    assert_eq!(names(&path), [".mine", "app.tar"]);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let shop = folder();
    let error = ArchiveFolder::open(&shop.dir.path().join("nowhere")).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
    assert!(error.to_string().contains("/nowhere"), "{error}");
}
