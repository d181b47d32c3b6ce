//! A store, images to put into it, and the commands.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use clap::Parser;
use larder_cli::{Cli, Context, InUse, User};
use larder_oci::{Digest, ImageKey, ImageName, manifest::OCI_MANIFEST, spec::Descriptor};
use larder_store::{Claim, Ingest, NewImage, Store, StoredImage};
use serde_json::{Value, json};

/// A store in a folder that goes when this is dropped, and the containers that a test has made up.
pub struct Shelf {
    dir: tempfile::TempDir,
    pub store: Store,
    pub containers: Containers,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub status: u8,
    pub stdout: String,
    pub stderr: String,
}

/// Containers by the ID of their image.
#[derive(Debug, Clone, Default)]
pub struct Containers(pub Vec<(String, User)>);

impl InUse for Containers {
    fn users(&self, store: &Store, image: &StoredImage) -> Result<Vec<User>, String> {
        let id = larder_runtime::Image::read(store, image).unwrap().config.digest().to_string();
        Ok(self.0.iter().filter(|(image, _)| *image == id).map(|(_, user)| user.clone()).collect())
    }

    fn withdraw(&self, _: &Store, _: &StoredImage) -> Result<Vec<User>, String> {
        Ok(Vec::new())
    }

    fn settle(&self, _: &Store) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// An image to be.
#[derive(Debug, Clone)]
pub struct Made {
    pub config: Value,
    pub layers: Vec<Vec<u8>>,
    pub platform: String,
}

/// An image with one layer of its own for this machine's platform.
pub fn made(layer: &str) -> Made {
    let platform = larder_oci::Platform::host();
    Made {
        config: json!({"os": platform.os(), "architecture": platform.architecture(), "config": {}}),
        layers: vec![layer.as_bytes().to_vec()],
        platform: platform.to_string(),
    }
}

impl Made {
    pub fn layer(mut self, bytes: &[u8]) -> Self {
        self.layers.push(bytes.to_vec());
        self
    }

    pub fn created(mut self, time: &str) -> Self {
        self.config["created"] = time.into();
        self
    }

    pub fn config(mut self, field: &str, value: Value) -> Self {
        self.config["config"][field] = value;
        self
    }

    pub fn field(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    pub fn platform(mut self, platform: &str) -> Self {
        let parsed: larder_oci::Platform = platform.parse().unwrap();
        self.config["os"] = parsed.os().into();
        self.config["architecture"] = parsed.architecture().into();
        platform.clone_into(&mut self.platform);
        self
    }
}

impl Shelf {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store, containers: Containers::default() }
    }

    /// Puts an image under a name, as a pull does; returns its ID and the digest of its manifest.
    pub fn put(&self, name: &str, image: &Made) -> (String, String) {
        let name: ImageName = name.parse().unwrap();
        self.put_as(&name, image)
    }

    pub fn put_as(&self, name: &ImageName, image: &Made) -> (String, String) {
        let key = ImageKey { name: name.clone(), platform: image.platform.parse().unwrap() };
        let layers: Vec<&[u8]> = image.layers.iter().map(Vec::as_slice).collect();
        let mut config = image.config.clone();
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::sha256(layer).to_string()).collect();
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let config = config.to_string().into_bytes();
        let describe = |bytes: &[u8], kind: &str| {
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": Digest::sha256(bytes), "size": bytes.len()})
        };
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": describe(&config, "config.v1+json"),
            "layers": layers.iter().map(|layer| describe(layer, "layer.v1.tar")).collect::<Vec<_>>()});
        let manifest = manifest.to_string().into_bytes();
        let lease = self.store.lease(&key).unwrap();
        for bytes in layers.iter().copied().chain([config.as_slice(), &manifest]) {
            let digest = Digest::sha256(bytes);
            lease.protect([&digest]).unwrap();
            if let Ingest::Write(mut writer) = lease.ingest(&digest, bytes.len() as u64).unwrap() {
                writer.write(bytes).unwrap();
                writer.finish().unwrap();
            }
        }
        let digest = Digest::sha256(&manifest);
        let descriptor = Descriptor::new(
            OCI_MANIFEST.into(),
            manifest.len() as u64,
            digest.as_str().parse::<larder_oci::spec::Digest>().unwrap(),
        );
        lease.commit_by_hand(NewImage { manifest: descriptor, index: None, claim: Claim::None }).unwrap();
        (Digest::sha256(&config).to_string(), digest.to_string())
    }

    pub fn use_in(&mut self, id: &str, container: &str, running: bool) {
        let user = User { pod: None, container: container.to_owned(), id: container.to_owned(), running };
        self.containers.0.push((id.to_owned(), user));
    }

    pub fn claim(&self, name: &str, claim: Claim) {
        let name: ImageName = name.parse().unwrap();
        let keys: Vec<ImageKey> = self
            .store
            .images()
            .unwrap()
            .into_iter()
            .map(|image| image.key)
            .filter(|key| key.name == name)
            .collect();
        assert!(self.store.set_claim(&keys, claim).unwrap());
    }

    /// Runs `larder` with these arguments.
    pub fn run(&self, args: &[&str]) -> Ran {
        let store = self.dir.path().join("store");
        let own = ["larder", "--store", store.to_str().unwrap()];
        let cli = Cli::try_parse_from(own.iter().chain(args)).unwrap();
        let (stdout, stderr) = (Buffer::default(), Buffer::default());
        let mut context =
            Context::with_output(cli.globals.clone(), Box::new(stdout.clone()), Box::new(stderr.clone()));
        context.in_use = Arc::new(self.containers.clone());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let result = runtime.block_on(larder_cli::verbs::run(&context, cli.verb));
        let mut stderr = stderr.text();
        let status = match result {
            Ok(status) => status,
            Err(failure) => {
                for message in &failure.messages {
                    stderr.push_str(message);
                    stderr.push('\n');
                }
                failure.status
            }
        };
        Ran { status: status.0, stdout: stdout.text(), stderr }
    }

    /// The same, which must succeed without a word on stderr; what it prints.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{args:?}: {}", ran.stdout);
        ran.stdout
    }

    /// `repository:tag` of everything there is, sorted.
    pub fn names(&self) -> Vec<String> {
        let text = self.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    pub fn blobs(&self) -> usize {
        self.store.inventory().unwrap().blobs.len()
    }
}

/// The first twelve digits of an ID.
pub fn short(id: &str) -> &str {
    &id["sha256:".len()..][..12]
}
