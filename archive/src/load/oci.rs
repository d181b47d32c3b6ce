//! Images that an `index.json` lists.

use std::collections::BTreeSet;

use larder_oci::{
    Digest, Document, ImageName, ManifestError, Platform,
    manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST},
    spec::{Descriptor, ImageIndex},
};
use larder_store::{Lease, Store};
use serde::Deserialize;

use super::{
    LoadOptions,
    image::{Candidate, read_document, usable},
};
use crate::{
    ArchiveError, Result,
    annotations::{CONTAINERD_NAME, INDEX_DIGEST, INDEX_MEDIA_TYPE, INDEX_SIZE, PLATFORM, REF_NAME},
};

/// How deep indexes may lie within each other.
const MAX_DEPTH: u32 = 4;
/// How many manifests and indexes are looked at.
const MAX_DOCUMENTS: u32 = 10_000;

/// `index.json`. Go programs write an empty list as null.
#[derive(Deserialize)]
struct LayoutIndex {
    manifests: Option<Vec<Descriptor>>,
}

/// The descriptors in `index.json`.
pub(super) fn descriptors(index: &[u8]) -> Result<Vec<Descriptor>> {
    let parsed: LayoutIndex = serde_json::from_slice(index)
        .map_err(|error| ArchiveError::invalid(format!("its index.json is malformed: {error}")))?;
    Ok(parsed.manifests.unwrap_or_default())
}

pub(super) fn is_manifest(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type().as_ref(), OCI_MANIFEST | DOCKER_MANIFEST)
}

pub(super) fn is_index(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type().as_ref(), OCI_INDEX | DOCKER_LIST)
}

/// All images that the index lists, complete and checked. Of an image index, those for which everything is there:
/// most archives hold one platform of many.
pub(super) fn images(
    store: &Store,
    lease: &Lease,
    index: &[u8],
    options: &LoadOptions,
) -> Result<Vec<Candidate>> {
    let wanted = options.platform();
    let mut walk = Walk { store, lease, wanted, found: Vec::new(), passed: BTreeSet::new(), documents: 0 };
    let listed = options.narrow(descriptors(index)?, |descriptor| name(descriptor).into_iter().collect());
    for descriptor in listed {
        let name = name(&descriptor);
        if is_manifest(&descriptor) {
            let index = walk.original_index(&descriptor)?;
            let described = annotation(&descriptor, PLATFORM)
                .and_then(|text| text.parse().ok())
                .or_else(|| Platform::of(&descriptor));
            let candidate = Candidate::new(store, lease, descriptor, index, name.clone(), described)?;
            walk.take(candidate)?;
        } else if is_index(&descriptor) {
            let before = walk.found.len() + walk.passed.len();
            let lacking = walk.index(&descriptor, name.as_ref(), 1)?;
            if let (Some(lacking), true) = (lacking, walk.found.len() + walk.passed.len() == before) {
                return Err(lacking);
            }
        }
        // Anything else is not ours to understand: the specification has readers pass over it.
    }
    match (walk.found.is_empty(), wanted) {
        (false, _) => Ok(walk.found),
        (true, Some(wanted)) if !walk.passed.is_empty() => {
            let available = walk.passed.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
            Err(ArchiveError::NoPlatform { wanted: wanted.clone(), available })
        }
        (true, _) => Err(ArchiveError::invalid("its index.json lists no image")),
    }
}

struct Walk<'a> {
    store: &'a Store,
    lease: &'a Lease,
    wanted: Option<&'a Platform>,
    found: Vec<Candidate>,
    /// The platforms of images that were not wanted.
    passed: BTreeSet<String>,
    documents: u32,
}

