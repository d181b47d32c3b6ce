//! Bringing one image from a registry into the layer store.

mod blob;
mod error;
mod progress;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use larder_oci::{
    Digest, Document, ImageKey, Platform,
    manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST_SIZE},
    spec,
};
use larder_store::{Claim, Lease, NewImage, Store};
use tokio::task::spawn_blocking;

use larder_registry::{RawManifest, Registry, RegistryError};

pub use error::PullError;
pub use progress::Progress;

/// Layers of one image that are fetched at the same time.
const CONCURRENT_LAYERS: usize = 3;
/// The largest configuration that is looked at for its platform. Larger ones are kept and not looked at.
const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// Pulls images into one store.
#[derive(Clone)]
pub struct Puller {
    store: Store,
    registry: Registry,
}

/// An image that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The digest that the name stands for: the image index's where there is one, the manifest's otherwise.
    pub digest: Digest,
    /// Bytes in all: manifest, configuration and layers, each counted once.
    pub size: u64,
}

/// What a name resolved to, for one platform.
struct Resolved {
    /// The index that the name stands for, where there is one.
    index: Option<(spec::Descriptor, RawManifest)>,
    manifest: spec::Descriptor,
    bytes: Vec<u8>,
    document: Box<spec::ImageManifest>,
}

impl Puller {
    /// A puller that reads with `registry` and writes to `store`.
    #[must_use]
    pub fn new(store: Store, registry: Registry) -> Self {
        Self { store, registry }
    }

    /// Fetches what the store lacks of the image and names it there.
    ///
    /// A pull that fails, is dropped or is killed leaves what it has for the next one: nothing is fetched twice.
    ///
    /// # Errors
    /// [`PullError`], which tells how to go on.
    pub async fn pull(
        &self,
        key: &ImageKey,
        claim: Claim,
        progress: &Arc<Progress>,
    ) -> Result<Pulled, PullError> {
        let lease = {
            let (store, key) = (self.store.clone(), key.clone());
            Arc::new(blocking(move || Ok(store.lease(&key)?)).await?)
        };
        let resolved = self.resolve(key, &lease).await?;
        let blobs = distinct_blobs(&resolved)?;
        let size = blobs.iter().map(|(_, size)| size).sum::<u64>() + resolved.manifest.size();
        progress.start(size);
        self.store_manifests(&lease, &resolved, &blobs).await?;
        progress.add(resolved.manifest.size());

        let (config, layers) = blobs.split_first().ok_or(PullError::Interrupted)?;
        self.fetch_blob(key, &lease, config.clone(), progress).await?;
        self.check_platform(key, &resolved).await?;
        stream::iter(layers.to_vec())
            .map(|layer| self.fetch_blob(key, &lease, layer, progress))
            .buffer_unordered(CONCURRENT_LAYERS)
            .try_collect::<()>()
            .await?;

        let digest = digest_of(resolved.index.as_ref().map_or(&resolved.manifest, |(index, _)| index))?;
        let image = NewImage {
            manifest: resolved.manifest,
            index: resolved.index.map(|(descriptor, _)| descriptor),
            claim,
        };
        blocking(move || Ok(lease.commit(image)?)).await?;
        Ok(Pulled { digest, size })
    }

    /// Finds the manifest for the key's platform. Asks the registry for the name once, and for the platform's
    /// manifest only where the store does not have it.
    async fn resolve(&self, key: &ImageKey, lease: &Arc<Lease>) -> Result<Resolved, PullError> {
        let named = match key.name.digest() {
            Some(digest) => self.raw_manifest(key, lease, digest).await?,
            None => self.registry.manifest(&key.name, None).await?,
        };
        let unusable = |source| RegistryError::Manifest { what: key.name.to_string(), source };
        let document = Document::parse(named.content_type.as_deref(), &named.bytes).map_err(unusable)?;
        let index = match document {
            Document::Manifest(document) => {
                let manifest = describe(&named, &document, &key.platform)?;
                return Ok(Resolved { index: None, manifest, bytes: named.bytes.to_vec(), document });
            }
            Document::Index(index) => index,
        };
        let entry = key
            .platform
            .select(&index)
            .map_err(|source| RegistryError::NoMatch { what: key.name.to_string(), source })?;
        let digest = digest_of(entry)?;
        let raw = self.raw_manifest(key, lease, &digest).await?;
        if raw.bytes.len() as u64 != entry.size() {
            let (expected, actual) = (entry.size(), raw.bytes.len() as u64);
            let what = format!("manifest {digest} of {}", key.name);
            return Err(RegistryError::SizeMismatch { what, expected, actual }.into());
        }
        let media_type = entry.media_type().to_string();
        match Document::parse(Some(&media_type), &raw.bytes).map_err(unusable)? {
            Document::Manifest(document) => {
                let manifest = entry.clone();
                let index = describe_index(&named, &index)?;
                Ok(Resolved { index: Some((index, named)), manifest, bytes: raw.bytes.to_vec(), document })
            }
            Document::Index(_) => {
                Err(unusable(larder_oci::ManifestError::Ambiguous("an index where a manifest was announced"))
                    .into())
            }
        }
    }

