//! Images that a `manifest.json` lists: docker's archives, old and new.
//!
//! They have no manifests with digests, so one is made for each image, always the same from the same content. Layers
//! that are plain tars are stored as they are. Compressed ones are too if registries have a media type for them;
//! other compressions are taken off. Either way what is unpacked must have the digest that the configuration says
//! (`rootfs.diff_ids`).

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use larder_oci::{
    Digest, Hasher, ImageName,
    digest::Algorithm,
    manifest::{MAX_MANIFEST_SIZE, OCI_MANIFEST},
    spec::Descriptor,
};
use larder_store::{Lease, Store};
use serde::{Deserialize, Serialize};

use super::{LoadOptions, Stop, image::Candidate, receive::Received};
use crate::{
    ArchiveError, Result,
    compression::{Packed, is_bomb, take_start},
};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const BUFFER: usize = 1 << 20;

/// One image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<Digest>>,
}

/// The manifest that is made. The order of its fields is part of its digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: &'a Part,
    layers: &'a [Part],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: &'static str,
    digest: Digest,
    size: u64,
}

fn items(manifest: &[u8]) -> Result<Vec<Item>> {
    let items: Option<Vec<Item>> = serde_json::from_slice(manifest)
        .map_err(|error| ArchiveError::invalid(format!("its manifest.json is malformed: {error}")))?;
    Ok(items.unwrap_or_default())
}

fn names(item: &Item) -> Result<Vec<ImageName>> {
    let tags = item.repo_tags.iter().flatten();
    tags.map(|text| text.parse().map_err(ArchiveError::Name)).collect()
}

/// All images that `manifest.json` lists, each under each of its names, complete and checked.
pub(super) fn images(
    store: &Store,
    lease: &Lease,
    manifest: &[u8],
    received: &Received,
    options: &LoadOptions,
    stop: Stop<'_>,
) -> Result<Vec<Candidate>> {
    let wanted = options.platform();
    let maker = Maker { store, lease, received, stop };
    let (mut images, mut passed) = (Vec::new(), Vec::new());
    for item in options.narrow(items(manifest)?, |item| names(item).unwrap_or_default()) {
        let made = maker.make(&item)?;
        let image = Candidate::new(store, lease, made, None, None, None)?;
        if wanted.is_some_and(|wanted| !wanted.runs(&image.platform)) {
            passed.push(image.platform.to_string());
            continue;
        }
        let names = names(&item)?;
        if names.is_empty() {
            images.push(image.clone());
        }
        images.extend(names.into_iter().map(|name| image.named(name)));
    }
    match (images.is_empty(), wanted) {
        (false, _) => Ok(images),
        (true, Some(wanted)) if !passed.is_empty() => {
            Err(ArchiveError::NoPlatform { wanted: wanted.clone(), available: passed.join(", ") })
        }
        (true, _) => Err(ArchiveError::invalid("its manifest.json lists no image")),
    }
}

/// Gives images that `index.json` leaves without a name those that `manifest.json` beside it has for them.
pub(super) fn name_the_nameless(
    images: &mut Vec<Candidate>,
    manifest: &[u8],
    received: &Received,
) -> Result<()> {
    let mut known: BTreeMap<Digest, Vec<ImageName>> = BTreeMap::new();
    for item in items(manifest)? {
        if let Some(id) = received.find(&item.config) {
            // What has no usable name in index.json may have an unusable one here too.
            let names = item.repo_tags.iter().flatten().filter_map(|text| text.parse().ok());
            known.entry(id).or_default().extend(names);
        }
    }
    let named = std::mem::take(images).into_iter().flat_map(|image| {
        let names = if image.name.is_none() { known.get(&image.id).cloned() } else { None };
        match names.filter(|names| !names.is_empty()) {
            None => vec![image],
            Some(names) => names.into_iter().map(|name| image.named(name)).collect(),
        }
    });
    *images = named.collect();
    Ok(())
}

struct Maker<'a> {
    store: &'a Store,
    lease: &'a Lease,
    received: &'a Received,
    stop: Stop<'a>,
}

