//! An image, as far as a runtime needs to know it, and how its layers arrive.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use larder_oci::{Digest, Document, ImageKey, manifest::MAX_MANIFEST_SIZE, spec::Descriptor};
use larder_store::{Store, StoreError, StoredImage};
use tokio::sync::watch;

/// Configurations that tell that an image is to be run.
pub(crate) const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// The largest configuration that is read, in bytes.
const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// What the store knows of an image. Manifest and configuration are in the store; the layers may be on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name and platform.
    pub key: ImageKey,
    /// The digest that the name stands for: the index's if there is one, else the manifest's.
    pub target: Digest,
    /// The index, if the name stands for one.
    pub index: Option<Descriptor>,
    /// The platform's manifest.
    pub manifest: Descriptor,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first; one may be there more than once.
    pub layers: Vec<Descriptor>,
    /// The layers' digests when unpacked, as the configuration lists them. Empty for an artifact, which no runtime can unpack.
    pub diff_ids: Vec<Digest>,
    /// Whether it counts as ready when it is pinned (the case unless something else is said), or when it is not. `None`:
    /// either will do.
    pub pin: Option<bool>,
    /// Whether its name is one that Larder has given it beside its own: no registry knows it by that.
    pub further: bool,
}

impl Image {
    /// Reads manifest and configuration of an image that the store names. Blocks.
    pub fn read(store: &Store, stored: &StoredImage) -> Result<Self, StoreError> {
        let index = stored.index.clone();
        let image = Self::read_manifest(store, stored.key.clone(), stored.manifest.clone(), index)?;
        Ok(Self { further: stored.further, ..image })
    }

    /// Reads manifest and configuration of an image that the store may not name yet. Blocks.
    pub fn read_manifest(
        store: &Store,
        key: ImageKey,
        manifest: Descriptor,
        index: Option<Descriptor>,
    ) -> Result<Self, StoreError> {
        let digest = Digest::try_from(manifest.digest())?;
        let bytes = store.read_blob(&digest, MAX_MANIFEST_SIZE)?;
        let malformed = |source| StoreError::Manifest { digest: digest.clone(), source };
        let document = Document::parse(Some(manifest.media_type().as_ref()), &bytes).map_err(malformed)?;
        let Document::Manifest(document) = document else {
            let source = larder_oci::ManifestError::Ambiguous("it is an index where a manifest is expected");
            return Err(malformed(source));
        };
        let target = index.as_ref().map_or(Ok(digest.clone()), |index| Digest::try_from(index.digest()))?;
        let config = document.config().clone();
        let diff_ids = diff_ids(&store.read_blob(&Digest::try_from(config.digest())?, MAX_CONFIG_SIZE)?);
        let layers = document.layers().clone();
        let (pin, further) = (Some(true), false);
        Ok(Self { key, target, index, manifest, config, layers, diff_ids, pin, further })
    }

    /// Whether a runtime can unpack it: it has as many unpacked digests as layers.
    #[must_use]
    pub fn is_runnable(&self) -> bool {
        !self.layers.is_empty() && self.layers.len() == self.diff_ids.len()
    }
}

/// The layers' digests when unpacked, as a configuration lists them; none if it is no image's.
pub(crate) fn diff_ids(config: &[u8]) -> Vec<Digest> {
    #[derive(serde::Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(serde::Deserialize)]
    struct RootFs {
        diff_ids: Vec<String>,
    }
    let config: Result<Config, _> = serde_json::from_slice(config);
    let parsed = config.map(|config| config.rootfs.diff_ids.iter().map(|id| id.parse()).collect());
    parsed.unwrap_or(Ok(Vec::new())).unwrap_or_default()
}

/// When an image was made, if its configuration says so.
pub(crate) fn created(config: &[u8]) -> Option<jiff::Timestamp> {
    #[derive(serde::Deserialize)]
    struct Config {
        created: String,
    }
    serde_json::from_slice::<Config>(config).ok()?.created.parse().ok()
}

/// Whether a configuration is an image's, and not an artifact's.
pub(crate) fn is_image(config: &Descriptor) -> bool {
    IMAGE_CONFIGS.contains(&config.media_type().as_ref())
}

/// Which layers are in the store: the side that says so.
#[derive(Debug, Clone)]
pub struct Arrivals {
    state: Arc<Mutex<watch::Sender<Arrived>>>,
}

/// Which layers are in the store: the side that waits.
#[derive(Debug, Clone)]
pub struct Layers {
    /// `None`: all of them are.
    arrived: Option<watch::Receiver<Arrived>>,
}

#[derive(Debug, Default)]
struct Arrived {
    layers: BTreeSet<Digest>,
    all: bool,
}

impl Layers {
    /// All layers are in the store.
    #[must_use]
    pub fn all_there() -> Self {
        Self { arrived: None }
    }

    /// Layers that arrive. When the last clone of the other side goes before it said that all are there, those who wait for
    /// a layer learn that it won't come.
    #[must_use]
    pub fn arriving() -> (Arrivals, Self) {
        let (sender, receiver) = watch::channel(Arrived::default());
        (Arrivals { state: Arc::new(Mutex::new(sender)) }, Self { arrived: Some(receiver) })
    }

    /// Waits for a layer. False: it won't come.
    pub async fn wait_for(&self, layer: &Digest) -> bool {
        let Some(arrived) = &self.arrived else { return true };
        let mut arrived = arrived.clone();
        arrived.wait_for(|arrived| arrived.all || arrived.layers.contains(layer)).await.is_ok()
    }
}

impl Arrivals {
    /// A layer is in the store.
    pub fn layer(&self, layer: &Digest) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.send_if_modified(|arrived| arrived.layers.insert(layer.clone()));
    }

    /// All of them are.
    pub fn all(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.send_modify(|arrived| arrived.all = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        format!("sha256:{}", hex(byte).repeat(32)).parse().unwrap()
    }

    fn hex(byte: u8) -> String {
        format!("{byte:02x}")
    }

    #[tokio::test]
    async fn a_layer_is_waited_for_until_it_comes_or_cannot_come() {
        assert!(Layers::all_there().wait_for(&digest(1)).await);
        let (arrivals, layers) = Layers::arriving();
        arrivals.layer(&digest(1));
        assert!(layers.wait_for(&digest(1)).await);
        drop(arrivals);
        assert!(!layers.wait_for(&digest(2)).await);
        let (arrivals, layers) = Layers::arriving();
        arrivals.all();
        assert!(layers.wait_for(&digest(3)).await);
    }

    #[test]
    fn an_artifact_has_no_unpacked_digests() {
        assert!(diff_ids(b"{}").is_empty());
        assert!(diff_ids(b"not json").is_empty());
        let one = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, digest(7));
        assert_eq!(diff_ids(one.as_bytes()), [digest(7)]);
    }
}
