//! Small images to put into stores.

#![allow(dead_code, reason = "each test binary uses some of it")]

pub mod runtime;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use larder_oci::{Digest, ImageKey, manifest, spec::Descriptor};
use larder_store::{
    BlobWriter, Claim, CollectOptions, Ingest, Lease, NewImage, Store, StoreError, StoredImage,
};

use runtime::Runtime;

/// A store in a folder that goes when it is dropped.
pub struct Folder {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

pub fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    Folder { dir, store }
}

impl Folder {
    /// A runtime beside the store, which the store hands layers to.
    pub fn with_runtime(mut self) -> (Self, Runtime) {
        let runtime = Runtime::new(&self.dir.path().join("runtime"));
        self.store = self.store.with_annex(Arc::new(runtime.clone()));
        (self, runtime)
    }

    /// The digests that have markers.
    pub fn markers(&self) -> BTreeSet<Digest> {
        files(&self.root().join(".larder/elsewhere")).into_iter().map(|(digest, _)| digest).collect()
    }

    pub fn root(&self) -> &Path {
        self.store.root()
    }

    pub fn collect_all(&self) -> larder_store::Collected {
        self.store.collect(&CollectOptions { dead_lease_age: std::time::Duration::ZERO }).unwrap()
    }

    /// Every blob there is; all of them must have their digests.
    pub fn blobs(&self) -> BTreeSet<Digest> {
        let blobs = files(&self.root().join("blobs"));
        for (digest, path) in &blobs {
            assert!(
                digest.matches(&std::fs::read(path).unwrap()),
                "{digest} does not hold what its name says"
            );
        }
        blobs.into_iter().map(|(digest, _)| digest).collect()
    }

    pub fn partials(&self) -> usize {
        files(&self.root().join(".larder/partial")).len()
    }

    pub fn leases(&self) -> usize {
        std::fs::read_dir(self.root().join(".larder/leases")).unwrap().count()
    }

    pub fn index(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.root().join("index.json")).unwrap()).unwrap()
    }
}

fn files(dir: &Path) -> Vec<(Digest, std::path::PathBuf)> {
    let mut files = Vec::new();
    for algorithm in std::fs::read_dir(dir).unwrap() {
        let algorithm = algorithm.unwrap();
        for file in std::fs::read_dir(algorithm.path()).unwrap() {
            let file = file.unwrap();
            let digest = format!("{}:{}", algorithm.file_name().display(), file.file_name().display());
            files.push((digest.parse().unwrap(), file.path()));
        }
    }
    files
}

pub fn key(name: &str) -> ImageKey {
    ImageKey { name: name.parse().unwrap(), platform: "linux/amd64".parse().unwrap() }
}

/// An image with all its bytes.
#[derive(Debug, Clone)]
pub struct Image {
    pub key: ImageKey,
    pub manifest: Vec<u8>,
    /// Configuration and layers.
    pub blobs: Vec<Vec<u8>>,
}

pub fn image(name: &str, layers: &[&[u8]]) -> Image {
    let config =
        serde_json::json!({"os": "linux", "architecture": "amd64", "name": name}).to_string().into_bytes();
    let blob = |bytes: &[u8], kind: &str| {
        serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": Digest::sha256(bytes), "size": bytes.len()})
    };
    let described: Vec<_> = layers.iter().map(|layer| blob(layer, "layer.v1.tar")).collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST,
        "config": blob(&config, "config.v1+json"), "layers": described});
    let blobs = std::iter::once(config).chain(layers.iter().map(|layer| layer.to_vec())).collect();
    Image { key: key(name), manifest: manifest.to_string().into_bytes(), blobs }
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest: larder_oci::spec::Digest = Digest::sha256(bytes).as_str().parse().unwrap();
    Descriptor::new(media_type.into(), bytes.len() as u64, digest)
}

impl Image {
    pub fn digests(&self) -> BTreeSet<Digest> {
        std::iter::once(&self.manifest).chain(&self.blobs).map(|bytes| Digest::sha256(bytes)).collect()
    }

    pub fn new_image(&self, claim: Claim) -> NewImage {
        NewImage { manifest: descriptor(manifest::OCI_MANIFEST, &self.manifest), index: None, claim }
    }

    pub fn layers(&self) -> &[Vec<u8>] {
        &self.blobs[1..]
    }

    /// Puts the image into the store in one go. Blobs that others are writing are waited for.
    pub fn put(&self, store: &Store) -> StoredImage {
        let lease = store.lease(&self.key).unwrap();
        self.fetch(store, &lease);
        lease.commit(self.new_image(Claim::None)).unwrap();
        drop(lease);
        store.image(&self.key).unwrap().unwrap()
    }

    pub fn fetch(&self, store: &Store, lease: &Lease) {
        lease.protect(&self.digests()).unwrap();
        store.put_blob(lease, &Digest::sha256(&self.manifest), &self.manifest).unwrap();
        fetch_blob(lease, &self.blobs[0]);
        for bytes in self.layers() {
            if !store.find_layer(lease, &Digest::sha256(bytes), bytes.len() as u64).unwrap() {
                fetch_blob(lease, bytes);
            }
        }
    }
}

/// Writes one blob unless it is there. True if this call wrote any of it.
pub fn fetch_blob(lease: &Lease, bytes: &[u8]) -> bool {
    loop {
        match lease.ingest(&Digest::sha256(bytes), bytes.len() as u64).unwrap() {
            Ingest::Present => return false,
            Ingest::Busy => std::thread::yield_now(),
            Ingest::Write(mut writer) => {
                let offset = usize::try_from(writer.offset()).unwrap();
                writer.write(&bytes[offset..]).unwrap();
                writer.finish().unwrap();
                return true;
            }
        }
    }
}

pub fn writer(lease: &Lease, digest: &Digest, size: usize) -> BlobWriter {
    match lease.ingest(digest, size as u64).unwrap() {
        Ingest::Write(writer) => writer,
        other => panic!("expected to write, got {other:?}"),
    }
}

pub fn category(result: Result<(), StoreError>) -> larder_store::Category {
    result.unwrap_err().category()
}
