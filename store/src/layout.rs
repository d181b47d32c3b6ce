//! Where things are, and how files get there.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use larder_oci::Digest;
use serde_json::Value;

use crate::{
    error::{Result, StoreError, found},
    lock::{ExclusiveLock, same_file},
};

/// The paths of one store.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The one version of the image layout there is
/// (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md#oci-layout-file>).
const VERSION: &str = "1.0.0";
const VERSION_FILE: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// What file systems give out space in, in bytes.
const BLOCK: usize = 4096;
const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
/// What may stand in a folder that is to become a store: what an interrupted `open` leaves, and what `mkfs` does.
const OWN_NAMES: [&str; 5] = [".larder", "blobs", "index.json", "oci-layout", "lost+found"];

impl Layout {
    /// Opens the layout at `root`, creating what is missing.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let layout = Self { root: root.to_owned() };
        make_dirs(root)?;
        match layout.version()? {
            Some(version) if version == VERSION => {}
            Some(version) => {
                let why = format!("its oci-layout file says version {version:?}, only {VERSION} is known");
                return Err(StoreError::NotAStore { path: root.to_owned(), why });
            }
            None => layout.refuse_other_folders()?,
        }
        if !layout.is_whole() {
            layout.create()?;
        }
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The folder of the blobs of a digest's algorithm.
    pub(crate) fn blob_folder(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.algorithm_name())
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blob_folder(digest).join(digest.hex())
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.private().join("partial")
    }

    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(digest.algorithm_name()).join(digest.hex())
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.private().join("leases")
    }

    /// Where collected blobs go before they are unlinked: on the same file system, so that a rename gets them there.
    pub(crate) fn trash(&self) -> PathBuf {
        self.private().join("trash")
    }

    /// Where a blob goes before it is unlinked.
    pub(crate) fn discarded(&self, digest: &Digest) -> PathBuf {
        self.trash().join(format!("{}-{}", digest.algorithm_name(), digest.hex()))
    }

    /// In the place of blobs that were handed over.
    pub(crate) fn markers(&self) -> PathBuf {
        self.private().join("elsewhere")
    }

    /// The folder of the markers of a digest's algorithm.
    pub(crate) fn marker_folder(&self, digest: &Digest) -> PathBuf {
        self.markers().join(digest.algorithm_name())
    }

    pub(crate) fn marker(&self, digest: &Digest) -> PathBuf {
        self.marker_folder(digest).join(digest.hex())
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.private().join("lock")
    }

    /// The store's ID.
    pub(crate) fn id(&self) -> PathBuf {
        self.private().join("id")
    }

    /// Files being written that are to replace one of the layout's own.
    pub(crate) fn temporary(&self, name: &str) -> PathBuf {
        self.private().join(format!("{name}.new"))
    }

    fn private(&self) -> PathBuf {
        self.root.join(".larder")
    }

    fn version_file(&self) -> PathBuf {
        self.root.join("oci-layout")
    }

    /// The version in `oci-layout`, if the file exists.
    fn version(&self) -> Result<Option<String>> {
        let path = self.version_file();
        let Some(bytes) = read_bounded(&path, 64 << 10)? else { return Ok(None) };
        let version = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|value| Some(value.get("imageLayoutVersion")?.as_str()?.to_owned()));
        version.map(Some).ok_or_else(|| StoreError::Corrupt {
            path,
            why: "it does not hold an imageLayoutVersion".to_owned(),
            advice: r#"if the folder is a layer store, write {"imageLayoutVersion":"1.0.0"} into it"#,
        })
    }

    /// Without `oci-layout`, the folder may be empty or half made, and nothing else.
    fn refuse_other_folders(&self) -> Result<()> {
        let refuse = |why| Err(StoreError::NotAStore { path: self.root.clone(), why });
        for name in names(&self.root)? {
            if !OWN_NAMES.iter().any(|own| OsStr::new(own) == name) {
                return refuse(format!("it holds {} and no oci-layout file", name.display()));
            }
        }
        // An interrupted `open` has written the index before there can be any blob.
        for algorithm in names(&self.blobs())? {
            let any = !names(&self.blobs().join(algorithm))?.is_empty();
            if any && !self.index().exists() {
                return refuse("it holds blobs, but neither index.json nor oci-layout".to_owned());
            }
        }
        Ok(())
    }

    /// Whether `create` has run to its end. A folder that this user may not look into was made by someone who may.
    fn is_whole(&self) -> bool {
        let there = |path: PathBuf| path.try_exists().unwrap_or(true);
        [self.version_file(), self.blobs(), self.markers(), self.id()].into_iter().all(there)
    }

    fn create(&self) -> Result<()> {
        make_dir(&self.private(), 0o700)?;
        let lock = ExclusiveLock::take(self)?;
        // A layout without an index has lost it; only a folder that never was a layout gets a new one.
        let new = self.version()?.is_none();
        if new && !self.index().exists() {
            self.replace(&lock, "index.json", EMPTY_INDEX.as_bytes())?;
        }
        make_dir(&self.blobs(), 0o755)?;
        make_dir(&self.blobs().join("sha256"), 0o755)?;
        sync_dir(&self.blobs())?;
        for dir in [self.partials(), self.leases(), self.trash(), self.markers()] {
            make_dir(&dir, 0o700)?;
        }
        self.make_id(&lock)?;
        sync_dir(&self.private())?;
        if new {
            self.replace(&lock, "oci-layout", VERSION_FILE.as_bytes())?;
        }
        sync_dir(&self.root)?;
        // The folder's own entry; where the one above may not be read, whoever made it has to.
        match self.root.canonicalize().ok().as_deref().and_then(Path::parent).map(sync_dir) {
            Some(Err(StoreError::Io { source, .. })) if source.kind() == io::ErrorKind::PermissionDenied => {
                Ok(())
            }
            Some(result) => result,
            None => Ok(()),
        }
    }

    /// Replaces a file in the root folder: after a crash or a power cut at any instant, the old content or the new
    /// is there, whole. The exclusive lock is what makes one temporary name enough. What is there under that name is
    /// written over, so that a [spare](Self::keep_spare) saves asking for space.
    pub(crate) fn replace(&self, _lock: &ExclusiveLock, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = self.temporary(name);
        let path = self.root.join(name);
        let open =
            || OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(&temporary);
        let write = || -> io::Result<()> {
            let mut file = open()?;
            // A power cut in the middle of the last rename can have left both names, and what is read must not change.
            if same_file(&file, &path)? {
                fs::remove_file(&temporary)?;
                file = open()?;
            }
            file.write_all(bytes)?;
            file.set_len(bytes.len() as u64)?;
            file.sync_all()
        };
        write().map_err(StoreError::io("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(StoreError::io("replace", &path))?;
        sync_dir(&self.root)
    }

    /// Keeps space for the next replacement of a file by one that is not much larger: on a full disk, an image must be
    /// removable, for how else is there to be space again? Best effort: with no space for a spare, there is none.
    pub(crate) fn keep_spare(&self, _lock: &ExclusiveLock, name: &str, size: usize) {
        let path = self.temporary(name);
        let bytes = vec![0; size.next_multiple_of(BLOCK) + BLOCK];
        let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
        if let Err(error) = made.and_then(|mut file| file.write_all(&bytes)) {
            tracing::debug!(path = %path.display(), %error, "cannot keep space for the next change");
        }
    }
}

/// Reads a whole file if it exists and is no larger than `max` bytes.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = found(File::open(path)).map_err(StoreError::io("open", path))? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > max {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            why: format!("it is larger than {max} bytes"),
            advice: "look at what wrote it, and restore it from a copy",
        });
    }
    Ok(Some(bytes))
}

/// The names in a folder; none if there is no such folder.
pub(crate) fn names(dir: &Path) -> Result<Vec<OsString>> {
    match fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        other => other.map_err(StoreError::io("list", dir)),
    }
}

/// The digests that the files in `dir/<algorithm>/<hex>` stand for. Other names are not ours and left out.
pub(crate) fn digests(dir: &Path) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for algorithm in names(dir)? {
        for name in names(&dir.join(&algorithm))? {
            if let (Some(algorithm), Some(hex)) = (algorithm.to_str(), name.to_str()) {
                digests.extend(format!("{algorithm}:{hex}").parse::<Digest>());
            }
        }
    }
    Ok(digests)
}

/// Makes a folder unless it exists.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(StoreError::io("create", dir)),
    }
}

fn make_dirs(root: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(root).map_err(StoreError::io("create", root))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", dir))
}

/// Deletes a file that may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<bool> {
    found(fs::remove_file(path)).map(|gone| gone.is_some()).map_err(StoreError::io("delete", path))
}
