//! A control plane with Larder on it, and one node: its containerd and its agent.

use std::path::PathBuf;

use larder_tests::{
    Containerd, ContainerdVersion, ControlPlane, Image, Layer, Program, Scratch, larder, until,
    wait::PATIENCE,
};
use serde_json::{Value, json};

const NODE: &str = "n1";

pub struct Node {
    // In this order: programs end before what they talk to.
    _operator: Program,
    pub agent: Program,
    pub containerd: Containerd,
    pub cluster: ControlPlane,
    pub scratch: Scratch,
}

impl Node {
    /// Starts all of it. Nothing is looked at by the clock: what happens behind the agent's back it must notice.
    pub fn start() -> Self {
        let node = Self::new("containerd");
        node.agent.start().unwrap();
        node
    }

    /// The same with the agent not started yet. `interface` is how it speaks to containerd.
    pub fn new(interface: &str) -> Self {
        let cluster = ControlPlane::start().unwrap();
        cluster.install_crds().unwrap();
        cluster.create_node(NODE, &[]).unwrap();
        let containerd = Containerd::start(ContainerdVersion::V2).unwrap();
        let scratch = Scratch::new("node").unwrap();
        let operator = larder::operator(cluster.kubeconfig(), scratch.path()).unwrap();
        operator.start().unwrap();
        let store = scratch.path().join("store");
        let agent = larder::agent(cluster.kubeconfig(), NODE, &store, scratch.path()).unwrap().args([
            "--runtime",
            interface,
            "--runtime-endpoint",
            containerd.socket().to_str().unwrap(),
            "--max-backoff",
            "2",
            "--check-interval",
            "3600",
        ]);
        Self { _operator: operator, agent, containerd, cluster, scratch }
    }

    pub fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    /// Applies an ImageCache with these images.
    pub fn apply(&self, name: &str, images: &[&str]) {
        let images: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
        self.apply_spec(name, &json!({"images": images}));
    }

    pub fn apply_spec(&self, name: &str, spec: &Value) {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1",
            "kind": "ImageCache",
            "metadata": {"name": name},
            "spec": spec,
        });
        self.cluster.apply(&object.to_string()).unwrap();
    }

    pub fn delete(&self, name: &str) {
        self.cluster.kubectl(&["delete", "imagecache", name]).unwrap();
    }

    /// The node's status, where it describes what the node is to hold now.
    pub fn status(&self) -> Option<Value> {
        let object = self.cluster.get(&["nodeimagecache", NODE]).ok()?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        current.then(|| object["status"].clone())
    }

    /// Waits until something is true of it.
    pub fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = until(what, PATIENCE, || {
            last = self.status()?;
            is(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|error| panic!("{error}\n{last:#}"))
    }

    /// Waits until the node has so many images, all that it is to have.
    pub fn wait_ready(&self, images: usize) -> Value {
        let all = format!("{images}/{images}");
        self.wait(&format!("{all} images to be ready"), |status| status["summary"]["images"] == all)
    }

    /// Waits until an image stands like this in the status; `None`: until it is not listed.
    pub fn wait_state(&self, image: &str, state: Option<&str>) -> Value {
        let status = self.wait(&format!("{image} to be {state:?}"), |status| {
            standing(status, image)["state"].as_str() == state
        });
        standing(&status, image)
    }

    /// What kubelet would find under a name.
    pub fn cri_image(&self, name: &str) -> Option<Value> {
        let listed = self.containerd.crictl(&["images", "--output", "json"]).unwrap();
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let named = |image: &&Value| {
            let names = |field: &str| image[field].as_array().cloned().unwrap_or_default();
            names("repoTags").iter().chain(&names("repoDigests")).any(|found| found == name)
        };
        listed["images"].as_array()?.iter().find(named).cloned()
    }

    pub fn is_pinned(&self, name: &str) -> bool {
        self.cri_image(name).is_some_and(|image| image["pinned"] == true)
    }

    /// The names that containerd has for images.
    pub fn names(&self) -> Vec<String> {
        let names = self.containerd.ctr(&["images", "ls", "-q"]).unwrap();
        names.lines().map(str::to_owned).collect()
    }

    /// The digests that containerd has.
    pub fn content(&self) -> Vec<String> {
        let content = self.containerd.ctr(&["content", "ls", "-q"]).unwrap();
        content.lines().map(str::to_owned).collect()
    }

    /// The blobs whose files the store has.
    pub fn blobs(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.store().join("blobs/sha256")) else { return Vec::new() };
        let name = |entry: std::fs::DirEntry| format!("sha256:{}", entry.file_name().display());
        entries.map(|entry| name(entry.unwrap())).collect()
    }

    /// The events about the node's object: reasons and messages, with how often each was told.
    pub fn events(&self) -> Vec<(String, String, u64)> {
        let events = self.cluster.get(&["events.events.k8s.io", "--namespace", "default"]).unwrap();
        let about = |event: &&Value| event["regarding"]["kind"] == "NodeImageCache";
        let of = |event: &Value| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            (text("reason"), text("note"), event["series"]["count"].as_u64().unwrap_or(1))
        };
        events["items"].as_array().unwrap().iter().filter(about).map(of).collect()
    }

    /// Waits until an event with this reason names this, and gives how often such events were told.
    pub fn wait_event(&self, reason: &str, part: &str) -> u64 {
        let count = |events: &[(String, String, u64)]| {
            events.iter().filter(|(r, note, _)| r == reason && note.contains(part)).map(|event| event.2).sum()
        };
        let found = until(&format!("event {reason} of {part}"), PATIENCE, || {
            Some(count(&self.events())).filter(|&count: &u64| count > 0)
        });
        found.unwrap_or_else(|error| panic!("{error}\n{:#?}", self.events()))
    }
}

/// How an image stands in a node's status; null where it is not listed.
pub fn standing(status: &Value, image: &str) -> Value {
    let images = status["images"].as_array().cloned().unwrap_or_default();
    images.into_iter().find(|standing| standing["image"] == image).unwrap_or_default()
}

/// An image of some random layers, each given by its seed and size in bytes.
pub fn image(layers: &[(u64, usize)]) -> Image {
    let build = layers
        .iter()
        .fold(Image::builder(), |builder, &(seed, size)| builder.layer(&Layer::random(seed, size).unwrap()));
    build.build().unwrap()
}