    /// A manifest by digest: the store's, if an earlier pull brought it, else the registry's.
    async fn raw_manifest(
        &self,
        key: &ImageKey,
        lease: &Arc<Lease>,
        digest: &Digest,
    ) -> Result<RawManifest, PullError> {
        let (store, lease, wanted) = (self.store.clone(), lease.clone(), digest.clone());
        let stored = blocking(move || {
            lease.protect([&wanted])?;
            match store.blob_size(&wanted)? {
                Some(size) if size <= MAX_MANIFEST_SIZE => {
                    Ok(Some(store.read_blob(&wanted, MAX_MANIFEST_SIZE)?))
                }
                _ => Ok(None),
            }
        })
        .await?;
        match stored {
            Some(bytes) => {
                Ok(RawManifest { bytes: bytes.into(), content_type: None, digest: digest.clone() })
            }
            None => Ok(self.registry.manifest(&key.name, Some(digest)).await?),
        }
    }

    /// Protects everything the image is made of, then writes its manifests.
    async fn store_manifests(
        &self,
        lease: &Arc<Lease>,
        resolved: &Resolved,
        blobs: &[(Digest, u64)],
    ) -> Result<(), PullError> {
        let mut manifests = vec![(digest_of(&resolved.manifest)?, resolved.bytes.clone())];
        if let Some((_, raw)) = &resolved.index {
            manifests.push((raw.digest.clone(), raw.bytes.to_vec()));
        }
        let digests: Vec<_> = blobs.iter().map(|(digest, _)| digest.clone()).collect();
        let (store, lease) = (self.store.clone(), lease.clone());
        blocking(move || {
            lease.protect(manifests.iter().map(|(digest, _)| digest).chain(&digests))?;
            for (digest, bytes) in &manifests {
                store.put_blob(&lease, digest, bytes)?;
            }
            Ok(())
        })
        .await
    }

    /// An image without an index says in its configuration what it runs on. Docker's clients would fetch it
    /// regardless; on a node it could never start. Artifacts, whose configuration names no platform, are welcome.
    async fn check_platform(&self, key: &ImageKey, resolved: &Resolved) -> Result<(), PullError> {
        let config = resolved.document.config();
        if resolved.index.is_some() || config.size() > MAX_CONFIG_SIZE {
            return Ok(());
        }
        let (store, digest) = (self.store.clone(), digest_of(config)?);
        let bytes = blocking(move || Ok(store.read_blob(&digest, MAX_CONFIG_SIZE)?)).await?;
        match Platform::of_config(&bytes) {
            Some(made_for) if !key.platform.runs(&made_for) => Err(RegistryError::NoMatch {
                what: key.name.to_string(),
                source: larder_oci::platform::NoMatch {
                    wanted: key.platform.clone(),
                    available: vec![made_for.to_string()],
                },
            }
            .into()),
            _ => Ok(()),
        }
    }

    async fn fetch_blob(
        &self,
        key: &ImageKey,
        lease: &Arc<Lease>,
        (digest, size): (Digest, u64),
        progress: &Arc<Progress>,
    ) -> Result<(), PullError> {
        let fetch = blob::Fetch {
            registry: &self.registry,
            name: &key.name,
            lease: lease.clone(),
            digest,
            size,
            progress: progress.clone(),
        };
        fetch.run().await
    }
}

/// The configuration, then the layers, each digest once.
fn distinct_blobs(resolved: &Resolved) -> Result<Vec<(Digest, u64)>, PullError> {
    let mut blobs: Vec<(Digest, u64)> = Vec::new();
    for descriptor in std::iter::once(resolved.document.config()).chain(resolved.document.layers()) {
        let digest = digest_of(descriptor)?;
        if !blobs.iter().any(|(seen, _)| *seen == digest) {
            blobs.push((digest, descriptor.size()));
        }
    }
    Ok(blobs)
}

/// The descriptor of a manifest that has no index to describe it.
fn describe(
    raw: &RawManifest,
    document: &spec::ImageManifest,
    platform: &Platform,
) -> Result<spec::Descriptor, PullError> {
    let media_type = document.media_type().clone().unwrap_or_else(|| match raw.content_type.as_deref() {
        Some(DOCKER_MANIFEST) => spec::MediaType::from(DOCKER_MANIFEST),
        _ => spec::MediaType::ImageManifest,
    });
    let mut descriptor = spec::Descriptor::new(media_type, raw.bytes.len() as u64, oci_digest(&raw.digest)?);
    descriptor.set_platform(Some(platform.to_spec()));
    Ok(descriptor)
}

fn describe_index(raw: &RawManifest, document: &spec::ImageIndex) -> Result<spec::Descriptor, PullError> {
    let media_type = document.media_type().clone().unwrap_or_else(|| match raw.content_type.as_deref() {
        Some(DOCKER_LIST) => spec::MediaType::from(DOCKER_LIST),
        _ => spec::MediaType::ImageIndex,
    });
    Ok(spec::Descriptor::new(media_type, raw.bytes.len() as u64, oci_digest(&raw.digest)?))
}

fn digest_of(descriptor: &spec::Descriptor) -> Result<Digest, PullError> {
    Digest::try_from(descriptor.digest()).map_err(|source| {
        RegistryError::Manifest { what: descriptor.digest().to_string(), source: source.into() }.into()
    })
}

fn oci_digest(digest: &Digest) -> Result<spec::Digest, PullError> {
    digest.as_str().parse().map_err(|_| PullError::Interrupted)
}

/// Runs disk work off the async threads. The work goes on if the caller is dropped; nothing depends on it then.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    spawn_blocking(work).await.map_err(|_| PullError::Interrupted)?
}
