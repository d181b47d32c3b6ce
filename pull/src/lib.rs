//! Moving images between registries and the layer store.
//!
//! | to | call |
//! | --- | --- |
//! | bring one image, for one platform, into the store | [`Puller::pull`] |
//! | bring an image into the store for every platform that it has | [`Puller::pull_all_platforms`] |
//! | write what the store has to a registry | [`Pusher::push`] |
//! | know how far it is | [`Progress`], [`Observer`] |
//! | fetch a file that is an artifact | [`Puller::fetch_artifact`] |
//! | refuse images for which there is no room | [`Admission`] |
//!
//! # How a pull goes
//!
//! The name is resolved; where the store holds the image already, by a `HEAD` request and nothing else. The manifests
//! are stored, the configuration and the layers fetched, several at a time, and the image is named in the store last. A
//! pull that fails, is dropped or is killed leaves what it has for the next one.
//!
//! A large layer that arrives slowly is fetched over several connections (see `parts`): what one connection is worth
//! is measured first, since on a fast network more of them are mere overhead. Parts are fetched ahead into bounded
//! memory and written in order, by the one writer that hashes them as they come.
//!
//! Hash states are not kept: a download that is resumed is read again and hashed from its start, at the speed of the
//! disk. A state that was kept would vouch for bytes that a power cut may have taken.

#![forbid(unsafe_code)]

mod admission;
mod artifact;
mod blob;
mod error;
mod parts;
mod progress;
mod push;
mod resolve;
mod retry;
mod source;
mod turns;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use larder_oci::{Digest, Document, ImageKey, ImageName, Platform, spec};
use larder_registry::{RawManifest, Registry, RegistryError};
use larder_store::{Claim, Lease, NewImage, Store};
use tokio::{sync::Semaphore, task::spawn_blocking};

use blob::Fetch;
use parts::Helpers;
use resolve::Resolved;
use turns::Turns;

pub use admission::{Admission, Need, Needs};
pub use artifact::{Artifact, ArtifactError};
pub use error::PullError;
pub use progress::{Event, Observer, Progress};
pub use push::{Partial, PushError, PushEvent, PushObserver, Pushed, Pusher};

/// Blobs of one image that are fetched at the same time: this many small ones, or half as many large ones.
const CONCURRENT_BLOBS: usize = 6;
/// From which size on a blob counts as large, in bytes.
const LARGE: u64 = 4 << 20;
/// The largest configuration that is looked at for its platform. Larger ones are kept and not looked at.
const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// How a puller behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullOptions {
    /// Name images on behalf of a person ([`Lease::commit_by_hand`]): what an agent looks after stays the agent's, and
    /// an image whose tag has moved stays under its digest.
    pub by_hand: bool,
    /// How often to try again, with growing pauses and as `Retry-After` asks, what may pass by itself. None: the
    /// caller does. Each try goes on from what the last one left.
    pub retries: usize,
}

/// [`PullOptions::retries`] for a person who waits: half a minute of pauses.
pub const RETRIES: usize = 5;

/// Pulls images into one store. Clones share what they have learnt of the registries.
#[derive(Clone)]
pub struct Puller {
    store: Store,
    registry: Registry,
    options: PullOptions,
    to_annex: bool,
    to_be_read: bool,
    admission: Option<Arc<dyn Admission>>,
    helpers: Arc<Helpers>,
}

/// An image that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The digest that the name stands for: the image index's where there is one, the manifest's otherwise.
    pub digest: Digest,
    /// Bytes in all: manifest, configuration and layers, each counted once.
    pub size: u64,
    /// Whether the store had all of it under this name before.
    pub up_to_date: bool,
}

impl Puller {
    /// A puller that reads with `registry` and writes to `store`.
    #[must_use]
    pub fn new(store: Store, registry: Registry) -> Self {
        Self {
            store,
            registry,
            options: PullOptions::default(),
            to_annex: false,
            to_be_read: false,
            admission: None,
            helpers: Arc::default(),
        }
    }

    /// The same with other options.
    #[must_use]
    pub fn with_options(self, options: PullOptions) -> Self {
        Self { options, ..self }
    }

