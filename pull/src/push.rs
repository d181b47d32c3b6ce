//! Writing what the store has to a registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use larder_oci::{
    Digest, Document, ImageName, ManifestError,
    manifest::MAX_MANIFEST_SIZE,
    spec::{Descriptor, ImageIndex},
};
use larder_registry::{PushOptions, PushOutcome, Registry, RegistryError};
use larder_store::{Store, StoreError, StoredImage};
use tokio::task::spawn_blocking;

use crate::source::StoredBlob;

/// Blobs of one image that are sent at the same time, as docker has it.
const CONCURRENT_BLOBS: usize = 5;

/// Why an image could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry's fault.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The disk's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not have all of it.
    #[error("the store lacks parts of {0}; pull it again")]
    Incomplete(ImageName),
    /// The program is stopping.
    #[error("interrupted")]
    Interrupted,
}

/// What happens to a blob that is pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEvent {
    /// It belongs to what is pushed.
    Preparing,
    /// So many of its bytes are on their way.
    Pushing(u64),
    /// It is in the registry, and this is how it got there.
    Done(PushOutcome),
}

/// Who is told of each blob as it happens. Called from several threads, and often: it must not block.
pub trait PushObserver: Send + Sync {
    /// Something happened to a layer of `size` bytes, or to another blob.
    fn event(&self, blob: &Digest, size: u64, event: PushEvent);
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest that the name stands for in the registry.
    pub digest: Digest,
    /// The size of the manifest or index with that digest, in bytes.
    pub size: u64,
    /// Set where the name stands for a list of which the store does not have everything.
    pub partial: Option<Partial>,
}

/// What became of a list that the store does not have whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The list's digest.
    pub list: Digest,
    /// How many of its images the store has, and how many there are.
    pub present: usize,
    /// How many images the list has.
    pub total: usize,
}

/// Pushes images out of one store.
#[derive(Clone)]
pub struct Pusher {
    store: Store,
    registry: Registry,
}

/// One image that goes to the registry.
struct Part {
    digest: Digest,
    bytes: Bytes,
    media_type: String,
    blobs: Vec<(Digest, u64)>,
}

/// All that goes to the registry for one name.
struct Plan {
    parts: Vec<Part>,
    /// The list over them, where there is one.
    index: Option<(Bytes, String)>,
    partial: Option<Partial>,
}

impl Pusher {
    /// A pusher that reads `store` and writes with `registry`.
    #[must_use]
    pub fn new(store: Store, registry: Registry) -> Self {
        Self { store, registry }
    }

    /// Pushes the images of one name under `name`, which must have a tag: one for each platform that the store has.
    ///
    /// Where the name stands for a list and the store has all of its images, the list is pushed with them, its bytes
    /// unchanged. Else one image is pushed alone, and several with a list of those that are there;
    /// [`Pushed::partial`] says so.
    ///
    /// Blobs that the registry has are not sent: it is asked first, and asked to mount those that the store knows from
    /// another repository of the same registry. Where it has all of it under that name already, it is asked for no blob.
    ///
    /// # Errors
    /// [`PushError`]. What has been sent by then is not sent again by the next try.
    pub async fn push(
        &self,
        name: &ImageName,
        images: &[StoredImage],
        observer: &Arc<dyn PushObserver>,
    ) -> Result<Pushed, PushError> {
        let (store, wanted, target) = (self.store.clone(), images.to_vec(), name.clone());
        let (_lease, plan, mounts) = blocking(move || {
            let first = wanted.first().ok_or_else(|| PushError::Incomplete(target.clone()))?;
            let lease = match store.hold(first) {
                Err(StoreError::NotFound { .. }) => return Err(PushError::Incomplete(target)),
                other => other?,
            };
            let plan = plan(&store, &target, &wanted, |digests| Ok(lease.protect(digests)?))?;
            let mounts = mount_sources(&store, &target)?;
            Ok((lease, plan, mounts))
        })
        .await?;
        let mut seen = BTreeSet::new();
        let blobs = plan.parts.iter().flat_map(|part| &part.blobs).filter(|(digest, _)| seen.insert(digest));
        let blobs: Vec<(Digest, u64)> = blobs.cloned().collect();
        for (digest, size) in &blobs {
            observer.event(digest, *size, PushEvent::Preparing);
        }
        if let Some(pushed) = self.is_there(name, &plan).await {
            for (digest, size) in &blobs {
                observer.event(digest, *size, PushEvent::Done(PushOutcome::AlreadyExists));
            }
            return Ok(Pushed { partial: plan.partial, ..pushed });
        }
        stream::iter(blobs)
            .map(|(digest, size)| {
                let mount_from = mounts.get(&digest).cloned();
                self.push_blob(name, digest, size, mount_from, observer)
            })
            .buffer_unordered(CONCURRENT_BLOBS)
            .try_collect::<()>()
            .await?;
        let tag = name.tag().unwrap_or("latest");
        let alone = plan.index.is_none();
        let mut top = None;
        for part in &plan.parts {
            let reference = if alone { tag } else { part.digest.as_str() };
            let (bytes, size) = (part.bytes.clone(), part.bytes.len() as u64);
            top = Some((self.registry.put_manifest(name, reference, bytes, &part.media_type).await?, size));
        }
        if let Some((bytes, media_type)) = plan.index {
            let size = bytes.len() as u64;
            top = Some((self.registry.put_manifest(name, tag, bytes, &media_type).await?, size));
        }
        let (digest, size) = top.ok_or_else(|| PushError::Incomplete(name.clone()))?;
        Ok(Pushed { digest, size, partial: plan.partial })
    }

