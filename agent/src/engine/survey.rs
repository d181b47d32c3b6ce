//! All images on the node, whoever brought them: what rules for removal are applied to.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use k8s_openapi::jiff::Timestamp;
use larder_oci::{Digest, ImageKey, ImageName};
use larder_runtime::{self as runtime, Containers, Listed, Runtime, RuntimeError, User};
use larder_store::{Claim, Store, StoreError, StoredImage};

use super::observe;

/// The largest configuration that is read, in bytes.
const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// An image on the node: in the store, in the runtime, or in both.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// All its names.
    pub names: BTreeSet<ImageName>,
    /// Its names in the store, each with the manifest that it stands for.
    pub stored: Vec<(ImageKey, Digest)>,
    pub created: Option<Timestamp>,
    /// When it came to where it came last.
    pub came: Option<Timestamp>,
    pub users: Vec<User>,
    /// Somebody else has pinned it.
    pub is_pinned: bool,
    /// The agent has put it there, and takes it away itself when nobody wants it.
    pub is_ours: bool,
}

/// An image in the store.
struct Stored {
    image: runtime::Image,
    claim: Claim,
    created: Option<Timestamp>,
    came: Option<Timestamp>,
}

/// Looks at store and runtime. Images that can't be read are left out: nobody could tell what uses them.
pub(super) async fn survey(
    store: &Store,
    runtime: Option<&Runtime>,
) -> Result<BTreeMap<Digest, Found>, RuntimeError> {
    let (listed, containers) = match runtime {
        Some(runtime) => (runtime.images().await?, runtime.containers().await?),
        None => (Vec::new(), Containers::default()),
    };
    let store = store.clone();
    let stored = observe::run(move || {
        Ok(store.images()?.iter().filter_map(|image| read(&store, image).ok()).collect())
    });
    let stored: Vec<Stored> = stored.await?;
    let mut images: BTreeMap<Digest, Found> = BTreeMap::new();
    for image in listed {
        add_listed(images.entry(image.id.clone()).or_default(), image, &containers);
    }
    for stored in stored {
        let Ok(manifest) = Digest::try_from(stored.image.manifest.digest()) else { continue };
        let config = Digest::try_from(stored.image.config.digest()).ok();
        // Artifacts often have all the same configuration.
        let id = config.filter(|_| stored.image.is_runnable()).unwrap_or_else(|| manifest.clone());
        add_stored(images.entry(id).or_default(), &stored, manifest, &containers);
    }
    Ok(images)
}

fn add_listed(found: &mut Found, image: Listed, containers: &Containers) {
    found.users = containers.using(&image);
    found.names.extend(image.names);
    found.created = image.created;
    found.came = image.came;
    found.is_pinned = image.is_pinned;
    found.is_ours = image.is_marked;
}

fn add_stored(found: &mut Found, stored: &Stored, manifest: Digest, containers: &Containers) {
    let key = stored.image.key.clone();
    if found.users.is_empty() {
        found.users = containers.made_from(&stored.image);
    }
    found.created = found.created.or(stored.created);
    found.came = found.came.max(stored.came);
    found.is_ours |= stored.claim == Claim::Delete;
    found.names.insert(key.name.clone());
    found.stored.push((key, manifest));
}

/// Blocks.
fn read(store: &Store, stored: &StoredImage) -> Result<Stored, StoreError> {
    let image = runtime::Image::read(store, stored)?;
    let config = Digest::try_from(image.config.digest())?;
    let created = made(&store.read_blob(&config, MAX_CONFIG_SIZE)?);
    // A blob is written once.
    let written =
        std::fs::metadata(store.blob_path(&stored.manifest_digest)).and_then(|file| file.modified());
    let came = written.ok().and_then(|time: SystemTime| Timestamp::try_from(time).ok());
    Ok(Stored { image, claim: stored.claim, created, came })
}

/// When an image was made, if its configuration says so.
fn made(config: &[u8]) -> Option<Timestamp> {
    let config: serde_json::Value = serde_json::from_slice(config).ok()?;
    config.get("created")?.as_str()?.parse().ok()
}

/// An image's name as the runtime has it: there the digest wins over the tag.
pub(super) fn in_runtime(name: &ImageName) -> ImageName {
    name.digest().map_or_else(|| name.clone(), |digest| name.untagged(digest))
}
