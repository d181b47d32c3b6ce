//! `NodeImageCache`: the contract between operator and agent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteCount, DeletionPolicy, FailureReason, ImageSource, PullPolicy};

/// What one node is to hold, and what it holds.
#[derive(CustomResource, JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "NodeImageCache",
    plural = "nodeimagecaches",
    shortname = "nic",
    category = "larder",
    status = "NodeImageCacheStatus",
    derive = "PartialEq",
    doc = "A NodeImageCache says which images one node is to hold (spec, written by the operator alone) and which it holds (status, written by that node's agent alone). It has the node's name and goes with the node. Read it; write ImageCaches.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the node holds every image"
    ),
    printcolumn(
        name = "Images",
        type_ = "string",
        json_path = ".status.summary.images",
        description = "Images that the node holds, of those wanted"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.summary.progress",
        description = "Bytes on the node, of those wanted"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Agent",
        type_ = "string",
        priority = 1,
        json_path = ".status.agent.version",
        description = "The version of the node's agent"
    ),
    printcolumn(
        name = "Runtime",
        type_ = "string",
        priority = 1,
        json_path = ".status.agent.runtime",
        description = "The container runtime that the node's images are given to"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "How the node stands, in a sentence"
    )
)]
pub struct NodeImageCacheSpec {
    /// The images to hold: the union of all ImageCaches that select the node, in order of name and platform.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub images: Vec<NodeImage>,

    /// Images to keep although no ImageCache wants them any more, because one with the deletion policy Retain was
    /// deleted. The agent gives up its claim on them; the operator takes an entry away once the agent has seen it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub released: Vec<ReleasedImage>,

    /// Images that an ImageCache wants here, whose turn has not come, and that the node may have: they are not fetched,
    /// and not removed where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub deferred: Vec<DeferredImage>,

    /// Images to take off the node: the rules of all ImageCaches that select it, in order of cache and pattern.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub remove: Vec<NodeRemoval>,

    /// The free space that fetching an image must leave. Both hold where both are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_reserve: Option<DiskReserve>,

    /// How many images may be fetched at a time. Absent: no limit over all registries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_downloads: Option<i32>,
}

/// Images to take off the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRemoval {
    /// The ImageCache whose rule it is.
    pub cache: String,
    /// Which images: a canonical name, or a pattern.
    pub image: String,
    /// Images that stay all the same: canonical names or patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// How many stay in each repository, those made last first. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_newest: Option<i32>,
    /// Whether they stay, and are only told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Free space on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskReserve {
    /// As a percentage of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
}

/// One image that a node is to hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeImage {
    /// The image's canonical name, such as `docker.io/library/ubuntu:24.04`.
    pub image: String,
    /// The platform. Absent: the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Always if any ImageCache says so.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Further names for it on the node, canonical.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The files in the node's export folder that are to hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub save: Vec<String>,
    /// Where it comes from. Absent: the registry in its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<ImageSource>,
    /// Whether kubelet's garbage collection is to leave it alone. Absent: yes.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub pin: bool,
    /// Higher is fetched first. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Its place in its ImageCache's list: of the same priority, the lower is fetched first. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub position: i32,
    /// When its tag is looked up again: at each time that one of these says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refresh: Vec<RefreshRule>,
    /// How long one try to fetch it may take, in seconds. Absent: as long as bytes arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_timeout_seconds: Option<i64>,
    /// How long to wait after failures. Absent: as the agent does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryDelays>,
    /// The Secrets, in the operator's namespace, whose logins fetch it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull_secrets: Vec<String>,
    /// The ImageCaches that want it. One that is gone and whose deletion policy was Retain stays on the list while
    /// others want the image, so that the image is released, not removed, when the last of them goes.
    pub wanted_by: Vec<WantedBy>,
}

impl Default for NodeImage {
    fn default() -> Self {
        Self {
            image: String::new(),
            platform: None,
            pull_policy: PullPolicy::default(),
            tags: Vec::new(),
            save: Vec::new(),
            load: None,
            pin: true,
            priority: 0,
            position: 0,
            refresh: Vec::new(),
            pull_timeout_seconds: None,
            retry: None,
            pull_secrets: Vec::new(),
            wanted_by: Vec::new(),
        }
    }
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn is_yes(answer: &bool) -> bool {
    *answer
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// When a tag is looked up again: by the clock or by the calendar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefreshRule {
    /// Seconds from one look to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<i64>,
    /// The times to look, as cron has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The schedule's time zone. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// How long to wait after failures, in seconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct RetryDelays {
    /// The first wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_seconds: Option<i64>,
    /// The longest wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<i64>,
}

/// An `ImageCache` that wants an image. With the name alone the operator could not tell, after a restart, an object
/// that was edited from one that was deleted and made anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WantedBy {
    /// The ImageCache's name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// What is to happen when it is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// An image that stays on the node without anybody wanting it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleasedImage {
    /// The image's canonical name.
    pub image: String,
    /// The platform. Absent: the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Further names for it on the node, canonical.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// An image whose turn has not come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeferredImage {
    /// The image's canonical name.
    pub image: String,
    /// The platform. Absent: the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Further names for it on the node, canonical.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// What one node holds, as its agent last saw it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeImageCacheStatus {
    /// The generation of the specification that the agent has taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The agent that runs on the node. Absent until one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,

