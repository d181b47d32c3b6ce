//! What there is to play with: a real registry with images that share layers, and archives of each of them.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use larder_tests::{Image, Layer, Registry, RegistryOptions, Scratch, larder::binary};

/// An image's ID, that is, the digest of its configuration: the same however the image came in.
pub type Id = String;

/// A file to load, and the names that it gives.
#[derive(Debug, Clone)]
pub struct Archive {
    pub path: PathBuf,
    pub names: Vec<(String, Id)>,
}

pub struct Shop {
    pub registry: Registry,
    pub scratch: Scratch,
    /// Names that stand for the same image in the registry, in every archive, and in the store.
    pub images: Vec<(String, Id)>,
    /// Names that only `tag` gives.
    pub further: Vec<String>,
    pub archives: Vec<Archive>,
    larder: PathBuf,
}

/// Seeds and sizes of the layers of each image.
const IMAGES: [&[(u64, usize)]; 4] = [
    &[(1, 900_000), (2, 300_000)],
    &[(1, 900_000), (3, 20_000), (4, 1_500_000)],
    &[(2, 300_000), (4, 1_500_000)],
    &[(5, 600_000), (6, 1_000), (7, 1_000), (8, 1_000)],
];

impl Shop {
    pub fn open() -> Self {
        let scratch = Scratch::new("torture").unwrap();
        // A build meanwhile must not replace it under our hands.
        let larder = scratch.path().join("larder");
        std::fs::copy(binary("larder").unwrap(), &larder).unwrap();
        for folder in ["home", "tmp", "out", "archives"] {
            scratch.folder(folder).unwrap();
        }
        let registry = Registry::start(RegistryOptions::default()).unwrap();
        let mut shop = Self {
            registry,
            scratch,
            images: Vec::new(),
            further: (0..3).map(|number| format!("docker.io/further/name:{number}")).collect(),
            archives: Vec::new(),
            larder,
        };
        for (number, layers) in IMAGES.iter().enumerate() {
            shop.stock(number, layers);
        }
        shop
    }

    fn stock(&mut self, number: usize, layers: &[(u64, usize)]) {
        let builder = layers.iter().fold(Image::builder(), |builder, &(seed, size)| {
            builder.layer(&Layer::random(seed, size).unwrap())
        });
        let image = builder.label("number", &number.to_string()).build().unwrap();
        let name = self.registry.push(&image, &format!("app{number}"), "v1").unwrap().name;
        let id = image.blobs[0].digest.to_string();
        let folder = self.scratch.path().join("archives");
        let plain = folder.join(format!("{number}.tar"));
        image.write_archive(&plain, &name).unwrap();
        // The other forms by way of a store that nobody kills.
        let kitchen = folder.join("kitchen");
        let larder = |args: &[&str]| {
            let ran = self.larder(&kitchen).args(args).output().unwrap();
            assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        };
        larder(&["load", "-q", "-i", plain.to_str().unwrap()]);
        let docker = folder.join(format!("{number}-docker.tar"));
        larder(&["save", "--format", "docker-archive", "-o", docker.to_str().unwrap(), &name]);
        let squeezed = folder.join(format!("{number}.tar.gz"));
        larder(&["save", "-o", squeezed.to_str().unwrap(), &name]);
        let archive = |path| Archive { path, names: vec![(name.clone(), id.clone())] };
        self.archives.extend([plain, docker, squeezed].map(archive));
        self.images.push((name, id));
    }

    /// `larder` on a store, its output in our hands.
    pub fn larder(&self, store: &Path) -> Command {
        let mut command = Command::new(&self.larder);
        let folder = |name: &str| self.scratch.path().join(name);
        command
            .env("HOME", folder("home"))
            .env("DOCKER_CONFIG", folder("home"))
            .env("TMPDIR", folder("tmp"))
            .env("LARDER_STORE", store)
            .env("LARDER_HOSTS_DIR", folder("none"))
            .env("LARDER_RUNTIME", OsStr::new("none"))
            .env("NO_PROXY", "127.0.0.1,localhost")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Every name there may be, but for those of images that lost theirs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|(name, _)| name.as_str()).chain(self.further.iter().map(String::as_str))
    }
}
