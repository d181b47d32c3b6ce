//! What the agent has written into the export folder, and what it has loaded from where: all that it could not find out again
//! by looking. It is kept in the store's folder, next to what the store keeps for itself.
//!
//! Losing it harms nothing: archives are written once more, and files and artifacts that are to be followed are read once
//! more. What was asked for by an `ImageCache` that has gone meanwhile stays in the export folder then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use larder_archive::Stamp;
use larder_oci::{Digest, ImageKey};
use larder_store::Store;
use serde::{Deserialize, Serialize};

/// The largest file that is read, in bytes: 4096 images with 16 names each take less.
const MAX_SIZE: u64 = 32 << 20;

/// The book itself. Read when it is first needed.
pub(super) struct Ledger {
    path: PathBuf,
    pages: Mutex<Option<Pages>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pages {
    /// By folder and file.
    #[serde(default)]
    archives: BTreeMap<PathBuf, Archived>,
    /// By image and platform.
    #[serde(default)]
    loaded: BTreeMap<String, Origin>,
}

/// An archive that the agent has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Archived {
    /// The image.
    pub image: String,
    /// Its platform.
    pub platform: String,
    /// The digest that its name stood for.
    pub digest: Digest,
    /// All names that it has in the archive.
    pub names: BTreeSet<String>,
    /// What the file was then.
    pub stamp: Stamp,
}

impl Archived {
    pub(super) fn is_of(&self, key: &ImageKey) -> bool {
        self.image == key.name.as_str() && self.platform == key.platform.to_string()
    }
}

/// Where an image was loaded from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Origin {
    /// A file in the import folder, as it was then.
    File { name: String, stamp: Stamp },
    /// An artifact: its name, and the digest of its manifest.
    Artifact { name: String, digest: Digest },
}

impl Ledger {
    pub(super) fn of(store: &Store) -> Self {
        Self { path: store.root().join(".larder").join("agent.json"), pages: Mutex::new(None) }
    }

    /// The archives in a folder, by file. Blocks, as all that follows.
    pub(super) fn archives(&self, folder: &Path) -> BTreeMap<String, Archived> {
        let pages = self.pages();
        let here = pages.iter().flat_map(|pages| &pages.archives);
        let here = here.filter(|(path, _)| path.parent() == Some(folder));
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        here.filter_map(|(path, archived)| Some((name(path)?, archived.clone()))).collect()
    }

    pub(super) fn add_archive(&self, folder: &Path, file: &str, archived: Archived) -> io::Result<()> {
        self.change(|pages| drop(pages.archives.insert(folder.join(file), archived)))
    }

    pub(super) fn forget_archives(&self, folder: &Path, files: &BTreeSet<String>) -> io::Result<()> {
        self.change(|pages| files.iter().for_each(|file| drop(pages.archives.remove(&folder.join(file)))))
    }

    pub(super) fn origin(&self, key: &ImageKey) -> Option<Origin> {
        self.pages().as_ref()?.loaded.get(&key.to_string()).cloned()
    }

    /// Notes where images were loaded from.
    pub(super) fn add_origin(&self, keys: &[ImageKey], origin: &Origin) -> io::Result<()> {
        self.change(|pages| pages.loaded.extend(keys.iter().map(|key| (key.to_string(), origin.clone()))))
    }

    /// Forgets where images were loaded from that are not among these.
    pub(super) fn keep_origins(&self, keys: &BTreeSet<ImageKey>) -> io::Result<()> {
        let keys: BTreeSet<String> = keys.iter().map(ToString::to_string).collect();
        self.change(|pages| pages.loaded.retain(|key, _| keys.contains(key)))
    }

    fn pages(&self) -> MutexGuard<'_, Option<Pages>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get_or_insert_with(|| {
            read(&self.path).unwrap_or_else(|error| {
                tracing::warn!(path = %self.path.display(), %error, "what was saved and loaded is not known any more");
                Pages::default()
            })
        });
        pages
    }

    /// Changes it, on the disk first. Nothing is written where nothing changes.
    fn change(&self, change: impl FnOnce(&mut Pages)) -> io::Result<()> {
        let mut pages = self.pages();
        let before = pages.clone().unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            write(&self.path, &after)?;
            *pages = Some(after);
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Pages> {
    let size = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pages::default()),
        metadata => metadata?.len(),
    };
    if size > MAX_SIZE {
        return Err(io::Error::other(format!("it is larger than {MAX_SIZE} bytes")));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// The old content or the new one is there at any instant, power cuts included.
fn write(path: &Path, pages: &Pages) -> io::Result<()> {
    let new = path.with_extension("json.new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(pages)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archived(image: &str) -> Archived {
        Archived {
            image: image.to_owned(),
            platform: "linux/amd64".to_owned(),
            digest: Digest::sha256(image.as_bytes()),
            names: BTreeSet::from([image.to_owned()]),
            stamp: Stamp { size: 1, modified: (2, 3), inode: 4 },
        }
    }

    #[test]
    fn it_is_there_after_a_restart_and_empty_where_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let (here, there) = (Path::new("/a"), Path::new("/b"));
        let key: ImageKey =
            ImageKey { name: "app:v1".parse().unwrap(), platform: "linux/amd64".parse().unwrap() };
        let origin = Origin::Artifact { name: "x:v1".to_owned(), digest: Digest::sha256(b"x") };
        let ledger = Ledger::of(&store);
        ledger.add_archive(here, "app.tar", archived("app:v1")).unwrap();
        ledger.add_archive(there, "app.tar", archived("app:v2")).unwrap();
        ledger.add_origin(std::slice::from_ref(&key), &origin).unwrap();

        let again = Ledger::of(&store);
        assert_eq!(again.archives(here), BTreeMap::from([("app.tar".to_owned(), archived("app:v1"))]));
        assert_eq!(again.origin(&key), Some(origin));
        again.forget_archives(here, &BTreeSet::from(["app.tar".to_owned()])).unwrap();
        again.keep_origins(&BTreeSet::new()).unwrap();
        let again = Ledger::of(&store);
        assert_eq!((again.archives(here).len(), again.archives(there).len()), (0, 1));
        assert_eq!(again.origin(&key), None);

        fs::write(store.root().join(".larder/agent.json"), b"{").unwrap();
        let torn = Ledger::of(&store);
        assert_eq!(torn.archives(there).len(), 0);
        torn.add_archive(here, "app.tar", archived("app:v1")).unwrap();
        assert_eq!(Ledger::of(&store).archives(here).len(), 1);
    }
}
