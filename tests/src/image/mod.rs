//! Real images, out of this machine's files or out of a few bytes.

mod layer;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use larder_oci::Digest;
use serde_json::{Map, Value, json};

pub use layer::{Layer, MachineFiles};

use crate::{Error, Result, Scratch};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Content, and what a descriptor says of it.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Its media type.
    pub media_type: String,
    /// Its digest, SHA-256.
    pub digest: Digest,
    /// The content.
    pub bytes: Bytes,
}

impl Blob {
    /// Content of some media type.
    #[must_use]
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { media_type: media_type.to_owned(), digest: Digest::sha256(&bytes), bytes }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Its descriptor.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest.as_str(), "size": self.size()})
    }
}

/// An image, an artifact, or an index of several images, ready to be pushed.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest or index.
    pub manifest: Blob,
    /// The configuration and the layers; none for an index.
    pub blobs: Vec<Blob>,
    /// An index' images.
    pub children: Vec<Self>,
    platform: Option<String>,
}

/// What a push gives: what to pull, and what it is.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The name with its tag: `127.0.0.1:5000/team/app:v1`.
    pub name: String,
    /// The name without it.
    pub repository: String,
    /// The manifest's or index' digest.
    pub digest: Digest,
    /// See [`Image::size`].
    pub size: u64,
}

impl Image {
    /// Begins an image.
    #[must_use]
    pub fn builder() -> ImageBuilder {
        ImageBuilder::default()
    }

    /// An index of images, each for the platform that it was built for. Docker's media type if the first image has
    /// Docker's.
    pub fn index(images: &[Self]) -> Result<Self> {
        let docker = images.first().is_some_and(|image| image.manifest.media_type == DOCKER_MANIFEST);
        let media_type = if docker { DOCKER_LIST } else { OCI_INDEX };
        let manifests = images.iter().map(|image| {
            let mut descriptor = image.manifest.descriptor();
            if let Some(platform) = &image.platform {
                descriptor["platform"] = platform_fields(platform).into();
            }
            descriptor
        });
        let index =
            json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests.collect::<Vec<_>>()});
        Ok(Self {
            manifest: Blob::new(media_type, to_bytes(&index)?),
            blobs: Vec::new(),
            children: images.to_vec(),
            platform: None,
        })
    }

    /// An artifact: blobs of any kind with OCI's empty configuration (image specification, "Guidelines for artifact
    /// usage").
    pub fn artifact(artifact_type: &str, blobs: Vec<Blob>) -> Result<Self> {
        let config = Blob::new(OCI_EMPTY, "{}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": config.descriptor(),
            "layers": blobs.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        Ok(Self {
            manifest: Blob::new(OCI_MANIFEST, to_bytes(&manifest)?),
            blobs: std::iter::once(config).chain(blobs).collect(),
            children: Vec::new(),
            platform: None,
        })
    }

    /// The same with another manifest: for content that no builder should make, such as a layer whose descriptor
    /// has the wrong size.
    pub fn edit_manifest(&self, edit: impl FnOnce(&mut Value)) -> Result<Self> {
        let mut manifest =
            serde_json::from_slice(&self.manifest.bytes).map_err(Error::data("manifest to edit"))?;
        edit(&mut manifest);
        Ok(Self { manifest: Blob::new(&self.manifest.media_type, to_bytes(&manifest)?), ..self.clone() })
    }

    /// The manifest's or index' digest: what a tag stands for.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.manifest.digest
    }

    /// The layers; the configuration left out.
    #[must_use]
    pub fn layers(&self) -> &[Blob] {
        self.blobs.get(1..).unwrap_or_default()
    }

    /// The bytes of all distinct blobs: manifests, configurations, layers.
    #[must_use]
    pub fn size(&self) -> u64 {
        let manifests = self.all_children().map(|child| &child.manifest).chain([&self.manifest]);
        let distinct: BTreeMap<_, _> =
            self.all_blobs().chain(manifests).map(|blob| (blob.digest.as_str(), blob.size())).collect();
        distinct.values().sum()
    }

    /// Configurations and layers, those of an index' images included.
    pub(crate) fn all_blobs(&self) -> impl Iterator<Item = &Blob> {
        self.blobs.iter().chain(self.all_children().flat_map(|child| &child.blobs))
    }

    /// An index' images. (No test needs an index within an index.)
    pub(crate) fn all_children(&self) -> impl Iterator<Item = &Self> {
        self.children.iter()
    }

    /// Writes it as an archive (tar) of an OCI image layout, with this full name: what `ctr images import` takes.
    pub fn write_archive(&self, path: &Path, name: &str) -> Result<()> {
        let scratch = Scratch::new("image")?;
        self.write_layout(scratch.path(), name)?;
        let file = std::fs::File::create(path).map_err(Error::file("make", path))?;
        let mut archive = tar::Builder::new(file);
        let written = archive.append_dir_all("", scratch.path()).and_then(|()| archive.finish());
        written.map_err(Error::file("write", path))
    }

    /// Writes it as an OCI image layout, under this reference name, into an empty folder.
    pub fn write_layout(&self, folder: &Path, name: &str) -> Result<()> {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(Error::file("make", &blobs))?;
        let manifests = self.all_children().map(|child| &child.manifest).chain([&self.manifest]);
        for blob in self.all_blobs().chain(manifests) {
            let path = blobs.join(blob.digest.hex());
            std::fs::write(&path, &blob.bytes).map_err(Error::file("write", &path))?;
        }
        let mut descriptor = self.manifest.descriptor();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        for (file, content) in [("oci-layout", json!({"imageLayoutVersion": "1.0.0"})), ("index.json", index)]
        {
            let path = folder.join(file);
            std::fs::write(&path, to_bytes(&content)?).map_err(Error::file("write", &path))?;
        }
        Ok(())
    }
}

