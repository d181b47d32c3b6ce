//! Stores, images, and tars put together by hand.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::{collections::BTreeSet, fs, io::Write, path::Path};

use larder_archive::{ArchiveError, LoadOptions, LoadedImage, SaveImage, Source, load};
use larder_oci::{Digest, ImageKey, manifest, spec::Descriptor};
use larder_store::{Claim, Ingest, NewImage, Store, StoredImage};
use serde_json::{Value, json};

#[path = "../../../store/tests/common/runtime.rs"]
pub mod runtime;

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
    pub fn load(&self, archive: impl Into<Vec<u8>>) -> Result<Vec<LoadedImage>, ArchiveError> {
        let source = Source::Stream(Box::new(std::io::Cursor::new(archive.into())));
        load(&self.store, source, &LoadOptions::default(), &|| false)
    }

    pub fn load_path(&self, path: &Path) -> Result<Vec<LoadedImage>, ArchiveError> {
        load(&self.store, Source::Path(path.to_owned()), &LoadOptions::default(), &|| false)
    }

    pub fn blobs(&self) -> BTreeSet<String> {
        let folder = self.store.root().join("blobs");
        let mut names = BTreeSet::new();
        for algorithm in fs::read_dir(folder).unwrap() {
            for file in fs::read_dir(algorithm.unwrap().path()).unwrap() {
                names.insert(file.unwrap().file_name().into_string().unwrap());
            }
        }
        names
    }

    /// What must be so after anything that failed, or that loaded nothing new.
    pub fn assert_clean(&self, blobs: &BTreeSet<String>) {
        assert_eq!(&self.blobs(), blobs, "blobs");
        let private = self.store.root().join(".larder");
        for name in ["leases", "trash", "partial/sha256"] {
            let folder = private.join(name);
            let left = fs::read_dir(&folder).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{} is not empty", folder.display());
        }
    }

    /// Puts an image into the store.
    pub fn put(&self, image: &Image, name: &str) -> StoredImage {
        let key = ImageKey { name: name.parse().unwrap(), platform: "linux/amd64".parse().unwrap() };
        let lease = self.store.lease(&key).unwrap();
        let all = || image.blobs.iter().chain([&image.manifest]);
        let digests: Vec<Digest> = all().map(|bytes| Digest::sha256(bytes)).collect();
        lease.protect(&digests).unwrap();
        for bytes in all() {
            if let Ingest::Write(mut writer) =
                lease.ingest(&Digest::sha256(bytes), bytes.len() as u64).unwrap()
            {
                writer.write(bytes).unwrap();
                writer.finish().unwrap();
            }
        }
        let digest: larder_oci::spec::Digest = Digest::sha256(&image.manifest).as_str().parse().unwrap();
        let manifest = Descriptor::new(manifest::OCI_MANIFEST.into(), image.manifest.len() as u64, digest);
        lease.commit(NewImage { manifest, index: None, claim: Claim::None }).unwrap();
        drop(lease);
        self.store.image(&key).unwrap().unwrap()
    }
}

/// An image with all its bytes: configuration first, then layers.
#[derive(Clone)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub blobs: Vec<Vec<u8>>,
}

/// An image of plain layers.
pub fn image(layers: &[&[u8]]) -> Image {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    let config = json!({"os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes();
    let blob = |bytes: &[u8], kind: &str| {
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": Digest::sha256(bytes), "size": bytes.len()})
    };
    let described: Vec<_> = layers.iter().map(|layer| blob(layer, "layer.v1.tar")).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST,
        "config": blob(&config, "config.v1+json"), "layers": described});
    let blobs = std::iter::once(config).chain(layers.iter().map(|layer| layer.to_vec())).collect();
    Image { manifest: manifest.to_string().into_bytes(), blobs }
}

impl Image {
    pub fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    pub fn descriptor(&self, name: Option<&str>) -> Value {
        let mut descriptor = json!({"mediaType": manifest::OCI_MANIFEST, "digest": self.digest(),
            "size": self.manifest.len()});
        if let Some(name) = name {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        descriptor
    }

    /// Entries of an OCI archive, but for its `index.json`.
    pub fn blob_entries(&self) -> Vec<(String, Vec<u8>)> {
        let all = self.blobs.iter().chain([&self.manifest]);
        all.map(|bytes| (blob_path(bytes), bytes.clone())).collect()
    }

    /// An OCI archive.
    pub fn oci(&self, name: &str) -> Tar {
        let mut tar = Tar::default();
        tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        tar.file("index.json", index(&[self.descriptor(Some(name))]).as_bytes());
        for (path, bytes) in self.blob_entries() {
            tar.file(&path, &bytes);
        }
        tar
    }

    /// A docker archive as skopeo and newer dockers write it; what `edit` makes of `manifest.json`.
    pub fn docker(&self, names: &Value) -> Tar {
        let mut tar = Tar::default();
        let config = format!("{}.json", Digest::sha256(&self.blobs[0]).hex());
        tar.file(&config, &self.blobs[0]);
        let mut layers = Vec::new();
        for layer in &self.blobs[1..] {
            let path = format!("{}.tar", Digest::sha256(layer).hex());
            if !layers.contains(&path) {
                tar.file(&path, layer);
            }
            layers.push(path);
        }
        let manifest = json!([{"Config": config, "RepoTags": names, "Layers": layers}]);
        tar.file("manifest.json", manifest.to_string().as_bytes());
        tar
    }
}

pub fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::sha256(bytes).hex())
}

pub fn index(descriptors: &[Value]) -> String {
    json!({"schemaVersion": 2, "manifests": descriptors}).to_string()
}

/// A tar, entry by entry.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, tar::EntryType::Regular, "", content.len() as u64, content);
    }

    pub fn link(&mut self, path: &str, kind: tar::EntryType, target: &str) {
        self.entry(path, kind, target, 0, b"");
    }

    /// Any entry at all. The names go into the header unchecked, and so does the size.
    pub fn entry(&mut self, path: &str, kind: tar::EntryType, link: &str, size: u64, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.write_all(header.as_bytes()).unwrap();
        self.0.write_all(content).unwrap();
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn save_image(image: &StoredImage) -> SaveImage {
    SaveImage { image: image.clone(), names: vec![image.key.name.clone()] }
}
