//! A containerd with its CRI plugin, as a node has it, and a layer store beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use larder_oci::Digest;
use larder_registry::Anonymous;
use larder_runtime::{
    Choice, ConnectOptions, Image, Layers, Observation, Owner, Runtime, RuntimeError, State,
};
use larder_store::Store;
use larder_tests::{
    Program, Ran, Scratch,
    process::run,
    tools::{Tool, in_path, is_root},
};
use serde_json::Value;

/// Which containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Two,
    OneSeven,
}

impl Version {
    fn program(self) -> PathBuf {
        let tool = if self == Self::Two { Tool::Containerd } else { Tool::Containerd17 };
        tool.path().unwrap()
    }
}

/// A node's containerd, in a mount namespace of its own: whatever it mounts goes with it.
pub struct Node {
    pub program: Program,
    pub scratch: Scratch,
    pub runtime: Runtime,
    pub store: Store,
    socket: PathBuf,
    pub tokio: tokio::runtime::Runtime,
}

/// When the collector runs: at every change, where a test says so.
const EAGER: &str = "pause_threshold = 0.5\ndeletion_threshold = 1\nmutation_threshold = 1\n\
                     schedule_delay = '0ms'\nstartup_delay = '1ms'\n";

impl Node {
    pub fn new(version: Version) -> Self {
        Self::start(version, "")
    }

    /// A containerd whose garbage collector runs at every change.
    pub fn with_eager_collector(version: Version) -> Self {
        Self::start(version, EAGER)
    }

    fn start(version: Version, collector: &str) -> Self {
        assert!(is_root(), "this test runs a real containerd, which mounts: run the tests as root");
        let scratch = Scratch::new("delivery").unwrap();
        let socket = scratch.path().join("containerd.sock");
        let config = scratch.write("config.toml", config(version, scratch.path(), collector)).unwrap();
        let containerd = version.program();
        let path = std::env::join_paths([
            containerd.parent().unwrap(),
            Path::new("/usr/sbin"),
            Path::new("/usr/bin"),
            Path::new("/sbin"),
            Path::new("/bin"),
        ]);
        let program = Program::new("containerd", &in_path("unshare").unwrap(), scratch.path())
            .args(["--mount", "--propagation", "private", "--", "sh", "-ec"])
            .args(["mount -t tmpfs tmpfs /run; exec \"$@\"", "sh"])
            .args([containerd.as_os_str(), OsStr::new("--config"), config.as_os_str()])
            .env("HOME", scratch.path())
            .env("PATH", path.unwrap());
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = Store::open(&scratch.path().join("store")).unwrap();
        let runtime = Runtime::none();
        let mut this = Self { program, scratch, runtime, store, socket, tokio };
        this.program.start_until("containerd to answer", || this.is_ready()).unwrap();
        this.connect();
        this
    }

    /// With its CRI plugin, which is the last to come up.
    fn is_ready(&self) -> bool {
        self.try_crictl(&["--timeout", "5s", "images"]).status.success()
    }

    fn connect(&mut self) {
        let options = ConnectOptions {
            choice: Choice::Containerd,
            endpoint: Some(self.socket.clone()),
            credentials: Arc::new(Anonymous),
        };
        self.runtime = self.wait(larder_runtime::connect(&options)).unwrap();
        let _inside = self.tokio.enter();
        self.store = self.store.clone().with_annex(self.runtime.annex().unwrap());
    }

    /// Kills it, and starts it anew.
    pub fn restart(&self) {
        self.program.kill();
        self.program.start_until("containerd to answer", || self.is_ready()).unwrap();
    }

