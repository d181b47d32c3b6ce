//! What an archive says of itself: `index.json` and `manifest.json`.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::{
    Digest, Document, ImageName, ManifestError,
    manifest::MAX_MANIFEST_SIZE,
    spec::{Descriptor, ImageManifest},
};
use larder_store::{Store, StoreError, StoredImage};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Blob, Form, SaveImage};
use crate::{
    ArchiveError, Result,
    annotations::{CONTAINERD_NAME, INDEX_DIGEST, INDEX_MEDIA_TYPE, INDEX_SIZE, PLATFORM, REF_NAME},
    compression::{Packed, take_start},
    load::is_image_config,
};

/// <https://github.com/opencontainers/image-spec/blob/main/image-layout.md#oci-layout-file>
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image and its manifest.
pub(super) struct Listed<'a> {
    image: &'a SaveImage,
    manifest: ImageManifest,
    config: Blob,
    layers: Vec<Layer>,
}

/// A layer, and how the files of layers that are packed that way are called.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) blob: Blob,
    extension: &'static str,
}

impl Layer {
    /// Its name in a docker-archive.
    pub(super) fn file(&self) -> String {
        format!("{}.{}", self.blob.digest.hex(), self.extension)
    }
}

/// An image in `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<BTreeSet<String>>,
    layers: Vec<String>,
}

/// The name of a configuration in a docker-archive.
pub(super) fn config_file(digest: &Digest) -> String {
    format!("{}.json", digest.hex())
}

/// The name of a blob in a layout.
pub(super) fn blob_file(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm_name(), digest.hex())
}

impl<'a> Listed<'a> {
    pub(super) fn read(store: &Store, image: &'a SaveImage) -> Result<Self> {
        let digest = &image.image.manifest_digest;
        let bytes = store.read_blob(digest, MAX_MANIFEST_SIZE)?;
        let media_type = image.image.manifest.media_type().to_string();
        let refuse = |source| ArchiveError::Manifest { digest: digest.clone(), source };
        let manifest = match Document::parse(Some(&media_type), &bytes).map_err(refuse)? {
            Document::Manifest(manifest) => *manifest,
            Document::Index(_) => {
                return Err(refuse(ManifestError::Ambiguous("it is an index where a manifest is expected")));
            }
        };
        let config = blob(manifest.config())?;
        let layers = manifest
            .layers()
            .iter()
            .map(|layer| {
                let blob = blob(layer)?;
                let extension = extension(store, &blob.digest)?;
                Ok(Layer { blob, extension })
            })
            .collect::<Result<_>>()?;
        Ok(Self { image, manifest, config, layers })
    }

    /// Whether docker could make something of it.
    fn runs(&self) -> bool {
        is_image_config(self.manifest.config().media_type())
    }

    /// Configuration and layers, for a docker-archive.
    pub(super) fn docker_parts(&self) -> Result<(&Blob, &[Layer])> {
        if self.runs() {
            Ok((&self.config, &self.layers))
        } else {
            Err(ArchiveError::Artifact(self.image.image.key.name.to_string()))
        }
    }

    /// Manifest, configuration, layers, and the image index that the name stands for.
    pub(super) fn all_blobs(&self, store: &Store) -> Result<Vec<Blob>> {
        let image = &self.image.image;
        let mut blobs = vec![Blob { digest: image.manifest_digest.clone(), size: image.manifest.size() }];
        blobs.extend(image.index.as_ref().map(blob).transpose()?);
        blobs.push(self.config.clone());
        blobs.extend(self.layers.iter().map(|layer| layer.blob.clone()));
        for blob in &blobs {
            match store.blob_size(&blob.digest)? {
                Some(size) if size == blob.size => {}
                Some(_) => return Err(ArchiveError::Damaged(blob.digest.clone())),
                None => {
                    let (digest, root) = (blob.digest.clone(), store.root().to_owned());
                    return Err(StoreError::NotFound { digest, root }.into());
                }
            }
        }
        Ok(blobs)
    }
}

fn blob(descriptor: &Descriptor) -> Result<Blob> {
    let digest = Digest::try_from(descriptor.digest()).map_err(StoreError::from)?;
    Ok(Blob { digest, size: descriptor.size() })
}

