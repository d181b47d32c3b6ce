//! What a name stands for.

use std::sync::Arc;

use bytes::Bytes;
use larder_oci::{
    Digest, Document, ImageKey, ManifestError, Platform,
    manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST_SIZE},
    spec,
};
use larder_registry::{RawManifest, RegistryError};
use larder_store::Lease;

use crate::{PullError, Puller, blocking};

/// What a name resolved to, for one platform.
pub(crate) struct Resolved {
    /// The index that the name stands for, where there is one.
    pub index: Option<(spec::Descriptor, RawManifest)>,
    pub manifest: spec::Descriptor,
    pub bytes: Bytes,
    pub document: Box<spec::ImageManifest>,
}

impl Resolved {
    /// What the name itself stands for.
    pub fn target(&self) -> &spec::Descriptor {
        self.index.as_ref().map_or(&self.manifest, |(index, _)| index)
    }
}

impl Puller {
    /// Finds the manifest for the key's platform. Asks the registry for the name once, unless it is at hand, and for
    /// the platform's manifest only where the store does not have it.
    pub(crate) async fn resolve(
        &self,
        key: &ImageKey,
        lease: &Arc<Lease>,
        named: Option<RawManifest>,
    ) -> Result<Resolved, PullError> {
        let named = match (named, key.name.digest()) {
            (Some(named), _) => named,
            (None, Some(digest)) => self.raw_manifest(key, lease, digest).await?,
            (None, None) => self.registry.manifest(&key.name, None).await?,
        };
        let unusable = |source| RegistryError::Manifest { what: key.name.to_string(), source };
        let document = Document::parse(named.content_type.as_deref(), &named.bytes).map_err(unusable)?;
        let index = match document {
            Document::Manifest(document) => {
                let manifest = describe(&named, &document, &key.platform)?;
                return Ok(Resolved { index: None, manifest, bytes: named.bytes, document });
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
                Ok(Resolved { index: Some((index, named)), manifest, bytes: raw.bytes, document })
            }
            Document::Index(_) => {
                Err(unusable(ManifestError::Ambiguous("an index where a manifest was announced")).into())
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
                Some(size) if size <= MAX_MANIFEST_SIZE && store.is_readable(&wanted, size)? => {
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
}

/// The platforms that an index has images for, each once, in its order. Build attestations, which are listed as
/// `unknown/unknown`, are left out.
pub(crate) fn platforms(index: &spec::ImageIndex) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in index.manifests().iter().filter_map(Platform::of) {
        if platform.os() != "unknown" && !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    platforms
}

/// The configuration, then the layers, each digest once.
pub(crate) fn distinct_blobs(resolved: &Resolved) -> Result<Vec<(Digest, u64)>, PullError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut blobs: Vec<(Digest, u64)> = Vec::new();
    for descriptor in std::iter::once(resolved.document.config()).chain(resolved.document.layers()) {
        let digest = digest_of(descriptor)?;
        if seen.insert(digest.clone()) {
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

pub(crate) fn digest_of(descriptor: &spec::Descriptor) -> Result<Digest, PullError> {
    Digest::try_from(descriptor.digest()).map_err(|source| {
        RegistryError::Manifest { what: descriptor.digest().to_string(), source: source.into() }.into()
    })
}

fn oci_digest(digest: &Digest) -> Result<spec::Digest, PullError> {
    digest.as_str().parse().map_err(|_| PullError::Interrupted)
}