impl Maker<'_> {
    /// Makes the manifest of an image, puts it into the store and describes it.
    fn make(&self, item: &Item) -> Result<Descriptor> {
        let config = self.find(&item.config)?;
        let bytes = self.store.read_blob(&config, MAX_MANIFEST_SIZE)?;
        let parsed: Config = serde_json::from_slice(&bytes).map_err(|error| {
            ArchiveError::invalid(format!("the configuration {:?} is malformed: {error}", item.config))
        })?;
        let diff_ids = parsed.rootfs.diff_ids.unwrap_or_default();
        let paths = item.layers.as_deref().unwrap_or_default();
        if diff_ids.len() != paths.len() {
            return Err(ArchiveError::invalid(format!(
                "manifest.json lists {} layers for {:?}, which has {}",
                paths.len(),
                item.config,
                diff_ids.len()
            )));
        }
        let layers = paths
            .iter()
            .zip(&diff_ids)
            .map(|(path, diff_id)| self.layer(path, diff_id))
            .collect::<Result<Vec<_>>>()?;
        let config = Part { media_type: CONFIG, digest: config, size: bytes.len() as u64 };
        let manifest =
            Manifest { schema_version: 2, media_type: OCI_MANIFEST, config: &config, layers: &layers };
        let manifest = serde_json::to_vec(&manifest)
            .map_err(|error| ArchiveError::invalid(format!("no manifest can be made: {error}")))?;
        let digest = Digest::sha256(&manifest);
        self.lease.protect([&digest])?;
        self.store.put_blob(self.lease, &digest, &manifest)?;
        let spec: larder_oci::spec::Digest =
            digest.as_str().parse().map_err(|_| ArchiveError::invalid("unusable digest"))?;
        Ok(Descriptor::new(OCI_MANIFEST.into(), manifest.len() as u64, spec))
    }

    fn find(&self, name: &str) -> Result<Digest> {
        self.received
            .find(name)
            .ok_or_else(|| ArchiveError::invalid(format!("manifest.json names {name:?}, which is not in it")))
    }

    fn layer(&self, path: &str, diff_id: &Digest) -> Result<Part> {
        let stored = self.find(path)?;
        let mut layer = self.store.open_blob(&stored)?;
        let size = layer.size();
        let start = take_start(&mut layer).map_err(|error| layer.failed(error))?;
        let packed = Packed::of(&start);
        let media_type = match packed {
            None => LAYER,
            Some(Packed::Gzip) => LAYER_GZIP,
            Some(Packed::Zstd) => LAYER_ZSTD,
            Some(Packed::Bzip2 | Packed::Xz) => {
                let mut spool = self.lease.spool(Algorithm::Sha256)?;
                let whole = io::Cursor::new(start).chain(layer);
                self.unpack(packed, whole, (path, size), &mut |bytes| Ok(spool.write(bytes)?))?;
                let (digest, size) = spool.finish()?;
                check(path, &digest, diff_id)?;
                return Ok(Part { media_type: LAYER, digest, size });
            }
        };
        if packed.is_some() || diff_id.algorithm() != stored.algorithm() {
            let mut hasher = Hasher::new(diff_id.algorithm());
            let whole = io::Cursor::new(start).chain(layer);
            self.unpack(packed, whole, (path, size), &mut |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            check(path, &hasher.finish(), diff_id)?;
        } else {
            check(path, &stored, diff_id)?;
        }
        Ok(Part { media_type, digest: stored, size })
    }

    fn unpack(
        &self,
        packed: Option<Packed>,
        bytes: impl Read + Send,
        (path, size): (&str, u64),
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let broken = |error: io::Error| ArchiveError::invalid(format!("the layer {path:?}: {error}"));
        let mut reader: Box<dyn Read + Send + '_> = match packed {
            None => Box::new(bytes),
            Some(packed) => packed.decode(bytes).map_err(broken)?,
        };
        let mut buffer = vec![0; BUFFER];
        let mut unpacked = 0;
        loop {
            if (self.stop)() {
                return Err(ArchiveError::Interrupted);
            }
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    unpacked += count as u64;
                    if packed.is_some() && is_bomb(unpacked, size) {
                        return Err(ArchiveError::Bomb { unpacked, packed: size });
                    }
                    take(&buffer[..count])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }
}

fn check(path: &str, actual: &Digest, diff_id: &Digest) -> Result<()> {
    if actual == diff_id {
        return Ok(());
    }
    Err(ArchiveError::invalid(format!(
        "the layer {path:?} has the digest {actual}, the image's configuration says {diff_id}"
    )))
}
