//! What an engine is told.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::PathBuf,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use larder_crds::{
    DiskReserve, ImageSource, NodeImage, NodeRemoval, NodeRemovalStatus, PullPolicy, RefreshRule, RetryDelays,
};
use larder_oci::{ImageKey, ImageName, Platform};
use larder_plan::{is_file_name, refresh::Seed};

use super::backoff::BackoffOptions;

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How long to wait after failures.
    pub backoff: BackoffOptions,
    /// How often the store and the runtime are checked for images that somebody else removed. The runtime tells of most
    /// changes by itself.
    pub check_interval: Duration,
    /// What decides at which moment tags are looked up: another number on each node.
    pub seed: Seed,
    /// A folder on the disk where the container runtime keeps images; without it, that of the program's own root where it runs
    /// in a container, else one of the usual ones.
    pub runtime_root: Option<PathBuf>,
    /// The folder that archives are loaded from. It need not be there as long as no image is to come from it.
    pub import_dir: Option<PathBuf>,
    /// The folder that archives are saved to. It need not be there as long as none is.
    pub export_dir: Option<PathBuf>,
    /// How long an image that the engine did not bring must have been here, and unused, before a rule takes it away.
    pub removal_grace: Duration,
    /// Leave images that the engine brought and that are no longer wanted where they are, its claim on them too.
    pub keep_unwanted: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            backoff: BackoffOptions::default(),
            check_interval: Duration::from_secs(30),
            seed: Seed::of(""),
            runtime_root: None,
            import_dir: None,
            export_dir: None,
            removal_grace: Duration::from_secs(600),
            keep_unwanted: false,
        }
    }
}

/// The images that the node is to hold, and what it has to respect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The generation of the object that says so; reported back once it has been taken up.
    pub generation: Option<i64>,
    /// The images, in the order in which they are reported.
    pub images: Vec<DesiredImage>,
    /// Images to keep without looking after them, under all their names.
    pub released: BTreeSet<ImageKey>,
    /// Images that are wanted later: nothing is done about them, whether they are there or not. Under all their names.
    pub deferred: BTreeSet<ImageKey>,
    /// What is to go.
    pub remove: Vec<NodeRemoval>,
    /// What had become of such rules when the engine started: what they have removed is counted on from there.
    pub removals_before: Vec<NodeRemovalStatus>,
    /// The free space that fetching an image must leave.
    pub disk_reserve: DiskReserve,
    /// How many images may be fetched at a time, from all registries.
    pub max_downloads: Option<usize>,
}

impl Desired {
    /// How each image is to be fetched. One that is wanted in two spellings is wanted as soon, and tried as long, as either
    /// says.
    pub(super) fn fetching(&self) -> BTreeMap<ImageKey, Fetching> {
        let mut fetching: BTreeMap<ImageKey, Fetching> = BTreeMap::new();
        for image in &self.images {
            let Ok(key) = &image.key else { continue };
            match fetching.entry(key.clone()) {
                Entry::Vacant(place) => drop(place.insert(Fetching::from(image))),
                Entry::Occupied(mut place) => place.get_mut().join(image),
            }
        }
        fetching
    }
}

/// How an image is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fetching {
    /// Where it comes from.
    pub source: Source,
    /// Higher is fetched first.
    pub priority: i32,
    /// Of the same priority, lower is fetched first.
    pub position: i32,
    /// How long one try may take.
    pub timeout: Option<Duration>,
    /// How long to wait after failures, where that is not as the engine's options say.
    pub retry: RetryDelays,
    /// The Secrets whose logins fetch it.
    pub pull_secrets: Vec<String>,
}

impl From<&DesiredImage> for Fetching {
    fn from(image: &DesiredImage) -> Self {
        let DesiredImage { priority, position, timeout, retry, .. } = *image;
        let pull_secrets = image.pull_secrets.clone();
        Self { source: image.source.clone(), priority, position, timeout, retry, pull_secrets }
    }
}

impl Fetching {
    fn join(&mut self, other: &DesiredImage) {
        let least = |one: Option<i64>, other: Option<i64>| one.into_iter().chain(other).min();
        self.priority = self.priority.max(other.priority);
        self.position = self.position.min(other.position);
        self.timeout = self.timeout.max(other.timeout);
        self.retry = RetryDelays {
            initial_seconds: least(self.retry.initial_seconds, other.retry.initial_seconds),
            max_seconds: least(self.retry.max_seconds, other.retry.max_seconds),
        };
        let more = other.pull_secrets.iter().filter(|&name| !self.pull_secrets.contains(name));
        let more: Vec<_> = more.cloned().collect();
        self.pull_secrets.extend(more);
    }
}

