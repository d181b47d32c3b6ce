//! A control plane with Larder on it, and what tests ask of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use larder_tests::{ControlPlane, Image, Layer, Program, Scratch, larder, until, wait::PATIENCE};
use serde_json::{Value, json};

/// A control plane, an operator, and an agent for each node.
pub struct Larder {
    // In this order: programs end before what they talk to.
    pub operator: Program,
    agents: BTreeMap<String, Program>,
    pub cluster: ControlPlane,
    pub scratch: Scratch,
}

impl Larder {
    /// Starts all of it, with these nodes and their labels.
    pub fn start(nodes: &[(&str, &[(&str, &str)])]) -> Self {
        let cluster = ControlPlane::start().unwrap();
        cluster.install_crds().unwrap();
        let scratch = Scratch::new("larder").unwrap();
        let operator = larder::operator(cluster.kubeconfig(), scratch.path()).unwrap();
        operator.start().unwrap();
        let mut started = Self { operator, agents: BTreeMap::new(), cluster, scratch };
        for (node, labels) in nodes {
            started.join(node, labels);
        }
        started
    }

    /// A node joins: its Node object, and its agent.
    pub fn join(&mut self, node: &str, labels: &[(&str, &str)]) {
        self.cluster.create_node(node, labels).unwrap();
        self.start_agent(node, &[]);
    }

    /// Starts the agent of a node, with further arguments.
    pub fn start_agent(&mut self, node: &str, more: &[&str]) {
        let agent =
            larder::agent(self.cluster.kubeconfig(), node, &self.store(node), self.scratch.path()).unwrap();
        // Short waits: a test that mends something should not wait for minutes to see it noticed.
        let agent = agent.args(["--max-backoff", "2", "--check-interval", "2"]).args(more);
        agent.start().unwrap();
        self.agents.insert(node.to_owned(), agent);
    }

    /// The agent of a node.
    pub fn agent(&self, node: &str) -> &Program {
        &self.agents[node]
    }

    /// All agents.
    pub fn agents(&self) -> impl Iterator<Item = &Program> {
        self.agents.values()
    }

    /// The layer store of a node.
    pub fn store(&self, node: &str) -> PathBuf {
        self.scratch.path().join(format!("store-{node}"))
    }

    /// Applies an ImageCache, as a person would.
    pub fn apply(&self, name: &str, spec: &Value) {
        self.cluster.apply(&image_cache(name, spec)).unwrap();
    }

    /// Deletes an ImageCache.
    pub fn delete(&self, name: &str) {
        self.cluster.kubectl(&["delete", "imagecache", name]).unwrap();
    }

    /// Waits until something is true of an ImageCache whose status describes its present generation.
    pub fn wait_cache(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = until(&format!("ImageCache {name}: {what}"), PATIENCE, || {
            last = self.cluster.get(&["imagecache", name]).ok()?;
            let current = last["status"]["observedGeneration"] == last["metadata"]["generation"];
            (current && is(&last["status"])).then(|| last.clone())
        });
        found.unwrap_or_else(|error| panic!("{error}\n{last:#}"))
    }

    /// Waits until the ImageCache is ready with so many nodes selected.
    pub fn wait_ready(&self, name: &str, nodes: i64) -> Value {
        self.wait_cache(name, &format!("ready on {nodes} nodes"), |status| {
            condition(status, "Ready")["status"] == "True"
                && status["nodes"]
                    == json!({"selected": nodes, "ready": nodes, "progressing": 0, "failed": 0, "waiting": 0,
                        "unavailable": 0})
        })
    }

    /// Waits until a failure with this reason is reported for the image, and gives it.
    pub fn wait_failure(&self, name: &str, image: &str, reason: &str) -> Value {
        let find = |status: &Value| {
            let failures = status["failures"].as_array().cloned().unwrap_or_default();
            failures.into_iter().find(|failure| failure["image"] == image && failure["reason"] == reason)
        };
        let cache =
            self.wait_cache(name, &format!("{image} fails with {reason}"), |status| find(status).is_some());
        find(&cache["status"]).unwrap()
    }

    /// The names of the images that a node's store holds.
    pub fn held(&self, node: &str) -> BTreeSet<String> {
        names(&self.store(node))
    }

    /// Waits until a node's store holds just these images.
    pub fn wait_held(&self, node: &str, images: &[&str]) {
        let wanted: BTreeSet<String> = images.iter().map(|&image| image.to_owned()).collect();
        let held = until(&format!("{node} to hold {wanted:?}"), PATIENCE, || {
            (self.held(node) == wanted).then_some(())
        });
        held.unwrap_or_else(|error| panic!("{error}; it holds {:?}", self.held(node)));
    }

    /// Waits until a blob is gone from, or there in, a node's store.
    pub fn wait_blob(&self, node: &str, digest: &str, there: bool) {
        let path = blob(&self.store(node), digest);
        until(&format!("{digest} on {node}: {there}"), PATIENCE, || (path.exists() == there).then_some(()))
            .unwrap();
    }
}

/// The manifest of an ImageCache.
pub fn image_cache(name: &str, spec: &Value) -> String {
    let kind = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache"});
    let mut object = kind;
    object["metadata"] = json!({"name": name});
    object["spec"] = spec.clone();
    object.to_string()
}

/// A specification with just these images, on nodes with this label.
pub fn images(label: Option<(&str, &str)>, images: &[&str]) -> Value {
    let images: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
    match label {
        Some((key, value)) => json!({"nodeSelector": {"matchLabels": {key: value}}, "images": images}),
        None => json!({"images": images}),
    }
}

/// A condition by its type; null when there is none.
pub fn condition(status: &Value, kind: &str) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

/// The names in a store's index.
pub fn names(store: &Path) -> BTreeSet<String> {
    let Ok(text) = std::fs::read(store.join("index.json")) else { return BTreeSet::new() };
    let index: Value = serde_json::from_slice(&text).unwrap();
    let manifests = index["manifests"].as_array().cloned().unwrap_or_default();
    let name =
        |entry: &Value| entry["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned);
    manifests.iter().filter_map(name).collect()
}

/// Where a store keeps a blob.
pub fn blob(store: &Path, digest: &str) -> PathBuf {
    store.join("blobs").join(digest.replace(':', "/"))
}

/// Every blob of the store whose bytes do not have the digest that its name says.
pub fn damaged(store: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(store.join("blobs/sha256")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            let digest = larder_oci::Digest::sha256(&std::fs::read(path).unwrap());
            digest.hex() != path.file_name().unwrap().to_str().unwrap()
        })
        .collect()
}

/// An image of some random layers, each given by its seed and size in bytes.
pub fn image(layers: &[(u64, usize)]) -> Image {
    let build = layers
        .iter()
        .fold(Image::builder(), |builder, &(seed, size)| builder.layer(&Layer::random(seed, size).unwrap()));
    build.build().unwrap()
}