    /// The same for an image that the node's runtime is given meanwhile: its layers go to the store's annex at once, where
    /// that takes them so ([`Lease::ingest_to_annex`]).
    #[must_use]
    pub fn to_annex(self, to_annex: bool) -> Self {
        Self { to_annex, ..self }
    }

    /// The same for an image whose layers are to be read from the store, as those of a person's always are: a layer that the
    /// store's annex has and does not give back is fetched all the same.
    #[must_use]
    pub fn to_be_read(self, to_be_read: bool) -> Self {
        Self { to_be_read, ..self }
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
        retry::patiently(self.options.retries, || self.pull_once(key, claim, progress)).await
    }

    /// Fetches an image for every platform that its index names, one entry in the store each. One without an index is
    /// stored for the platform that its configuration names.
    ///
    /// `progress` gives the progress of each image; all are resolved from the same index.
    ///
    /// # Errors
    /// [`PullError`]. Images that came before the one that failed are in the store.
    pub async fn pull_all_platforms(
        &self,
        name: &ImageName,
        claim: impl Fn(&ImageKey) -> Claim,
        progress: impl Fn(&ImageKey) -> Arc<Progress>,
    ) -> Result<Vec<(ImageKey, Pulled)>, PullError> {
        let fetch = || async { Ok(self.registry.manifest(name, None).await?) };
        let named = retry::patiently(self.options.retries, fetch).await?;
        let unusable = |source| RegistryError::Manifest { what: name.to_string(), source };
        let platforms =
            match Document::parse(named.content_type.as_deref(), &named.bytes).map_err(unusable)? {
                Document::Index(index) => resolve::platforms(&index),
                Document::Manifest(manifest) => vec![self.platform_of(name, &manifest).await?],
            };
        let mut pulled = Vec::new();
        for platform in platforms {
            let key = ImageKey { name: name.clone(), platform };
            let (claim, progress) = (claim(&key), progress(&key));
            let once = || self.pull_named(&key, claim, &progress, Some(named.clone()));
            let image = retry::patiently(self.options.retries, once).await?;
            pulled.push((key, image));
        }
        if pulled.is_empty() {
            let source = larder_oci::platform::NoMatch { wanted: Platform::host(), available: Vec::new() };
            return Err(RegistryError::NoMatch { what: name.to_string(), source }.into());
        }
        Ok(pulled)
    }

    fn is_to_be_read(&self) -> bool {
        self.to_be_read || self.options.by_hand
    }

    async fn pull_once(
        &self,
        key: &ImageKey,
        claim: Claim,
        progress: &Arc<Progress>,
    ) -> Result<Pulled, PullError> {
        if let Some(pulled) = self.nothing_to_do(key, claim).await? {
            progress.start(pulled.size);
            progress.add(pulled.size);
            return Ok(pulled);
        }
        self.pull_named(key, claim, progress, None).await
    }

    /// The image, where the store has all of it and the name still stands for it. That takes one request without a
    /// body, and none for a name with a digest.
    async fn nothing_to_do(&self, key: &ImageKey, claim: Claim) -> Result<Option<Pulled>, PullError> {
        let (store, wanted) = (self.store.clone(), key.clone());
        let stored = blocking(move || {
            let Some(image) = store.image(&wanted)? else { return Ok(None) };
            let size = if store.is_complete(&image)? { Some(store.image_size(&image)?) } else { None };
            Ok(size.map(|size| (image, size)))
        });
        let Some((image, size)) = stored.await? else { return Ok(None) };
        let unchanged = match key.name.digest() {
            Some(digest) => *digest == image.target,
            None => self.registry.head_manifest(&key.name).await?.digest == image.target,
        };
        if !unchanged {
            return Ok(None);
        }
        if image.claim != claim && !self.options.by_hand {
            let (store, key) = (self.store.clone(), key.clone());
            blocking(move || Ok(store.set_claim(&[key], claim)?)).await?;
        }
        Ok(Some(Pulled { digest: image.target, size, up_to_date: true }))
    }

