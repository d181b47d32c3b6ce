use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use larder_tests::{
    Image, Layer, Ran, Scratch,
    larder::binary,
    process::run,
    tools::{Tool, in_path},
};
use serde_json::Value;

/// A layer store, and a folder for archives.
pub struct Shop {
    pub scratch: Scratch,
    pub store: PathBuf,
}

impl Shop {
    pub fn new(label: &str) -> Self {
        let scratch = Scratch::new(label).unwrap();
        let store = scratch.path().join("store");
        Self { scratch, store }
    }

    /// `larder`, on this store.
    pub fn try_larder(&self, args: &[&str], input: &[u8]) -> Ran {
        let home = self.scratch.path().as_os_str();
        let env = [("LARDER_STORE", self.store.as_os_str()), ("HOME", home)];
        run(&binary("larder").unwrap(), args, &env, input).unwrap()
    }

    pub fn larder(&self, args: &[&str]) -> String {
        self.try_larder(args, b"").ok().unwrap().stdout
    }

    pub fn load(&self, path: &Path) -> String {
        self.larder(&["load", "--input", text(path)])
    }

    /// The digests that names stand for, by name and platform.
    pub fn images(&self) -> BTreeMap<(String, String), String> {
        let index = json(&self.store.join("index.json"));
        let entries = index["manifests"].as_array().unwrap().iter().map(|entry| {
            let annotation = |key: &str| entry["annotations"][key].as_str().unwrap().to_owned();
            let key = (annotation("org.opencontainers.image.ref.name"), annotation("dev.larder.platform"));
            (key, entry["digest"].as_str().unwrap().to_owned())
        });
        entries.collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// What a layer store must never hold once a command has ended.
    pub fn assert_clean(&self) {
        for folder in ["leases", "trash", "partial/sha256"] {
            let left = std::fs::read_dir(self.store.join(".larder").join(folder)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{folder} is not empty");
        }
        let sound = self.store.join("blobs/sha256");
        for blob in std::fs::read_dir(sound).unwrap() {
            let blob = blob.unwrap();
            let digest: larder_oci::Digest =
                format!("sha256:{}", blob.file_name().to_str().unwrap()).parse().unwrap();
            assert!(digest.matches(&std::fs::read(blob.path()).unwrap()), "{digest}");
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A Debian program; its standard output.
pub fn debian(program: &str, args: &[&str]) -> String {
    let none: [(&str, &OsStr); 0] = [];
    run(&in_path(program).unwrap(), args, &none, b"").unwrap().ok().unwrap().stdout
}

/// A program built from a Go module; its standard output. Nothing of the user's is read or written.
pub fn go_tool(tool: Tool, args: &[&str], home: &Path) -> String {
    let env = [("HOME", home.as_os_str()), ("DOCKER_CONFIG", home.as_os_str())];
    run(&tool.path().unwrap(), args, &env, b"").unwrap().ok().unwrap().stdout
}

/// Of two layers, one of them shared by all images of this kind.
pub fn image(seed: u64, docker: bool) -> Image {
    let base = Layer::of(&[("etc/base", b"shared"), ("bin/sh", &vec![7; 70_000])]).unwrap();
    let builder = Image::builder()
        .platform("linux/amd64")
        .layer(&base)
        .layer(&Layer::random(seed, 300_000).unwrap())
        .env("SHELF=upper");
    if docker { builder.docker() } else { builder }.build().unwrap()
}
