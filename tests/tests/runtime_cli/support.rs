//! A node: containerd, and `larder` on a store beside it.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use larder_tests::{Containerd, ContainerdVersion, Image, Layer, Ran, Scratch, larder::binary, process::run};
use serde_json::{Value, json};

pub struct Node {
    pub containerd: Containerd,
    pub scratch: Scratch,
    /// `containerd` or `cri`.
    interface: &'static str,
}

impl Node {
    /// A node whose runtime is spoken to through this interface.
    pub fn new(version: ContainerdVersion, interface: &'static str) -> Self {
        let containerd = Containerd::start(version).unwrap();
        Self { containerd, scratch: Scratch::new("runtime-cli").unwrap(), interface }
    }

    /// Runs `larder` to its end, with the runtime named.
    pub fn larder(&self, args: &[&str]) -> Ran {
        let socket = self.containerd.socket().to_str().unwrap();
        let own = ["--runtime", self.interface, "--runtime-endpoint", socket];
        self.plain_larder(&[&own[..], args].concat())
    }

    /// Runs it and expects success without a word on stderr.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.larder(args).ok().unwrap();
        assert_eq!(ran.stderr, "", "{args:?}");
        ran.stdout
    }

    /// Runs it and expects exit status 1; gives what it said on stderr.
    pub fn fails(&self, args: &[&str]) -> String {
        let ran = self.larder(args);
        assert_eq!(ran.status.code(), Some(1), "{args:?}: {}{}", ran.stdout, ran.stderr);
        ran.stderr
    }

    /// The same with no word of a runtime.
    pub fn plain_larder(&self, args: &[&str]) -> Ran {
        let path = |name: &str| self.scratch.path().join(name).into_os_string();
        let env: [(&str, OsString); 5] = [
            ("LARDER_STORE", path("store")),
            ("LARDER_HOSTS_DIR", path("certs.d")),
            ("DOCKER_CONFIG", path("docker")),
            ("HOME", path("home")),
            ("NO_PROXY", "127.0.0.1,localhost".into()),
        ];
        let env: Vec<(&str, &OsStr)> = env.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
        run(&binary("larder").unwrap(), args, &env, b"").unwrap()
    }

    pub fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    /// An archive of an image under a name, in the node's scratch folder.
    pub fn archive(&self, image: &Image, name: &str) -> String {
        let path = self.scratch.path().join(format!("{}.tar", image.digest().short()));
        image.write_archive(&path, name).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A file with an `ImageCache` of one image, in the node's scratch folder.
    pub fn cache(&self, image: &str) -> String {
        let cache = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
            "metadata": {"name": "one"}, "spec": {"images": [{"image": image}]},
        });
        let path = self.scratch.write("cache.yaml", cache.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What kubelet sees: the image of a name.
    pub fn cri_image(&self, name: &str) -> Option<Value> {
        let all: Value =
            serde_json::from_str(&self.containerd.crictl(&["images", "--output", "json"]).unwrap()).unwrap();
        let named = |image: &&Value| {
            let names = |field: &str| image[field].as_array().cloned().unwrap_or_default();
            names("repoTags").iter().chain(&names("repoDigests")).any(|found| found == name)
        };
        all["images"].as_array()?.iter().find(named).cloned()
    }

    /// `repository:tag` of everything in the store, sorted.
    pub fn names(&self) -> Vec<String> {
        let text = self.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

/// An image with two layers, another one for each seed.
pub fn image(seed: u64) -> Image {
    let layers = [Layer::random(seed, 300_000).unwrap(), Layer::random(seed + 1000, 20_000).unwrap()];
    layers
        .iter()
        .fold(Image::builder(), larder_tests::ImageBuilder::layer)
        .env(&format!("SEED={seed}"))
        .build()
        .unwrap()
}

/// The digest of an image's configuration: its ID.
pub fn id(image: &Image) -> String {
    image.blobs[0].digest.to_string()
}

/// The first twelve digits of an ID.
pub fn short(id: &str) -> &str {
    &id["sha256:".len()..][..12]
}

/// The files of blobs in a store.
pub fn blobs(store: &Path) -> usize {
    std::fs::read_dir(store.join("blobs/sha256")).unwrap().count()
}