impl Walk<'_> {
    /// Takes what an image index holds; returns why one of its images was left out, if one was.
    fn index(
        &mut self,
        descriptor: &Descriptor,
        name: Option<&ImageName>,
        depth: u32,
    ) -> Result<Option<ArchiveError>> {
        if depth > MAX_DEPTH {
            return Err(ArchiveError::invalid(format!("indexes within indexes, more than {MAX_DEPTH} deep")));
        }
        let label = || name.map_or_else(|| descriptor.digest().to_string(), ToString::to_string);
        let index = self.read_index(descriptor, &label)?;
        let only = self.wanted.and_then(|wanted| wanted.select(&index).ok()).map(Descriptor::digest);
        let mut lacking = None;
        for entry in index.manifests() {
            self.documents += 1;
            if self.documents > MAX_DOCUMENTS {
                return Err(ArchiveError::invalid(format!("it lists more than {MAX_DOCUMENTS} manifests")));
            }
            let digest = usable(entry)?;
            self.lease.protect([&digest])?;
            if self.store.blob_size(&digest)?.is_none() {
                lacking = lacking.or(Some(ArchiveError::Missing { image: label(), digest }));
            } else if is_index(entry) {
                lacking = self.index(entry, name, depth + 1)?.or(lacking);
            } else if is_manifest(entry) && !is_attestation(entry) {
                let described = Platform::of(entry);
                if only.is_some_and(|only| only != entry.digest()) {
                    self.passed.extend(described.map(|platform| platform.to_string()));
                    continue;
                }
                // Of indexes within indexes, the one that lists it: that is what can be checked again later.
                let index = Some(descriptor.clone());
                match Candidate::new(self.store, self.lease, entry.clone(), index, name.cloned(), described) {
                    Ok(candidate) => self.take(candidate)?,
                    Err(error @ ArchiveError::Missing { .. }) => lacking = lacking.or(Some(error)),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(lacking)
    }

    fn read_index(&self, descriptor: &Descriptor, label: &dyn Fn() -> String) -> Result<ImageIndex> {
        match read_document(self.store, self.lease, descriptor, label)? {
            Document::Index(index) => Ok(*index),
            Document::Manifest(_) => {
                let source = ManifestError::Ambiguous("it is a manifest where an index is expected");
                Err(ArchiveError::Manifest { digest: usable(descriptor)?, source })
            }
        }
    }

    fn take(&mut self, candidate: Candidate) -> Result<()> {
        if let Some(pinned) = candidate.name.as_ref().and_then(ImageName::digest)
            && pinned != candidate.target()
            && Ok(pinned) != Digest::try_from(candidate.manifest.digest()).as_ref()
        {
            return Err(ArchiveError::invalid(format!(
                "an image is named by the digest {pinned} and has {}",
                candidate.target()
            )));
        }
        if self.wanted.is_none_or(|wanted| wanted.runs(&candidate.platform)) {
            self.found.push(candidate);
        } else {
            self.passed.insert(candidate.platform.to_string());
        }
        Ok(())
    }

    /// The image index that the name stood for where the image was saved. It counts if it is there and does list
    /// the manifest.
    fn original_index(&self, manifest: &Descriptor) -> Result<Option<Descriptor>> {
        let described = || {
            let digest: larder_oci::spec::Digest = annotation(manifest, INDEX_DIGEST)?.parse().ok()?;
            let size = annotation(manifest, INDEX_SIZE)?.parse().ok()?;
            Some(Descriptor::new(annotation(manifest, INDEX_MEDIA_TYPE)?.into(), size, digest))
        };
        let Some(index) = described().filter(is_index) else { return Ok(None) };
        let digest = usable(&index)?;
        self.lease.protect([&digest])?;
        if self.store.blob_size(&digest)? != Some(index.size()) {
            return Ok(None);
        }
        let lists = self.read_index(&index, &|| digest.to_string())?;
        let listed = lists.manifests().iter().any(|entry| entry.digest() == manifest.digest());
        Ok(listed.then_some(index))
    }
}

/// `BuildKit` lists what it knows of an image's making beside the image.
fn is_attestation(descriptor: &Descriptor) -> bool {
    annotation(descriptor, "vnd.docker.reference.type").is_some()
        || Platform::of(descriptor).is_some_and(|platform| platform.os() == "unknown")
}

fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}

/// The image's name: containerd's annotation, or the reference name if it is more than a tag. (A lone word may be a
/// tag or a repository; the specification leaves it open, and a wrong guess would give a name to the wrong image.)
/// The specification leaves the form open too: a text that is no image name, such as a path of regclient's, is none.
fn name(descriptor: &Descriptor) -> Option<ImageName> {
    let named = |key| annotation(descriptor, key).filter(|text| text.contains(['/', ':', '@']))?.parse().ok();
    named(CONTAINERD_NAME).or_else(|| named(REF_NAME)).filter(|name: &ImageName| !name.is_nameless())
}