    /// What is to be pushed, if the registry has it under that name. That takes one request for an image, and one more for
    /// each image of a list, since some registries take lists that lack some.
    ///
    /// A registry that can't be asked will say why when it is written to.
    async fn is_there(&self, name: &ImageName, plan: &Plan) -> Option<Pushed> {
        let (digest, size) = match (&plan.index, plan.parts.as_slice()) {
            (Some((bytes, _)), _) => (Digest::sha256(bytes), bytes.len() as u64),
            (None, [part]) => (part.digest.clone(), part.bytes.len() as u64),
            (None, _) => return None,
        };
        let tag = name.tag().unwrap_or("latest");
        if self.registry.written_manifest(name, tag).await.ok().flatten()? != digest {
            return None;
        }
        for part in plan.parts.iter().filter(|part| part.digest != digest) {
            self.registry.written_manifest(name, part.digest.as_str()).await.ok().flatten()?;
        }
        Some(Pushed { digest, size, partial: None })
    }

    async fn push_blob(
        &self,
        name: &ImageName,
        digest: Digest,
        size: u64,
        mount_from: Option<String>,
        observer: &Arc<dyn PushObserver>,
    ) -> Result<(), PushError> {
        let (told, blob) = (observer.clone(), digest.clone());
        let options = PushOptions {
            mount_from,
            progress: Some(Arc::new(move |sent| told.event(&blob, size, PushEvent::Pushing(sent)))),
            ..PushOptions::default()
        };
        let source = StoredBlob { store: self.store.clone(), digest: digest.clone() };
        let outcome = self.registry.push_blob(name, &digest, size, &source, &options).await?;
        observer.event(&digest, size, PushEvent::Done(outcome));
        Ok(())
    }
}

