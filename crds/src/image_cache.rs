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

    /// Images to take off the nodes, whoever brought them, by name or by pattern; at most 64 rules. They are applied for as
    /// long as they are here, also to images that come later. An image that a container uses, running or stopped, that any
    /// ImageCache wants on the node, or that others have pinned stays, with all its names. So does one that came to the node,
    /// or that a container used, less than ten minutes ago: kubelet may be about to use it. Whether this object is Ready does
    /// not depend on what is still there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["image".into()]))]
    pub remove: Vec<RemovalRule>,

    /// Whether the images are pinned, so that kubelet's garbage collection leaves them alone. Of one that is not pinned and
    /// that kubelet takes, the layers stay, and it is put back. An image that several ImageCaches want is pinned if one of
    /// them says so. Pins that others have set stay. Where the runtime is spoken to through CRI alone, none can be set.
    #[serde(default = "pinned", skip_serializing_if = "Option::is_none")]
    pub pin: Option<bool>,

    /// The free space that fetching an image must leave on the node's disk: a percentage of the disk such as `10%`, or a
    /// quantity such as `20Gi`. It is looked at before the first layer is fetched, and what unpacking takes is counted (three
    /// times the size of a compressed layer); an image that does not fit fails with `InsufficientDisk`, and is tried
    /// again later and as soon as there is room. Absent: an image has to fit, and may fill the disk. Of several ImageCaches
    /// on a node the largest counts, for all images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = Rule::new(RESERVE_RULE).message(
        "diskReserve must be a percentage from 1% to 99%, such as 10%, or a quantity of bytes, such as 20Gi or 500M"
    ))]
    pub disk_reserve: Option<String>,

    /// Secrets of type kubernetes.io/dockerconfigjson, in the operator's namespace, whose logins fetch the images; at most 8.
    /// Of several that have a login for a registry, the one counts whose key names most of the repository's path, then the
    /// first by name. Where none has, the node's own logins are used. While one of them is not there or cannot be read,
    /// images that have to be fetched fail with `PullSecretUnavailable`. A new version is used from the next try on, within a
    /// minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub pull_secrets: Vec<PullSecret>,

    /// When tags are looked up again. A tag that has moved is fetched if the image's `pullPolicy` is Always; otherwise the
    /// status shows its old and its new digest. Absent: tags are looked up when an agent starts, if the policy is Always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,

    /// How long one try to fetch an image may take, such as `30m`; from 10s to 24h. Waiting for its turn does not count, nor
    /// giving it to the container runtime. What has been fetched by then is kept, and the next try goes on from there.
    /// Absent: as long as bytes arrive. Of several ImageCaches that give one, the longest counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = Rule::new(TIMEOUT_RULE).message(
        "pullTimeout must be a duration from 10s to 24h, written in hours, minutes and seconds, such as 30m or 1h30m"
    ))]
    pub pull_timeout: Option<String>,

    /// How long to wait before an image that failed is tried again. A change counts for the next try already. Of several
    /// ImageCaches the shortest counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// How many images a node may fetch at a time, from all registries, from 1 to 64; never more than three from one
    /// registry. An image counts until the container runtime has it; one that is loaded from a file does not count. A lower
    /// limit ends nothing that has begun. Absent: no limit over all registries, so that a slow one holds up no other. Of
    /// several ImageCaches on a node the smallest counts, for all images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent_downloads: Option<i32>,

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

/// A field that is not given says true, and the API server writes that down.
#[allow(
    clippy::unnecessary_wraps,
    reason = "the field's type: a Rust value that says nothing leaves it to the API server"
)]
fn pinned() -> Option<bool> {
    Some(true)
}

const RESERVE_RULE: &str = "self.matches('^([1-9][0-9]?%|[1-9][0-9]{0,14}([KMGT]i|[kMGT])?)$')";

const TIMEOUT_RULE: &str = "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('10s') && duration(self) <= duration('24h')";