    /// Runs a future to its end.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.tokio.block_on(future)
    }

    pub fn try_deliver(&self, image: &Image, owner: Owner, layers: Layers) -> Result<(), RuntimeError> {
        self.wait(self.runtime.deliver(&self.store, image, owner, layers))
    }

    /// As the agent does, with all layers there.
    pub fn deliver(&self, image: &Image) {
        self.try_deliver(image, Owner::Agent { pin: true }, Layers::all_there()).unwrap();
    }

    pub fn observe(&self, images: &[Image]) -> Observation {
        self.observe_for(&self.store, images)
    }

    /// As the agent does that looks after that store.
    pub fn observe_for(&self, store: &Store, images: &[Image]) -> Observation {
        let handed_over: BTreeSet<Digest> = store.handed_over().unwrap().into_keys().collect();
        self.wait(self.runtime.observe(store.id().unwrap(), images, &handed_over)).unwrap()
    }

    /// Another store beside the same containerd.
    pub fn another_store(&self, name: &str) -> Store {
        let store = Store::open(&self.scratch.path().join(name)).unwrap();
        let _inside = self.tokio.enter();
        store.with_annex(self.runtime.annex().unwrap())
    }

    pub fn state(&self, image: &Image) -> State {
        self.observe(std::slice::from_ref(image)).states[&image.key].clone()
    }

    pub fn try_ctr(&self, args: &[&str]) -> Ran {
        let args = [&["--address", text(&self.socket), "--namespace", "k8s.io"], args].concat();
        let env = [("HOME", self.scratch.path().as_os_str())];
        run(&Tool::Ctr.path().unwrap(), &args, &env, b"").unwrap()
    }

    pub fn ctr(&self, args: &[&str]) -> String {
        self.try_ctr(args).ok().unwrap().stdout
    }

    /// The rows of a table, cut at blanks; the heading left out.
    pub fn table(&self, args: &[&str]) -> Vec<Vec<String>> {
        let rows = self.ctr(args);
        rows.lines().skip(1).map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
    }

    /// The digests that image names stand for.
    pub fn names(&self) -> BTreeMap<String, String> {
        let rows = self.table(&["images", "ls"]);
        rows.into_iter().map(|row| (row[0].clone(), row[2].clone())).collect()
    }

    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.ctr(&["content", "ls", "-q"]).lines().any(|line| line == digest.as_str())
    }

    /// The names of all snapshots.
    pub fn snapshots(&self) -> Vec<String> {
        self.table(&["snapshots", "ls"]).into_iter().map(|row| row[0].clone()).collect()
    }

    pub fn try_crictl(&self, args: &[&str]) -> Ran {
        let endpoint = format!("unix://{}", text(&self.socket));
        let args = [&["--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint], args].concat();
        let env = [("HOME", self.scratch.path().as_os_str())];
        run(&Tool::Crictl.path().unwrap(), &args, &env, b"").unwrap()
    }

    /// The images that kubelet is told of, by ID.
    pub fn kubelets_images(&self) -> BTreeMap<String, Value> {
        let listed = self.try_crictl(&["images", "--output", "json"]).ok().unwrap().json().unwrap();
        let images = listed["images"].as_array().unwrap().iter();
        images.map(|image| (image["id"].as_str().unwrap().to_owned(), image.clone())).collect()
    }

    /// The image that kubelet finds under a name, if it finds one.
    pub fn kubelets_image(&self, name: &str) -> Option<Value> {
        let found = self.try_crictl(&["inspecti", "--output", "json", name]);
        found.status.success().then(|| found.json().unwrap()["status"].clone())
    }

    /// Bytes on the disk under one of containerd's or the store's folders.
    pub fn disk_usage(&self, folder: &str) -> u64 {
        let folder = self.scratch.path().join(folder);
        let ran = run(&in_path("du").unwrap(), &["-sk", text(&folder)], &[], b"").unwrap().ok().unwrap();
        ran.stdout.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    /// Ends it in good order: nothing of it is left mounted, or running.
    pub fn stop(self) {
        let failed = self.program.log().unwrap();
        let failed = failed.lines().find(|line| line.contains("panic:"));
        assert_eq!(failed, None);
        self.program.terminate().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(text(self.scratch.path())), "{mounts}");
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn config(version: Version, folder: &Path, collector: &str) -> String {
    let disabled = [
        "internal.v1.restart",
        "internal.v1.tracing",
        "monitor.container.v1.restart",
        "nri.v1.nri",
        "snapshotter.v1.aufs",
        "snapshotter.v1.blockfile",
        "snapshotter.v1.btrfs",
        "snapshotter.v1.devmapper",
        "snapshotter.v1.erofs",
        "snapshotter.v1.native",
        "snapshotter.v1.zfs",
        "tracing.processor.v1.otlp",
    ]
    .map(|plugin| format!("'io.containerd.{plugin}'"))
    .join(", ");
    let (number, required) = match version {
        Version::Two => (3, "'io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images'"),
        Version::OneSeven => (2, "'io.containerd.grpc.v1.cri'"),
    };
    let folder = folder.display();
    format!(
        "version = {number}\n\
         root = '{folder}/root'\n\
         state = '{folder}/state'\n\
         temp = '{folder}/temp'\n\
         disabled_plugins = [{disabled}]\n\
         required_plugins = [{required}]\n\
         [grpc]\n\
         address = '{folder}/containerd.sock'\n\
         [plugins.'io.containerd.internal.v1.opt']\n\
         path = '{folder}/opt'\n\
         [plugins.'io.containerd.gc.v1.scheduler']\n\
         {collector}"
    )
}