/// One image that the node is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredImage {
    /// Which image; where it can't be read, why.
    pub key: Result<ImageKey, String>,
    /// The name as it was given.
    pub image: String,
    /// The platform as it was given.
    pub platform: Option<String>,
    /// Whether the tag is looked up again when the engine starts, and fetched when a refresh finds that it has moved.
    pub always: bool,
    /// Further names for it.
    pub tags: Vec<ImageName>,
    /// Files in the export folder that are to hold it.
    pub archives: Vec<String>,
    /// Where it comes from.
    pub source: Source,
    /// Whether it is pinned in the runtime.
    pub pin: bool,
    /// Higher is fetched first.
    pub priority: i32,
    /// Of the same priority, lower is fetched first.
    pub position: i32,
    /// When its tag is looked up again.
    pub refresh: Vec<RefreshRule>,
    /// When it was last looked up, as far as somebody remembers from before the engine was started.
    pub refreshed: Option<Timestamp>,
    /// How long one try to fetch it may take.
    pub timeout: Option<Duration>,
    /// How long to wait after failures, where that is not as the engine's options say.
    pub retry: RetryDelays,
    /// The Secrets whose logins fetch it.
    pub pull_secrets: Vec<String>,
}

/// Where an image comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The registry in its name.
    #[default]
    Registry,
    /// An archive in the import folder: a file's name, which leads to no other folder.
    File(String),
    /// An archive that is an artifact in a registry.
    Artifact(ImageName),
}

impl DesiredImage {
    /// Reads a name and a platform, the host's where none is given; nothing further is wanted but that it is pinned.
    #[must_use]
    pub fn new(image: &str, platform: Option<&str>, always: bool) -> Self {
        Self {
            key: read_key(image, platform),
            image: image.to_owned(),
            platform: platform.map(str::to_owned),
            always,
            tags: Vec::new(),
            archives: Vec::new(),
            source: Source::Registry,
            pin: true,
            priority: 0,
            position: 0,
            refresh: Vec::new(),
            refreshed: None,
            timeout: None,
            retry: RetryDelays::default(),
            pull_secrets: Vec::new(),
        }
    }
}

impl From<&NodeImage> for DesiredImage {
    fn from(entry: &NodeImage) -> Self {
        let always = entry.pull_policy == PullPolicy::Always;
        let bare = Self::new(&entry.image, entry.platform.as_deref(), always);
        let (source, unreadable) = match entry.load.as_ref().map(read_source) {
            None => (Source::Registry, None),
            Some(Ok(source)) => (source, None),
            Some(Err(why)) => (Source::Registry, Some(why)),
        };
        let seconds = entry.pull_timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            key: unreadable.map_or(bare.key, Err),
            tags: entry.tags.iter().filter_map(|tag| tag.parse().ok()).collect(),
            archives: entry.save.iter().filter(|file| is_file_name(file)).cloned().collect(),
            source,
            pin: entry.pin,
            priority: entry.priority,
            position: entry.position,
            refresh: entry.refresh.clone(),
            timeout: seconds.filter(|&seconds| seconds > 0).map(Duration::from_secs),
            retry: entry.retry.unwrap_or_default(),
            pull_secrets: entry.pull_secrets.clone(),
            ..bare
        }
    }
}

fn read_key(image: &str, platform: Option<&str>) -> Result<ImageKey, String> {
    let name = image.parse().map_err(|error: larder_oci::InvalidName| error.to_string())?;
    let platform = platform
        .map_or_else(|| Ok(Platform::host()), str::parse)
        .map_err(|error: larder_oci::InvalidPlatform| error.to_string())?;
    Ok(ImageKey { name, platform })
}

/// The operator has checked it. It is looked at again: the name of a file becomes part of a path.
fn read_source(source: &ImageSource) -> Result<Source, String> {
    match (&source.file, &source.artifact) {
        (Some(file), None) if is_file_name(file) => Ok(Source::File(file.clone())),
        (Some(file), None) => Err(format!("{file:?} is no name of a file in the import folder")),
        (None, Some(artifact)) => artifact.parse().map(Source::Artifact).map_err(|error| error.to_string()),
        _ => Err("it is to be loaded neither from one file nor from one artifact".to_owned()),
    }
}

/// An image under all its names, where they can be read.
#[must_use]
pub fn all_names(image: &str, platform: Option<&str>, tags: &[String]) -> Vec<ImageKey> {
    let names = std::iter::once(image).chain(tags.iter().map(String::as_str));
    names.filter_map(|name| read_key(name, platform).ok()).collect()
}