/// Images to take off the nodes.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovalRule {
    /// Which images: a name, read as docker reads it (`nginx` is `docker.io/library/nginx:latest`), or a pattern with `*`,
    /// `?` and `[…]` over the whole name, such as `docker.io/library/nginx:1.1*` or `registry.corp/team/*`. A `*` stops at
    /// a `/`; `**` does not. A pattern that matches every image is refused. Of an image with several names those that match go,
    /// and the image goes with the last one.
    #[schemars(length(min = 1, max = 520))]
    #[x_kube(
        validation = Rule::new("!self.contains('://') && !self.matches('[[:space:]]')").message(
            "image must be a name or a pattern, such as registry.corp/team/app:v1 or registry.corp/team/*, without a scheme or white space"
        ),
        validation = Rule::new("self.matches('[a-zA-Z0-9]')").message(
            "image must not match every image: write at least a registry or a repository, such as registry.corp/team/*"
        )
    )]
    pub image: String,

    /// Images that stay although `image` matches them: names or patterns, where `*` also matches a `/`; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 520)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub except: Vec<String>,

    /// How many of the images that `image` matches stay in each repository, those made last first, as their configurations
    /// say, and of those made at the same time those that came last; from 0 to 1000. Two tags of one image are one image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub keep_newest: Option<i32>,

    /// Whether the images stay, and `status.removals` says which of them would go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A Secret with logins.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullSecret {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message(
        "name must be the name of a Secret in the operator's namespace: lower-case letters, digits, - and ."
    ))]
    pub name: String,
}

/// When tags are looked up again: by the clock (`interval`) or by the calendar (`schedule`).
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.interval) != has(self.schedule)").message(
        "refresh needs either an interval, such as 1h, or a schedule, such as '0 3 * * *', and not both"
    ),
    validation = Rule::new("!has(self.timeZone) || has(self.schedule)").message(
        "refresh.timeZone goes with refresh.schedule: an interval has no time zone"
    )
)]
pub struct Refresh {
    /// The time from one look to the next, such as `1h`; from 1m to 720h. Nodes do not look at the same moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = Rule::new(INTERVAL_RULE).message(
        "refresh.interval must be a duration from 1m to 720h, written in hours, minutes and seconds, such as 30m or 1h"
    ))]
    pub interval: Option<String>,

    /// The times to look, as cron has them: minute, hour, day of the month, month, day of the week, such as `0 3 * * *`;
    /// or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Nodes look within a minute from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 6, max = 100))]
    #[x_kube(validation = Rule::new("self.startsWith('@') || self.matches('^[^[:space:]]+( +[^[:space:]]+){4}$')").message(
        "refresh.schedule must have five fields, minute, hour, day of the month, month and day of the week, such as '0 3 * * *'; a time zone goes into refresh.timeZone"
    ))]
    pub schedule: Option<String>,

    /// The time zone of the schedule, a name of the IANA database such as `Europe/Berlin`. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$')").message(
        "refresh.timeZone must be a name of the IANA time zone database, such as Europe/Berlin or UTC"
    ))]
    pub time_zone: Option<String>,
}

const INTERVAL_RULE: &str = "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('720h')";

/// How long to wait before an image that failed is tried again. The wait doubles from the first to the longest, and up to as
/// much again is added at random.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.initialDelay) || !has(self.maxDelay) || duration(self.initialDelay) <= duration(self.maxDelay)"
).message("retry.initialDelay must not be longer than retry.maxDelay"))]
pub struct Retry {
    /// The first wait, such as `5s`; from 1s to 1h. Absent: a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = Rule::new(DELAY_RULE).message("retry.initialDelay must be a duration from 1s to 1h, such as 5s"))]
    pub initial_delay: Option<String>,

    /// The longest wait, such as `5m`; from 1s to 1h. Absent: two and a half minutes. What a registry asks for with
    /// `Retry-After` may be longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 20))]
    #[x_kube(validation = Rule::new(DELAY_RULE).message("retry.maxDelay must be a duration from 1s to 1h, such as 5m"))]
    pub max_delay: Option<String>,
}

