//! Images: names for what the blobs are.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::{
    Digest, Document, ImageKey, InvalidDigest, ManifestError, Platform,
    manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST_SIZE, OCI_INDEX, OCI_MANIFEST},
    spec::{Descriptor, PlatformBuilder},
};

use crate::{
    Lease, Store,
    error::{Result, StoreError},
    index::Index,
    layout::sync_dir,
    lock::ExclusiveLock,
};

/// Who looks after an image in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Claim {
    /// Nobody but the person who put it there with the command line: the agent never removes it, unless a rule names it.
    #[default]
    None,
    /// The agent, which removes it once it is not wanted any more.
    Delete,
    /// The agent, which leaves it where it is once it is not wanted any more.
    Retain,
}

impl Claim {
    pub(crate) fn annotation(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Delete => Some("delete"),
            Self::Retain => Some("retain"),
        }
    }

    /// A value that is not known counts as `Retain`: it says that someone manages the image, and not that it may go.
    pub(crate) fn from_annotation(text: &str) -> Self {
        if text == "delete" { Self::Delete } else { Self::Retain }
    }
}

/// An image to be named in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImage {
    /// The manifest for the platform. Of the descriptor, media type, digest, size and platform are kept; its
    /// annotations are not, since they are a stranger's and might pose as ours.
    pub manifest: Descriptor,
    /// The image index that the name stands for, if it stands for one.
    pub index: Option<Descriptor>,
    /// Who is to look after the image.
    pub claim: Claim,
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// Its name and platform.
    pub key: ImageKey,
    /// The manifest for the platform: media type, digest, size and the platform it was made for.
    pub manifest: Descriptor,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// The image index that the name stands for, if it stands for one.
    pub index: Option<Descriptor>,
    /// The digest that the name stands for: the index's if there is one, else the manifest's. It is what a registry
    /// answers for the name and what docker calls `RepoDigest`.
    pub target: Digest,
    /// Who looks after the image.
    pub claim: Claim,
    /// Whether its name is a further one that the agent has given it ([`Store::tag_for_agent`]): nobody has looked up what
    /// a registry means by it.
    pub further: bool,
}

impl StoredImage {
    pub(crate) fn new(
        key: ImageKey,
        manifest: &Descriptor,
        index: Option<&Descriptor>,
        claim: Claim,
    ) -> std::result::Result<Self, InvalidDigest> {
        let manifest_digest = Digest::try_from(manifest.digest())?;
        let target = index.map_or(Ok(manifest_digest.clone()), |index| Digest::try_from(index.digest()))?;
        let mut kept = plain(manifest);
        // Of a stranger's platform only what fits the grammar, and its length, goes into the index.
        let platform =
            Platform::of(manifest).filter(|platform| platform.to_string().parse::<Platform>().is_ok());
        kept.set_platform(spec_platform(platform.as_ref().unwrap_or(&key.platform)));
        let index = index.map(plain);
        Ok(Self { key, manifest: kept, manifest_digest, index, target, claim, further: false })
    }
}

impl StoredImage {
    /// Whether the two names stand for the same image.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        (&self.target, &self.manifest_digest) == (&other.target, &other.manifest_digest)
    }
}

/// Media type, digest and size alone.
fn plain(descriptor: &Descriptor) -> Descriptor {
    Descriptor::new(descriptor.media_type().clone(), descriptor.size(), descriptor.digest().clone())
}

fn spec_platform(platform: &Platform) -> Option<larder_oci::spec::Platform> {
    let builder = PlatformBuilder::default().os(platform.os()).architecture(platform.architecture());
    let builder = match platform.variant() {
        Some(variant) => builder.variant(variant),
        None => builder,
    };
    builder.build().ok()
}

impl Store {
    /// All images, in the order in which they were committed. Takes no lock and waits for nobody.
    pub fn images(&self) -> Result<Vec<StoredImage>> {
        Ok(Index::read(&self.layout)?.images().collect())
    }

    /// One image, if it is there.
    pub fn image(&self, key: &ImageKey) -> Result<Option<StoredImage>> {
        Ok(Index::read(&self.layout)?.images().find(|image| image.key == *key))
    }

    /// The blobs that an image is made of, each once, with their sizes in bytes: its manifest, its configuration and
    /// its layers. (An index that the name stands for is not among them.)
    pub fn image_blobs(&self, image: &StoredImage) -> Result<BTreeMap<Digest, u64>> {
        self.manifest_blobs(&image.manifest_digest, &image.manifest)
    }

    fn manifest_blobs(&self, digest: &Digest, manifest: &Descriptor) -> Result<BTreeMap<Digest, u64>> {
        let document = self.read_document(digest, manifest)?;
        if !matches!(document, Document::Manifest(_)) {
            let source = ManifestError::Ambiguous("it is an index where a manifest is expected");
            return Err(StoreError::Manifest { digest: digest.clone(), source });
        }
        let mut blobs = BTreeMap::from([(digest.clone(), manifest.size())]);
        for descriptor in document.descriptors() {
            let digest = Digest::try_from(descriptor.digest())?;
            let size = *blobs.entry(digest.clone()).or_insert(descriptor.size());
            if size != descriptor.size() {
                return Err(StoreError::SizeMismatch { digest, expected: descriptor.size(), actual: size });
            }
        }
        Ok(blobs)
    }

    fn read_document(&self, digest: &Digest, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self.read_blob(digest, MAX_MANIFEST_SIZE)?;
        Document::parse(Some(descriptor.media_type().as_ref()), &bytes)
            .map_err(|source| StoreError::Manifest { digest: digest.clone(), source })
    }

