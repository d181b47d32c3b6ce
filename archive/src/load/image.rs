//! An image that has arrived and is complete.

use larder_oci::{
    Digest, Document, ImageKey, ImageName, ManifestError, Platform,
    manifest::MAX_MANIFEST_SIZE,
    spec::{Descriptor, ImageManifest, MediaType},
};
use larder_store::{Lease, Store};

use crate::{ArchiveError, Result};

/// An image that has arrived and is complete: each of its blobs is in the store, with the size that its descriptor
/// says, and the load's lease protects it.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// None if the archive gives it no name.
    pub(super) name: Option<ImageName>,
    pub(super) platform: Platform,
    pub(super) manifest: Descriptor,
    pub(super) index: Option<Descriptor>,
    /// The configuration's digest; an artifact's is its manifest's.
    pub(super) id: Digest,
    target: Digest,
    digests: Vec<Digest>,
}

impl Candidate {
    /// Checks that the image is all there. `described` is the platform that its descriptor says; without one, the
    /// configuration's counts, and the machine's own for what has none.
    pub(super) fn new(
        store: &Store,
        lease: &Lease,
        manifest: Descriptor,
        index: Option<Descriptor>,
        name: Option<ImageName>,
        described: Option<Platform>,
    ) -> Result<Self> {
        let digest = usable(&manifest)?;
        let target = index.as_ref().map_or(Ok(digest.clone()), usable)?;
        let label = || name.as_ref().map_or_else(|| target.to_string(), ToString::to_string);
        let Document::Manifest(document) = read_document(store, lease, &manifest, &label)? else {
            let source = ManifestError::Ambiguous("it is an index where a manifest is expected");
            return Err(ArchiveError::Manifest { digest, source });
        };
        let mut digests = vec![digest, target.clone()];
        for descriptor in std::iter::once(document.config()).chain(document.layers()) {
            digests.push(require(store, lease, descriptor, &label)?);
        }
        let config = usable(document.config())?;
        let platform = match described {
            Some(platform) => platform,
            None => config_platform(store, &document, &config)?.unwrap_or_else(Platform::host),
        };
        let id = if is_image_config(document.config().media_type()) { config } else { digests[0].clone() };
        // What a stranger wrote must be readable again from the store's index.
        let platform =
            platform.to_string().parse().map_err(|error| ArchiveError::invalid(format!("{error}")))?;
        Ok(Self { name, platform, manifest, index, id, target, digests })
    }

    /// The same image, without the index that its name stands for where it comes from.
    pub(super) fn without_index(&self) -> Option<Self> {
        let target = Digest::try_from(self.manifest.digest()).ok()?;
        Some(Self { index: None, target, ..self.clone() })
    }

    /// The same image under another name.
    pub(super) fn named(&self, name: ImageName) -> Self {
        Self { name: Some(name), ..self.clone() }
    }

    pub(super) fn key(&self) -> ImageKey {
        let name = self.name.clone().unwrap_or_else(|| ImageName::nameless(&self.target));
        ImageKey { name, platform: self.platform.clone() }
    }

    /// The digest that the name stands for.
    pub(super) fn target(&self) -> &Digest {
        &self.target
    }

    /// All its blobs.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.digests.iter()
    }
}

pub(super) fn usable(descriptor: &Descriptor) -> Result<Digest> {
    Digest::try_from(descriptor.digest()).map_err(|error| ArchiveError::invalid(error.to_string()))
}

/// Makes sure of a blob: it is in the store with this size, and stays there.
pub(super) fn require(
    store: &Store,
    lease: &Lease,
    descriptor: &Descriptor,
    image: &dyn Fn() -> String,
) -> Result<Digest> {
    let digest = usable(descriptor)?;
    lease.protect([&digest])?;
    match store.blob_size(&digest)? {
        Some(size) if size == descriptor.size() => Ok(digest),
        Some(size) => Err(ArchiveError::invalid(format!(
            "image {}: blob {digest} has {size} bytes, its descriptor says {}",
            image(),
            descriptor.size()
        ))),
        None => Err(ArchiveError::Missing { image: image(), digest }),
    }
}

/// Reads a manifest or an index.
pub(super) fn read_document(
    store: &Store,
    lease: &Lease,
    descriptor: &Descriptor,
    image: &dyn Fn() -> String,
) -> Result<Document> {
    let digest = require(store, lease, descriptor, image)?;
    let bytes = store.read_blob(&digest, MAX_MANIFEST_SIZE)?;
    Document::parse(Some(descriptor.media_type().as_ref()), &bytes)
        .map_err(|source| ArchiveError::Manifest { digest, source })
}

fn config_platform(store: &Store, manifest: &ImageManifest, config: &Digest) -> Result<Option<Platform>> {
    if manifest.config().size() > MAX_MANIFEST_SIZE || !is_image_config(manifest.config().media_type()) {
        return Ok(None);
    }
    Ok(Platform::of_config(&store.read_blob(config, MAX_MANIFEST_SIZE)?))
}

/// Whether a configuration is that of an image that runs, and not an artifact's.
pub(crate) fn is_image_config(media_type: &MediaType) -> bool {
    matches!(
        media_type.as_ref(),
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    )
}