    /// Pulls an image; `named` is what its name stands for, where that is known already.
    async fn pull_named(
        &self,
        key: &ImageKey,
        claim: Claim,
        progress: &Arc<Progress>,
        named: Option<RawManifest>,
    ) -> Result<Pulled, PullError> {
        let (before, lease) = {
            let (store, key) = (self.store.clone(), key.clone());
            let prepare = move || Ok((store.image(&key)?, Arc::new(store.lease(&key)?)));
            blocking(prepare).await?
        };
        let resolved = self.resolve(key, &lease, named).await?;
        self.admit(key, &lease, &resolved).await?;
        let blobs = resolve::distinct_blobs(&resolved)?;
        // A manifest may claim any sizes. What is not true of them is found when the blobs come.
        let size = blobs.iter().fold(resolved.manifest.size(), |sum, (_, size)| sum.saturating_add(*size));
        progress.start(size);
        self.store_manifests(&lease, &resolved, &blobs).await?;
        progress.add(resolved.manifest.size());
        let brought = self.fetch_blobs(key, &lease, &resolved, &blobs, progress).await?;

        let digest = resolve::digest_of(resolved.target())?;
        let same_name = before.as_ref().is_some_and(|image| image.target == digest);
        let image = NewImage {
            manifest: resolved.manifest,
            index: resolved.index.map(|(descriptor, _)| descriptor),
            claim,
        };
        let by_hand = self.options.by_hand;
        blocking(move || {
            if by_hand {
                lease.commit_by_hand(image)?;
            } else {
                lease.commit(image)?;
            }
            Ok(())
        })
        .await?;
        Ok(Pulled { digest, size, up_to_date: same_name && !brought })
    }

    /// Fetches configuration and layers. Says whether the store lacked any of them.
    async fn fetch_blobs(
        &self,
        key: &ImageKey,
        lease: &Arc<Lease>,
        resolved: &Resolved,
        blobs: &[(Digest, u64)],
        progress: &Arc<Progress>,
    ) -> Result<bool, PullError> {
        let (config, layers) = blobs.split_first().ok_or(PullError::Interrupted)?;
        progress.announce(layers);
        let slots = Semaphore::new(CONCURRENT_BLOBS);
        let turns = Turns::default();
        let fetch = |(digest, size): (Digest, u64), is_layer| Fetch {
            turn: (self.to_annex && is_layer && size >= LARGE).then(|| turns.join()),
            puller: self,
            name: &key.name,
            lease: lease.clone(),
            digest,
            size,
            is_layer,
            progress: progress.clone(),
            slots: &slots,
        };
        let mut brought = fetch(config.clone(), false).run().await?;
        self.check_platform(key, resolved).await?;
        progress.resolved(&resolved.manifest, resolved.index.as_ref().map(|(index, _)| index));
        // Of many layers, not all are begun: each costs an open file and a lock.
        let mut layers = stream::iter(layers.to_vec())
            .map(|layer| fetch(layer, true).run())
            .buffer_unordered(CONCURRENT_BLOBS * 2);
        while let Some(one) = layers.try_next().await? {
            brought |= one;
        }
        Ok(brought)
    }

    /// Protects everything the image is made of, then writes its manifests.
    async fn store_manifests(
        &self,
        lease: &Arc<Lease>,
        resolved: &Resolved,
        blobs: &[(Digest, u64)],
    ) -> Result<(), PullError> {
        let mut manifests = vec![(resolve::digest_of(&resolved.manifest)?, resolved.bytes.clone())];
        if let Some((_, raw)) = &resolved.index {
            manifests.push((raw.digest.clone(), raw.bytes.clone()));
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
        let (store, digest) = (self.store.clone(), resolve::digest_of(config)?);
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

    /// What an image without an index was made for. An artifact was made for nothing in particular.
    async fn platform_of(
        &self,
        name: &ImageName,
        manifest: &spec::ImageManifest,
    ) -> Result<Platform, PullError> {
        let config = manifest.config();
        if config.size() > MAX_CONFIG_SIZE {
            return Ok(Platform::host());
        }
        let digest = resolve::digest_of(config)?;
        let chunks = self.registry.blob(name, &digest, config.size(), 0).await?;
        let bytes = chunks.try_fold(Vec::new(), |mut bytes, chunk| async move {
            bytes.extend_from_slice(&chunk);
            Ok(bytes)
        });
        Ok(Platform::of_config(&bytes.await?).unwrap_or_else(Platform::host))
    }
}

/// Runs disk work off the async threads. The work goes on if the caller is dropped; nothing depends on it then.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    spawn_blocking(work).await.map_err(|_| PullError::Interrupted)?
}