const DELAY_RULE: &str = "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')";

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
    /// time the node's agent starts, and at each refresh.
    #[serde(default)]
    pub pull_policy: PullPolicy,

    /// The platform to fetch, such as `linux/arm64` or `linux/arm/v7`. Absent: the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 64))]
    #[x_kube(validation = Rule::new(PLATFORM_RULE).message(
        "platform must be os/architecture[/variant], such as linux/amd64 or linux/arm/v7"
    ))]
    pub platform: Option<String>,

    /// Further names for the same image on the node, read as docker reads them; at most 16. Pods can use the image under
    /// each of them; no registry is asked for them. They move when the image moves, and go when they are taken off the list,
    /// or with the image; a pod that runs keeps them. A name that is an image of its own, or that another image has as a
    /// tag, is refused; so is one that a person has given to something else on the node: then the image fails there with
    /// `NameConflict`, and stays. Where the runtime is spoken to through CRI alone, it can be given none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tags: Vec<String>,

    /// An archive of the image that is kept in the node's export folder, up to date, in the form that `docker load` reads,
    /// under the image's name and its `tags`. It goes when it is not asked for any more, unless somebody has replaced it or
    /// the image stays (`deletionPolicy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<Archive>,

    /// Where the image comes from, instead of the registry in its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<ImageSource>,

    /// Images of a higher priority are fetched first, from -1000 to 1000; of the same priority in the order of the list.
    /// What failed goes behind what has not. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,
}

/// An archive of an image.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// The file's name in the node's export folder; its ending says how it is compressed: `.tar`, `.tar.gz`, `.tar.bz2` or
    /// `.tar.zst`. One file holds one image.
    #[schemars(length(min = 5, max = 128))]
    #[x_kube(
        validation = Rule::new(FILE_RULE).message(FILE_MESSAGE),
        validation = Rule::new("self.matches('[.]tar([.](gz|bz2|zst))?$')").message(
            "save.file must end in .tar, .tar.gz, .tar.bz2 or .tar.zst: the ending says how the archive is compressed"
        )
    )]
    pub file: String,
}

const FILE_RULE: &str = "self.matches('^[a-zA-Z0-9][a-zA-Z0-9._-]*$')";

const FILE_MESSAGE: &str = "file must be a file's name in the node's folder, of letters, digits, '.', '_' and '-', such as app-v1.tar.gz: it cannot lead to another folder";

/// Where an image comes from instead of its registry: an archive in the form that `docker save` writes, or OCI's. Of an
/// archive with several images the one of this name is taken; of one with a single image, that one.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.file) != has(self.artifact)").message(
    "load needs either a file in the node's import folder or an artifact in a registry, and not both"
))]
pub struct ImageSource {
    /// An archive in the node's import folder, compressed or not. It is loaded within half a minute after it has come. With the
    /// `pullPolicy` Always, a file that has changed is loaded again when the agent starts and at each refresh. A node that has
    /// the image does not need the file any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(FILE_RULE).message(FILE_MESSAGE))]
    pub file: Option<String>,

    /// An archive that is an OCI artifact in a registry, `[registry/]repository[:tag][@digest]`: its manifest has one layer,
    /// the archive. The logins in `pullSecrets` are used for it. With the `pullPolicy` Always, an artifact whose tag has moved
    /// is loaded again when the agent starts and at each refresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 520))]
    #[x_kube(validation = Rule::new(IMAGE_RULE).message(
        "load.artifact must be [registry/]repository[:tag][@digest], such as registry.corp/archives/app:v1"
    ))]
    pub artifact: Option<String>,
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
    /// An image that is present is not fetched again. With `refresh` its tag is looked up, and the status shows that it has moved.
    #[default]
    IfNotPresent,
    /// A tag is looked up again each time the agent starts, and whenever `refresh` says so; what it stands for then is fetched.
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

    /// What the rules in `spec.remove` match, over all nodes, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub removals: Vec<RemovalSummary>,

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
    /// The digest that the tag stands for in the registry now, where that is another than nodes hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_digest: Option<String>,
    /// The size on one node in bytes, compressed as in the registry: manifest, configuration and layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Nodes that hold it.
    pub nodes_ready: i32,
    /// Nodes on which it failed.
    pub nodes_failed: i32,
}

/// What one rule in `spec.remove` matches, over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovalSummary {
    /// The rule's `image`; a name in full.
    pub image: String,
    /// Whether the rule only says what would go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Nodes on which it matches images that are there and that nothing but a container keeps there.
    pub nodes: i32,
    /// Images that would go, or that go once they have been on the node, and unused, for ten minutes; counted on each node.
    pub images: i32,
    /// Images that stay since containers use them, counted on each node.
    pub in_use: i32,
    /// Images that are gone, counted on each node since the rule came to it; one that came again and went again counts twice.
    pub removed: i32,
    /// The names of images that would go or are in use, at most ten, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub names: Vec<String>,
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
