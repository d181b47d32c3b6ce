//! `ImageCache`: what people write.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, Time},
    util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::FailureReason;

/// An `ImageCache` names container images and the nodes that are to hold them before pods need them.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "ImageCache",
    plural = "imagecaches",
    shortname = "ic",
    category = "larder",
    status = "ImageCacheStatus",
    derive = "PartialEq",
    doc = "An ImageCache names container images and the nodes that are to hold them before pods need them.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether every selected node holds every image"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.summary.nodes",
        description = "Nodes that hold every image, of those selected"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.summary.progress",
        description = "Bytes on the nodes, of those wanted"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is, or is not, ready"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Waiting",
        type_ = "integer",
        priority = 1,
        json_path = ".status.nodes.waiting",
        description = "Nodes whose turn has not come, or that a pause holds back"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "The same in a sentence"
    )
)]
pub struct ImageCacheSpec {
    /// Which nodes hold the images. Absent: every node that runs an agent. A selector that matches no node is no
    /// error: a node that matches later gets the images then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,

    /// The images to hold, each named once; at most 256.
    #[serde(default)]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["image".into()]))]
    pub images: Vec<CachedImage>,

    /// What a node keeps when this object is deleted. Delete: an image goes unless another ImageCache wants it.
    /// Retain: the images stay on the nodes, and Larder no longer looks after them. An image that is taken out of
    /// `images` goes in either case.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// How changes reach the nodes. Absent: all nodes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,

    /// Whether changes wait. While it is true, every node keeps what this object has given it: nothing new is fetched,
    /// nothing is removed, and what was begun before goes on. Deleting the object takes effect all the same.
    #[serde(default)]
    pub paused: bool,
}

/// How changes reach the nodes.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// How many nodes may be fetching what this object asks for at a time: a number of at least 1, or a percentage of
    /// the selected nodes, such as `20%`, rounded up. Absent: all of them. A node counts from the moment it is told until
    /// it holds all images or one has failed. Images that are only taken off the list go everywhere at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(CONCURRENCY_RULE).message(
        "maxConcurrentNodes must be a number of at least 1, or a percentage from 1% to 100%, such as 20%; to hold a roll-out back, set spec.paused to true"
    ))]
    pub max_concurrent_nodes: Option<IntOrString>,
}

const CONCURRENCY_RULE: &str =
    "type(self) == int ? int(self) >= 1 : string(self).matches('^([1-9][0-9]?|100)%$')";

/// One image to hold.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedImage {
    /// The image's name, `[registry/]repository[:tag][@digest]`, read as docker reads it: `ubuntu` is
    /// `docker.io/library/ubuntu:latest`.
    #[schemars(length(min = 1, max = 520))]
    #[x_kube(validation = Rule::new(IMAGE_RULE).message(Message::Expression(IMAGE_MESSAGE.to_owned())))]
    pub image: String,

    /// Whether a tag is looked up again although the node has the image. IfNotPresent, the default: never. Always: each
    /// time the node's agent starts.
    #[serde(default)]
    pub pull_policy: PullPolicy,

    /// The platform to fetch, such as `linux/arm64` or `linux/arm/v7`. Absent: the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 64))]
    #[x_kube(validation = Rule::new(PLATFORM_RULE).message(
        "platform must be os/architecture[/variant], such as linux/amd64 or linux/arm/v7"
    ))]
    pub platform: Option<String>,
}

/// Docker's grammar for references (<https://github.com/distribution/reference/blob/main/regexp.go>), with the two
/// digest algorithms that are supported.
const IMAGE_RULE: &str = r"self.matches('^((([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)([.][a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*:[0-9]+|[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)+)/)?[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(@(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}))?$')";

const IMAGE_MESSAGE: &str = "self.contains('://') ? 'image must not have a scheme: write registry.corp/app:v1, not https://registry.corp/app:v1' : self.matches('[[:space:]]') ? 'image must not contain white space' : self.contains('@') ? 'image has a malformed digest: write repository@sha256: and 64 lower-case hexadecimal digits' : self.matches('[A-Z][^:]*(:[^/]*)?$') ? 'image must have a lower-case repository name: write myapp:v1, not MyApp:v1' : 'image must be [registry/]repository[:tag][@digest], such as ubuntu:24.04 or registry.corp/team/app:v1'";

const PLATFORM_RULE: &str = "self.matches('^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?$')";

/// Whether an image that is present is looked up again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum PullPolicy {
    /// An image that is present is never looked up again.
    #[default]
    IfNotPresent,
    /// A tag is looked up again each time the agent starts.
    Always,
}

/// What a node keeps when an `ImageCache` is deleted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum DeletionPolicy {
    /// Its images go, unless another `ImageCache` wants them.
    #[default]
    Delete,
    /// Its images stay.
    Retain,
}

/// What the operator last saw of an `ImageCache`. Its size does not depend on the number of nodes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageCacheStatus {
    /// The generation of the object that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Reconciling, Stalled and Degraded. The first three follow kstatus, so that `kubectl wait` and Argo CD
    /// understand them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// How the selected nodes stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,

    /// How each image stands, over all selected nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageSummary>,

    /// What fails, at most ten samples, in order of node and image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failures: Vec<ImageFailure>,

    /// How many failures there are in all: one an image and node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures_total: Option<i32>,

    /// The bytes that the nodes hold, while they arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteCount>,

    /// The same for people: what `kubectl get` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<StatusSummary>,
}

/// How the selected nodes stand. The other fields add up to `selected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NodeCounts {
    /// Nodes that the selector matches.
    pub selected: i32,
    /// Nodes that hold every image.
    pub ready: i32,
    /// Nodes that are still fetching, none of whose images failed.
    pub progressing: i32,
    /// Nodes on which at least one image failed.
    pub failed: i32,
    /// Nodes that have not been told yet, since their turn has not come or the object is paused. They keep what they had.
    #[serde(default)]
    pub waiting: i32,
    /// Nodes that lack images and that nobody waits for: they are cordoned, or kubelet does not say that they are ready.
    #[serde(default)]
    pub unavailable: i32,
}

/// How one image stands, over all selected nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSummary {
    /// The image, as the specification names it.
    pub image: String,
    /// The digest that the nodes hold. Absent while no node has it, and where nodes hold different ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The size on one node in bytes, compressed as in the registry: manifest, configuration and layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Nodes that hold it.
    pub nodes_ready: i32,
    /// Nodes on which it failed.
    pub nodes_failed: i32,
}

/// One image that failed on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageFailure {
    /// The node.
    pub node: String,
    /// The image, as the specification names it.
    pub image: String,
    /// Why, in a word.
    pub reason: FailureReason,
    /// Why, in a sentence that says what to do.
    #[schemars(length(max = 512))]
    pub message: String,
    /// When the node tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_time: Option<Time>,
}

/// Bytes over all selected nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ByteCount {
    /// Bytes wanted. It grows while the sizes of images become known.
    pub total: i64,
    /// Bytes there already.
    pub present: i64,
}

/// The status in words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StatusSummary {
    /// Nodes ready of nodes selected, such as `38/40`.
    pub nodes: String,
    /// How far the bytes are, such as `67%`.
    pub progress: String,
}
