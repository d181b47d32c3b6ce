//! What lies in the store, needed or not.

use std::{collections::BTreeMap, fs, io};

use larder_oci::Digest;

use crate::{
    Store,
    error::{Result, StoreError, found},
    layout::{digests, names},
};

/// What lies in the store. A collection or a pull may change it the moment after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// All blobs that are here, with their sizes in bytes.
    pub blobs: BTreeMap<Digest, u64>,
    /// The blobs that were handed over, with their sizes in bytes. They take no space in the store.
    pub handed_over: BTreeMap<Digest, u64>,
    /// How many blobs in the making there are.
    pub partials: u64,
    /// The bytes that they take.
    pub partial_bytes: u64,
}

impl Store {
    /// Looks at everything that lies in the store, without reading it.
    pub fn inventory(&self) -> Result<Inventory> {
        let mut inventory = Inventory::default();
        for digest in digests(&self.layout.blobs())? {
            let path = self.layout.blob(&digest);
            let metadata = found(fs::symlink_metadata(&path)).map_err(StoreError::io("look at", &path))?;
            if let Some(metadata) = metadata.filter(fs::Metadata::is_file) {
                inventory.blobs.insert(digest, metadata.len());
            }
        }
        // After the blobs: one that is handed over meanwhile is in both, and not in neither.
        inventory.handed_over = self.handed_over()?;
        inventory.handed_over.retain(|digest, _| !inventory.blobs.contains_key(digest));
        let partials = self.layout.partials();
        for algorithm in names(&partials)? {
            let folder = partials.join(algorithm);
            for name in names(&folder)? {
                let path = folder.join(name);
                match fs::symlink_metadata(&path) {
                    Ok(metadata) => {
                        inventory.partials += 1;
                        inventory.partial_bytes += metadata.len();
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(StoreError::io("look at", &path)(error)),
                }
            }
        }
        Ok(inventory)
    }
}
