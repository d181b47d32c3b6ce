//! Looking at a store from outside, with nothing of the store's own code: is all that it holds as it should be?

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use larder_oci::Digest;
use serde_json::Value;

use crate::model::Names;

/// A store's folder, and what is known of its blobs.
pub struct Look {
    store: PathBuf,
    /// Blobs that were hashed: file, time of its last change, and size.
    hashed: BTreeMap<PathBuf, (u64, i64, i64, u64)>,
    pub hashes: u64,
}

/// What a store holds.
pub struct Seen {
    pub names: Names,
    /// The blobs that some image needs.
    pub needed: BTreeSet<PathBuf>,
}

impl Look {
    pub fn new(store: &Path) -> Self {
        Self { store: store.to_owned(), hashed: BTreeMap::new(), hashes: 0 }
    }

    /// Reads the index, sees that every image is whole, and hashes blobs that are new or changed.
    pub fn look(&mut self) -> Result<Seen, String> {
        self.hash()?;
        let mut seen = Seen { names: Names::new(), needed: BTreeSet::new() };
        if !self.store.join("index.json").exists() {
            return Ok(seen);
        }
        let index = json(&self.store.join("index.json"))?;
        for entry in index["manifests"].as_array().ok_or("index.json has no manifests")? {
            let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default();
            let manifest = self.need(entry, name, &mut seen)?;
            let manifest = json(&manifest)?;
            for descriptor in manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]])
            {
                self.need(descriptor, name, &mut seen)?;
            }
            let index = &entry["annotations"]["dev.larder.index.digest"];
            if let Some(digest) = index.as_str() {
                seen.needed.insert(self.blob(digest));
            }
            let id = manifest["config"]["digest"].as_str().unwrap_or_default().to_owned();
            seen.names.insert(name.to_owned(), id);
        }
        Ok(seen)
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.store.join("blobs").join(digest.replace(':', "/"))
    }

    /// A blob must be there in its full length; that it has its digest was seen before.
    fn need(&self, descriptor: &Value, name: &str, seen: &mut Seen) -> Result<PathBuf, String> {
        let path = self.blob(descriptor["digest"].as_str().unwrap_or_default());
        let size = fs::metadata(&path).map(|metadata| metadata.len());
        if size.as_ref().ok() != descriptor["size"].as_u64().as_ref() {
            return Err(format!("{name} needs {descriptor}, and its blob is {size:?}"));
        }
        seen.needed.insert(path.clone());
        Ok(path)
    }

    fn hash(&mut self) -> Result<(), String> {
        let mut known = BTreeMap::new();
        for path in files(&self.store.join("blobs/sha256")) {
            let metadata = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let mark = (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size());
            if self.hashed.get(&path) != Some(&mark) {
                let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let digest = Digest::sha256(&bytes);
                if digest.hex() != name {
                    return Err(format!("{name} has {} bytes with the digest {digest}", bytes.len()));
                }
                self.hashes += 1;
            }
            known.insert(path, mark);
        }
        self.hashed = known;
        Ok(())
    }

    /// Hashes everything anew the next time.
    pub fn forget(&mut self) {
        self.hashed.clear();
    }

    /// What lies in the store and nothing needs. All of it is here for a time; after a collection, nothing may be.
    pub fn surplus(&self, seen: &Seen) -> Vec<PathBuf> {
        let private = self.store.join(".larder");
        let mut surplus: Vec<PathBuf> = files(&self.store.join("blobs/sha256"));
        surplus.retain(|path| !seen.needed.contains(path));
        for folder in ["leases", "trash", "partial/sha256", "elsewhere"] {
            surplus.extend(files(&private.join(folder)));
        }
        let own = ["id", "lock", "leases", "trash", "partial", "elsewhere", "index.json.new"];
        let stranger = |path: &PathBuf| !own.iter().any(|own| path.ends_with(own));
        surplus.extend(files(&private).into_iter().filter(stranger));
        surplus
    }
}

fn json(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// What is in a folder; nothing if it is not there.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}