/// Reads what is to be pushed, protecting it first.
fn plan(
    store: &Store,
    name: &ImageName,
    images: &[StoredImage],
    protect: impl Fn(&[Digest]) -> Result<(), PushError>,
) -> Result<Plan, PushError> {
    let list = images.iter().find_map(|image| {
        let index = image.index.as_ref()?;
        Some((image.target.clone(), index.clone()))
    });
    let Some((digest, descriptor)) = list else {
        let image = images.first().ok_or_else(|| PushError::Incomplete(name.clone()))?;
        let part = read_part(store, name, &image.manifest_digest, &image.manifest, &protect)?;
        return Ok(Plan { parts: vec![part], index: None, partial: None });
    };
    protect(std::slice::from_ref(&digest))?;
    let bytes = store.read_blob(&digest, MAX_MANIFEST_SIZE)?;
    let unusable = |source| RegistryError::Manifest { what: name.to_string(), source };
    let media_type = descriptor.media_type().to_string();
    let index = match Document::parse(Some(&media_type), &bytes).map_err(unusable)? {
        Document::Index(index) => index,
        Document::Manifest(_) => {
            let source = ManifestError::Ambiguous("it is a manifest where an index is expected");
            return Err(unusable(source).into());
        }
    };
    let (mut parts, mut seen) = (Vec::new(), BTreeSet::new());
    for entry in index.manifests() {
        let digest = Digest::try_from(entry.digest()).map_err(StoreError::from)?;
        if !seen.insert(digest.clone()) {
            continue;
        }
        match read_part(store, name, &digest, entry, &protect) {
            Ok(part) => parts.push(part),
            Err(PushError::Incomplete(_) | PushError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    let (present, total) = (parts.len(), seen.len());
    let partial = (present < total).then_some(Partial { list: digest, present, total });
    let index = match (present, &partial) {
        (0, _) => return Err(PushError::Incomplete(name.clone())),
        (_, None) => Some((bytes.into(), media_type)),
        (1, Some(_)) => None,
        (_, Some(_)) => Some((reduced(&index, &parts)?, media_type)),
    };
    Ok(Plan { parts, index, partial })
}

/// The list with those images alone that are there.
fn reduced(index: &ImageIndex, parts: &[Part]) -> Result<Bytes, PushError> {
    let there: BTreeSet<&str> = parts.iter().map(|part| part.digest.as_str()).collect();
    let mut index = index.clone();
    let kept = index.manifests().iter().filter(|entry| there.contains(entry.digest().as_ref()));
    let kept = kept.cloned().collect();
    index.set_manifests(kept);
    let bytes = serde_json::to_vec(&index).map_err(|_| PushError::Interrupted)?;
    Ok(bytes.into())
}

/// One image's manifest, and its blobs, which must all be there.
fn read_part(
    store: &Store,
    name: &ImageName,
    digest: &Digest,
    descriptor: &Descriptor,
    protect: &impl Fn(&[Digest]) -> Result<(), PushError>,
) -> Result<Part, PushError> {
    protect(std::slice::from_ref(digest))?;
    let bytes = store.read_blob(digest, MAX_MANIFEST_SIZE)?;
    let media_type = descriptor.media_type().to_string();
    let unusable = |source| RegistryError::Manifest { what: format!("{digest} of {name}"), source };
    let document = Document::parse(Some(&media_type), &bytes).map_err(unusable)?;
    if !matches!(document, Document::Manifest(_)) {
        // Lists within lists: nobody makes them, and the store has none.
        return Err(PushError::Incomplete(name.clone()));
    }
    let blob = |descriptor: &Descriptor| {
        Ok((Digest::try_from(descriptor.digest()).map_err(StoreError::from)?, descriptor.size()))
    };
    let blobs = document.descriptors().map(blob).collect::<Result<Vec<_>, PushError>>()?;
    let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| digest.clone()).collect();
    protect(&digests)?;
    for (digest, size) in &blobs {
        if store.blob_size(digest)? != Some(*size) {
            return Err(PushError::Incomplete(name.clone()));
        }
    }
    Ok(Part { digest: digest.clone(), bytes: bytes.into(), media_type, blobs })
}

/// For each blob, another repository of the same registry that has it, as far as the store knows.
fn mount_sources(store: &Store, target: &ImageName) -> Result<BTreeMap<Digest, String>, PushError> {
    let mut sources = BTreeMap::new();
    for image in store.images()? {
        let name = &image.key.name;
        if name.registry() == target.registry() && name.repository() != target.repository() {
            // An image that can't be read is no source.
            for digest in store.image_blobs(&image).unwrap_or_default().into_keys() {
                sources.entry(digest).or_insert_with(|| name.repository().to_owned());
            }
        }
    }
    Ok(sources)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PushError> + Send + 'static,
) -> Result<T, PushError> {
    spawn_blocking(work).await.map_err(|_| PushError::Interrupted)?
}