    /// Ready: the node holds every image that it is to hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// How each image stands, in the specification's order; then those that nobody wants any more and that stay while
    /// containers use them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub images: Vec<NodeImageStatus>,

    /// The bytes that the node holds, of those wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteCount>,

    /// What the rules in `spec.remove` match here, those that match or have matched something, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub removals: Vec<NodeRemovalStatus>,

    /// What the node's agents have fetched so far. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulls: Option<PullCount>,

    /// The same for people: what `kubectl get` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<NodeStatusSummary>,
}

/// The agent that runs on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct AgentInfo {
    /// Its version.
    pub version: String,
    /// The node's platform: what an image without a `platform` is fetched for.
    pub platform: String,
    /// The container runtime that images are given to, such as `containerd v2.2.1`. Absent: there is none, or it has not
    /// been reached yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub runtime: Option<String>,
}

/// What a rule for removal matches on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRemovalStatus {
    /// The ImageCache whose rule it is.
    pub cache: String,
    /// The rule's `image`.
    pub image: String,
    /// Whether the rule only says what would go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Images that would go, or that go once they have been here, and unused, for ten minutes.
    pub images: i32,
    /// Images that stay since containers use them.
    pub in_use: i32,
    /// Images that are gone since the rule came to the node. An agent that is restarted counts on from here.
    pub removed: i32,
    /// The names of images that would go or are in use, at most ten, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub names: Vec<String>,
}

/// What the agents of a node have fetched since its `NodeImageCache` was made. The numbers only grow: an agent that is restarted
/// counts on from here, without what the last one had not written by its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PullCount {
    /// Images that were fetched; an archive counts as one. To find that a tag has not moved counts as nothing.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_COUNT))]
    pub images: i64,
    /// Tries to fetch an image that failed.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_COUNT))]
    pub failures: i64,
    /// Bytes of layers, configurations and archives that came, those of tries that failed included.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_COUNT))]
    pub bytes: i64,
    /// How long it took to fetch these images, in milliseconds: the sum of the tries that succeeded.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_COUNT))]
    pub milliseconds: i64,
}

/// The largest count: what JSON's readers take for a whole number.
const MAX_COUNT: i64 = (1 << 53) - 1;

impl PullCount {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.combine(other, i64::saturating_add)
    }

    /// What has been fetched since it was `before`: what is lower than that has not been read right, and counts as nothing.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        self.combine(before, |now, before| now.saturating_sub(before).max(0))
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.combine(other, i64::max)
    }

    fn combine(self, other: Self, with: fn(i64, i64) -> i64) -> Self {
        Self {
            images: with(self.images, other.images),
            failures: with(self.failures, other.failures),
            bytes: with(self.bytes, other.bytes),
            milliseconds: with(self.milliseconds, other.milliseconds),
        }
    }
}

/// How one image stands on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeImageStatus {
    /// The image's canonical name.
    pub image: String,
    /// The platform, where the specification gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Where the image stands.
    pub state: ImageState,
    /// The digest that the name stands for: the image index's where there is one, the manifest's otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The digest that its tag stands for in the registry, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_digest: Option<String>,
    /// When its tag was last looked up. Absent where nothing says that it is to be looked up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_time: Option<Time>,
    /// Its size in bytes: manifest, configuration and layers as the registry has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Bytes of it that are on the node, while they arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_present: Option<i64>,
    /// Why it failed, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// Why it failed, in a sentence that says what to do; or what uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// When the agent tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_time: Option<Time>,
}

impl NodeImageStatus {
    /// An image of which nothing more is known than where it stands.
    #[must_use]
    pub fn new(image: &str, platform: Option<&str>, state: ImageState) -> Self {
        Self {
            image: image.to_owned(),
            platform: platform.map(str::to_owned),
            state,
            digest: None,
            new_digest: None,
            refresh_time: None,
            size: None,
            bytes_present: None,
            reason: None,
            message: None,
            retry_time: None,
        }
    }
}

/// Where an image stands on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ImageState {
    /// Its turn has not come.
    Pending,
    /// It is being fetched.
    Pulling,
    /// All its bytes are on the node; the container runtime is being given it.
    Delivering,
    /// It is ready, and archives of it that are asked for are being written.
    Saving,
    /// The container runtime has it under all its names, unpacked, and pinned unless that is not wanted, and the archives that are asked for are there. On a node without one: the layer store has it, every byte
    /// verified.
    Ready,
    /// It could not be had; the agent tries again at `retryTime`.
    Failed,
    /// Nobody wants it any more; it stays while containers use it, which `message` names.
    InUse,
    /// A state that this version does not know: the agent is newer than its reader. It counts as work in progress. Agents
    /// never write it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// The status in words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatusSummary {
    /// Images ready of images wanted, such as `3/4`.
    pub images: String,
    /// How far the bytes are, such as `67%`.
    pub progress: String,
}
