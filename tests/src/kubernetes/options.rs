//! How a cluster and its nodes are to be set up.

use serde_json::{Value, json};

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The nodes that it has from its start.
    pub nodes: Vec<NodeOptions>,
}

impl ClusterOptions {
    /// So many nodes: `node-1`, `node-2`, …
    #[must_use]
    pub fn nodes(count: u8) -> Self {
        Self { nodes: (1..=count).map(|number| NodeOptions::new(&format!("node-{number}"))).collect() }
    }
}

/// Which containerd a node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContainerdVersion {
    /// The newest, 2.x.
    #[default]
    V2,
    /// 1.7, which many nodes still have.
    V17,
}

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its name.
    pub name: String,
    /// Its containerd.
    pub containerd: ContainerdVersion,
    /// Labels that it registers with.
    pub labels: Vec<(String, String)>,
    /// Taints that it registers with, as fields of `v1.Taint`.
    pub taints: Vec<Value>,
    /// Fields of `KubeletConfiguration` that differ from what nodes have otherwise.
    pub kubelet: Value,
}

impl NodeOptions {
    /// A node with containerd 2, no labels of its own and no taints.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            containerd: ContainerdVersion::default(),
            labels: Vec::new(),
            taints: Vec::new(),
            kubelet: Value::Null,
        }
    }

    /// Another containerd.
    #[must_use]
    pub fn containerd(mut self, version: ContainerdVersion) -> Self {
        self.containerd = version;
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a taint. `effect` is such as `NoSchedule`.
    #[must_use]
    pub fn taint(mut self, key: &str, value: &str, effect: &str) -> Self {
        self.taints.push(json!({"key": key, "value": value, "effect": effect}));
        self
    }

    /// kubelet thinks that the disk is full, and would remove every image that is neither used nor pinned: see
    /// [`Node::collect_images`](super::Node::collect_images).
    #[must_use]
    pub fn short_of_disk(self) -> Self {
        self.kubelet(json!({
            "imageGCHighThresholdPercent": 1,
            "imageGCLowThresholdPercent": 0,
            // Zero would mean the default, two minutes; kubelet compares it with the time since it first saw an image.
            "imageMinimumGCAge": "-1s",
        }))
    }

    /// Fields of `KubeletConfiguration`, such as `{"imageGCHighThresholdPercent": 2}`.
    #[must_use]
    pub fn kubelet(mut self, config: Value) -> Self {
        self.kubelet = config;
        self
    }
}