    /// Whether all of an image's blobs are there, index included, each with its right size. The manifest is read and
    /// checked against its digest; the other blobs are only looked at ([`Store::check_blob`] reads them). What was handed
    /// over counts: whether the annex still has it, the annex knows.
    pub fn is_complete(&self, image: &StoredImage) -> Result<bool> {
        let blobs = match self.image_blobs(image) {
            Ok(blobs) => blobs,
            Err(
                StoreError::NotFound { .. }
                | StoreError::Corrupt { .. }
                | StoreError::Lost { .. }
                | StoreError::SizeMismatch { .. }
                | StoreError::Manifest { .. }
                | StoreError::TooLarge { .. },
            ) => return Ok(false),
            Err(error) => return Err(error),
        };
        let index = image.index.as_ref().map(|index| (&image.target, index.size()));
        for (digest, size) in blobs.iter().map(|(digest, size)| (digest, *size)).chain(index) {
            if self.blob_size(digest)? != Some(size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What an image takes, in bytes: its manifest, configuration and layers, each blob counted once.
    pub fn image_size(&self, image: &StoredImage) -> Result<u64> {
        Ok(self.image_blobs(image)?.values().fold(0, |sum, size| sum.saturating_add(*size)))
    }

    /// Takes an image's name away; its blobs go with the next collection unless something else needs them. False if
    /// there is no such image.
    pub fn remove(&self, key: &ImageKey) -> Result<bool> {
        let lock = ExclusiveLock::take(&self.layout)?;
        let mut index = Index::read(&self.layout)?;
        let removed = index.remove(key);
        if removed {
            index.write(&self.layout, &lock)?;
        }
        Ok(removed)
    }

    /// Changes who looks after some images; those that are not there are passed over. False if nothing changed, and
    /// then nothing is written.
    pub fn set_claim(&self, keys: &[ImageKey], claim: Claim) -> Result<bool> {
        let lock = ExclusiveLock::take(&self.layout)?;
        let mut index = Index::read(&self.layout)?;
        let mut changed = false;
        for key in keys {
            changed |= index.set_claim(key, claim)?;
        }
        if changed {
            index.write(&self.layout, &lock)?;
        }
        Ok(changed)
    }
}

impl Lease {
    /// Names an image, in the place of the one that had the lease's key before, if any.
    ///
    /// Checks first that all its blobs are there with the sizes that their descriptors say, and protects them. When
    /// this returns, a power cut takes nothing of the image away any more, and the lease has served its purpose: it
    /// goes when it is dropped.
    pub fn commit(&self, image: NewImage) -> Result<()> {
        let stored = self.make_ready(image)?;
        {
            let lock = ExclusiveLock::take(&self.store().layout)?;
            let mut index = Index::read(&self.store().layout)?;
            if index.put(stored)? {
                index.write(&self.store().layout, &lock)?;
            }
        }
        self.served();
        Ok(())
    }

    /// Checks that all of an image's blobs are there, and makes them durable.
    pub(crate) fn make_ready(&self, image: NewImage) -> Result<StoredImage> {
        let NewImage { manifest, index, claim } = image;
        let store = self.store();
        let manifest_digest = usable(&manifest, [OCI_MANIFEST, DOCKER_MANIFEST])?;
        let index_digest = index.as_ref().map(|index| usable(index, [OCI_INDEX, DOCKER_LIST])).transpose()?;
        self.protect([&manifest_digest].into_iter().chain(&index_digest))?;

        let mut blobs = store.manifest_blobs(&manifest_digest, &manifest)?;
        if let (Some(digest), Some(index)) = (&index_digest, &index) {
            if !matches!(store.read_document(digest, index)?, Document::Index(_)) {
                let source = ManifestError::Ambiguous("it is a manifest where an index is expected");
                return Err(StoreError::Manifest { digest: digest.clone(), source });
            }
            blobs.insert(digest.clone(), index.size());
        }
        self.protect(blobs.keys())?;
        let mut handed_over = Vec::new();
        for (digest, size) in &blobs {
            store.expect_blob(digest, *size)?;
            if store.file_size(digest)?.is_none() {
                handed_over.push(digest);
            }
        }
        store.sync_blob_folders(blobs.keys())?;
        store.sync_markers(handed_over.into_iter())?;

        Ok(StoredImage::new(self.key().clone(), &manifest, index.as_ref(), claim)?)
    }
}

impl Store {
    fn expect_blob(&self, digest: &Digest, expected: u64) -> Result<()> {
        match self.blob_size(digest)? {
            Some(actual) if actual == expected => Ok(()),
            Some(actual) => Err(StoreError::SizeMismatch { digest: digest.clone(), expected, actual }),
            None => Err(self.not_found(digest)),
        }
    }

    /// Makes the names of blobs durable; their contents are since they were written.
    pub(crate) fn sync_blob_folders<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Result<()> {
        let folders: BTreeSet<_> = digests.map(|digest| self.layout.blob_folder(digest)).collect();
        for folder in &folders {
            // It need not exist: all that would be in it may have been handed over.
            if folder.exists() {
                sync_dir(folder)?;
            }
        }
        sync_dir(&self.layout.blobs())
    }
}

/// The digest of a descriptor with one of the media types.
fn usable(descriptor: &Descriptor, media_types: [&str; 2]) -> Result<Digest> {
    let digest = Digest::try_from(descriptor.digest())?;
    let media_type = descriptor.media_type().as_ref();
    if !media_types.contains(&media_type) {
        let source = ManifestError::UnsupportedMediaType(media_type.chars().take(100).collect());
        return Err(StoreError::Manifest { digest, source });
    }
    Ok(digest)
}