/// What goes into an image.
#[derive(Debug, Clone, Default)]
pub struct ImageBuilder {
    platform: Option<String>,
    layers: Vec<Layer>,
    env: Vec<String>,
    labels: Map<String, Value>,
    entrypoint: Vec<String>,
    annotations: Map<String, Value>,
    created: Option<String>,
    docker: bool,
}

impl ImageBuilder {
    /// The platform, such as `linux/arm64/v8`. The machine's own otherwise.
    #[must_use]
    pub fn platform(mut self, platform: &str) -> Self {
        self.platform = Some(platform.to_owned());
        self
    }

    /// Puts a layer on top.
    #[must_use]
    pub fn layer(mut self, layer: &Layer) -> Self {
        self.layers.push(layer.clone());
        self
    }

    /// Adds an environment variable, `NAME=value`, to the configuration.
    #[must_use]
    pub fn env(mut self, variable: &str) -> Self {
        self.env.push(variable.to_owned());
        self
    }

    /// Sets what a container runs.
    #[must_use]
    pub fn entrypoint(mut self, command: &[&str]) -> Self {
        self.entrypoint = command.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// Adds a label to the configuration.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.into());
        self
    }

    /// Adds an annotation to the manifest.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// When it was made, as RFC 3339 writes it. The first moment of 2026 otherwise.
    #[must_use]
    pub fn created(mut self, time: &str) -> Self {
        self.created = Some(time.to_owned());
        self
    }

    /// Docker's media types (schema 2) instead of OCI's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// Makes configuration and manifest.
    pub fn build(self) -> Result<Image> {
        let platform = self.platform.unwrap_or_else(|| larder_oci::Platform::host().to_string());
        let (manifest_type, config_type, layer_type) = if self.docker {
            (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
        } else {
            (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
        };
        let mut config = platform_fields(&platform);
        let created = self.created.unwrap_or_else(|| "2026-01-01T00:00:00Z".to_owned());
        config.insert("created".to_owned(), created.into());
        config.insert("config".to_owned(), json!({"Env": self.env, "Labels": self.labels}));
        if !self.entrypoint.is_empty() {
            config["config"]["Entrypoint"] = self.entrypoint.into();
        }
        let diff_ids: Vec<&str> = self.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        config.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": diff_ids}));
        let history = self.layers.iter().map(|_| json!({"created_by": "larder-tests"}));
        config.insert("history".to_owned(), history.collect());
        let config = Blob::new(config_type, to_bytes(&Value::Object(config))?);
        let layers: Vec<Blob> = self
            .layers
            .into_iter()
            .map(|layer| Blob { media_type: layer_type.to_owned(), digest: layer.digest, bytes: layer.bytes })
            .collect();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = self.annotations.into();
        }
        Ok(Image {
            manifest: Blob::new(manifest_type, to_bytes(&manifest)?),
            blobs: std::iter::once(config).chain(layers).collect(),
            children: Vec::new(),
            platform: Some(platform),
        })
    }
}

/// `os`, `architecture` and `variant`, as descriptors and configurations have them.
fn platform_fields(platform: &str) -> Map<String, Value> {
    let names = ["os", "architecture", "variant"];
    names.iter().zip(platform.split('/')).map(|(name, part)| ((*name).to_owned(), part.into())).collect()
}

fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(Error::data("JSON"))
}