/// By the content: docker goes by that too, and media types vary.
fn extension(store: &Store, layer: &Digest) -> Result<&'static str> {
    let mut layer = store.open_blob(layer)?;
    let start = take_start(&mut layer).map_err(|error| layer.failed(error))?;
    Ok(match Packed::of(&start) {
        None => "tar",
        Some(Packed::Gzip) => "tar.gz",
        Some(Packed::Bzip2) => "tar.bz2",
        Some(Packed::Xz) => "tar.xz",
        Some(Packed::Zstd) => "tar.zst",
    })
}

/// `index.json`: an entry for each name, and one for an image without.
///
/// An entry points at the manifest for the platform, as in the layer store: most tools give up on an image index of
/// which only one platform's manifest is there. The index is kept beside it, and annotations of ours say so. Several
/// platforms of one index are one entry, the index: of several entries with one name, containerd keeps the last.
pub(super) fn index(images: &[SaveImage]) -> Result<Vec<u8>> {
    let mut entries: Vec<Value> = Vec::new();
    for SaveImage { image, names } in images {
        let platforms =
            images.iter().filter(|other| other.names == *names && other.image.index == image.index);
        let whole = image.index.as_ref().filter(|_| platforms.count() > 1);
        let mut entry = serde_json::to_value(whole.unwrap_or(&image.manifest)).map_err(unserialisable)?;
        let mut annotations = if whole.is_some() { BTreeMap::new() } else { own_annotations(image) };
        let mut labels: BTreeSet<Option<&ImageName>> =
            names.iter().filter(|name| !name.is_nameless()).map(Some).collect();
        if labels.is_empty() {
            labels.insert(None);
        }
        for name in labels {
            for key in [CONTAINERD_NAME, REF_NAME] {
                name.map(|name| annotations.insert(key, name.to_string()));
            }
            entry["annotations"] = json!(annotations);
            if !entries.contains(&entry) {
                entries.push(entry.clone());
            }
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": larder_oci::manifest::OCI_INDEX,
        "manifests": entries,
    });
    serde_json::to_vec(&index).map_err(unserialisable)
}

/// What an entry for one platform says besides its name: for which, and out of which index.
fn own_annotations(image: &StoredImage) -> BTreeMap<&'static str, String> {
    let mut annotations = BTreeMap::from([(PLATFORM, image.key.platform.to_string())]);
    if let Some(index) = &image.index {
        annotations.insert(INDEX_DIGEST, index.digest().to_string());
        annotations.insert(INDEX_SIZE, index.size().to_string());
        annotations.insert(INDEX_MEDIA_TYPE, index.media_type().to_string());
    }
    annotations
}

/// `manifest.json`: one entry an image, with all its names. Artifacts are left out, as containerd does.
pub(super) fn manifest(listed: &[Listed<'_>], form: Form) -> Result<Vec<u8>> {
    let mut items: Vec<Item> = Vec::new();
    for image in listed.iter().filter(|image| image.runs()) {
        let (config, layers) = image.docker_parts()?;
        let (config, layers) = if form == Form::DockerArchive {
            (config_file(&config.digest), layers.iter().map(Layer::file).collect::<Vec<_>>())
        } else {
            let files = layers.iter().map(|layer| blob_file(&layer.blob.digest));
            (blob_file(&config.digest), files.collect())
        };
        let tags = image.image.names.iter().filter(|name| name.digest().is_none());
        let tags: BTreeSet<String> = tags.map(|name| name.familiar().to_owned()).collect();
        match items.iter_mut().find(|item| item.config == config && item.layers == layers) {
            Some(item) => item.repo_tags.get_or_insert_default().extend(tags),
            None => items.push(Item { config, repo_tags: Some(tags), layers }),
        }
    }
    for item in &mut items {
        // docker writes null where there are no names.
        item.repo_tags = item.repo_tags.take().filter(|tags| !tags.is_empty());
    }
    serde_json::to_vec(&items).map_err(unserialisable)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unserialisable(error: serde_json::Error) -> ArchiveError {
    ArchiveError::Write(error.into())
}
