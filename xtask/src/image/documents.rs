//! An image's configuration and manifest, as the OCI image specification has them.

use anyhow::Context;
use jiff::Timestamp;
use larder_oci::manifest::OCI_MANIFEST;
use larder_oci::spec::{
    ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REVISION, ANNOTATION_SOURCE, ANNOTATION_TITLE,
    ANNOTATION_VERSION,
};
use larder_oci::{Digest, Platform};
use serde_json::{Map, Value, json};

use super::layer::Layer;

/// Where the project is. Registries link an image to it.
pub const SOURCE: &str = "https://github.com/larder-dev/larder";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How glibc's malloc is to behave; docs/BENCHMARKS.md has what each brings.
pub const MALLOC: [&str; 3] = [
    // Has it give memory back. Unless told, it raises this threshold with what it sees freed, and an agent that has pulled large
    // layers keeps their buffers for ever.
    "MALLOC_TRIM_THRESHOLD_=1048576",
    // Buffers of a connection are below this. To ask the kernel for each of them took a third of a pull's CPU.
    "MALLOC_MMAP_THRESHOLD_=1048576",
    // Has all threads take their memory from one place, which is the one that shrinks best. They are few, and allocate little.
    "MALLOC_ARENA_MAX=1",
];

/// What an image says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Its title, which is also the program that it runs.
    pub title: &'static str,
    /// One line on what it does.
    pub description: &'static str,
    /// Who the program runs as, `UID:GID`.
    pub user: &'static str,
    /// What it runs on.
    pub platform: Platform,
    /// The commit that it was built from, if that is known.
    pub revision: Option<String>,
    /// When it was made: of the source, not of the clock.
    pub created: Timestamp,
}

/// An image whose layers are in their order, the lowest first.
#[derive(Debug)]
pub struct Image<'a> {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The configuration.
    pub config: Vec<u8>,
    /// The layers.
    pub layers: Vec<&'a Layer>,
}

impl<'a> Image<'a> {
    /// Writes configuration and manifest. The same arguments give the same bytes: `serde_json` sorts keys.
    pub fn new(about: &About, layers: Vec<&'a Layer>) -> anyhow::Result<Self> {
        let config = to_bytes(&config(about, &layers))?;
        let blob = |kind: &str, digest: &Digest, size: usize| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": blob("config.v1+json", &Digest::sha256(&config), config.len()),
            "layers": layers
                .iter()
                .map(|layer| blob("layer.v1.tar+gzip", &layer.digest, layer.blob.len()))
                .collect::<Vec<_>>(),
        });
        Ok(Self { manifest: to_bytes(&manifest)?, config, layers })
    }
}

fn config(about: &About, layers: &[&Layer]) -> Value {
    let created = about.created.to_string();
    let history = layers.iter().map(|layer| json!({"created": created, "created_by": layer.made_by}));
    let env: Vec<&str> = [PATH].into_iter().chain(MALLOC).collect();
    let mut config = json!({
        "architecture": about.platform.architecture(),
        "os": about.platform.os(),
        "created": created,
        "config": {
            "User": about.user,
            "Env": env,
            "Entrypoint": [format!("/usr/bin/{}", about.title)],
            "WorkingDir": "/",
            "Labels": labels(about),
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>(),
        },
        "history": history.collect::<Vec<_>>(),
    });
    if let Some(variant) = about.platform.variant() {
        config["variant"] = variant.into();
    }
    config
}

fn labels(about: &About) -> Map<String, Value> {
    let labels = [
        (ANNOTATION_TITLE, Some(about.title)),
        (ANNOTATION_DESCRIPTION, Some(about.description)),
        (ANNOTATION_VERSION, Some(env!("CARGO_PKG_VERSION"))),
        (ANNOTATION_REVISION, about.revision.as_deref()),
        (ANNOTATION_SOURCE, Some(SOURCE)),
        (ANNOTATION_LICENSES, Some(env!("CARGO_PKG_LICENSE"))),
    ];
    labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))).collect()
}

fn to_bytes(value: &Value) -> anyhow::Result<Vec<u8>> {
    serde_json::to_vec(value).context("cannot write JSON")
}

#[cfg(test)]
mod tests {
    use larder_oci::spec::{ImageConfiguration, ImageManifest};

    use super::*;
    use crate::image::layer::Files;

    #[test]
    fn both_documents_are_what_the_specification_says() {
        let mut files = Files::default();
        files.file("/etc/x", "y");
        let layer = files.pack("the test", flate2::Compression::fast()).unwrap();
        let about = About {
            title: "larder-agent",
            description: "tests",
            user: "65532:65532",
            platform: "linux/arm64".parse().unwrap(),
            revision: None,
            created: Timestamp::UNIX_EPOCH,
        };
        let image = Image::new(&about, vec![&layer, &layer]).unwrap();
        let manifest = ImageManifest::from_reader(&image.manifest[..]).unwrap();
        assert_eq!(manifest.config().digest().to_string(), Digest::sha256(&image.config).as_str());
        assert_eq!(manifest.layers().len(), 2);
        assert_eq!(manifest.layers()[0].size(), layer.blob.len() as u64);
        let config = ImageConfiguration::from_reader(&image.config[..]).unwrap();
        assert_eq!(config.created().as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(config.architecture().to_string(), "arm64");
        assert_eq!(config.variant(), &None);
        assert_eq!(config.rootfs().diff_ids(), &[layer.diff_id.to_string(), layer.diff_id.to_string()]);
        assert_eq!(config.history().as_ref().unwrap().len(), 2);
        let run = config.config().as_ref().unwrap();
        assert_eq!(run.user().as_deref(), Some("65532:65532"));
        assert_eq!(run.entrypoint().as_deref(), Some(&["/usr/bin/larder-agent".to_owned()][..]));
        let labels = run.labels().as_ref().unwrap();
        assert_eq!(labels[ANNOTATION_VERSION], env!("CARGO_PKG_VERSION"));
        assert!(!labels.contains_key(ANNOTATION_REVISION));
    }
}
