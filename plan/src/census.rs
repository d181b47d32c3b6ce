//! How the whole cluster stands, in numbers: what the operator's metrics show.

use std::collections::BTreeMap;

use larder_crds::{ConditionType, FailureReason, ImageCacheStatus, ImageState, NodeImageStatus, PullCount};

use crate::index::{Index, NodeCache};

/// Counts over all objects. A key that nothing counts under is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// `ImageCache`s, by what their status says.
    pub caches: BTreeMap<CacheStanding, u64>,
    /// Nodes, each once, however many `ImageCache`s select it.
    pub nodes: BTreeMap<NodeStanding, u64>,
    /// Images on nodes: one for each node and image that it is to hold.
    pub images: BTreeMap<ImageStanding, u64>,
    /// Images on nodes that failed, by reason.
    pub failures: BTreeMap<FailureReason, u64>,
    /// Bytes of the images that nodes are to hold, as far as their sizes are known.
    pub bytes_wanted: u64,
    /// Bytes of these that are on the nodes.
    pub bytes_present: u64,
    /// What agents have fetched since [`Index::count_pulls`].
    pub pulls: PullCount,
}

/// How an `ImageCache` stands, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CacheStanding {
    /// A person has to do something.
    Stalled,
    /// Something fails, and is tried again.
    Degraded,
    /// Work is under way, or no operator has seen it yet.
    Progressing,
    /// All that it asks for is there.
    Ready,
}

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeStanding {
    /// At least one image failed.
    Failed,
    /// It has images to hold, and no agent has reported.
    NoAgent,
    /// Images are on their way.
    Progressing,
    /// It holds all that it is to hold.
    Ready,
    /// There is nothing that it is to hold.
    Unselected,
}

/// How an image on a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageStanding {
    /// It failed, and is tried again.
    Failed,
    /// Its bytes are on the node, and on their way into the runtime.
    Delivering,
    /// Its turn has not come.
    Pending,
    /// It is being fetched.
    Pulling,
    /// It is there.
    Ready,
    /// It is there, and archives of it are being written.
    Saving,
    /// The agent has not said anything of it yet.
    Unreported,
}

impl Index {
    /// Counts everything. Work in proportion to the number of nodes, however many images they hold.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census { pulls: self.pulls, ..Census::default() };
        for status in self.cache_statuses() {
            *census.caches.entry(cache_standing(status)).or_default() += 1;
        }
        for node_cache in self.node_caches_of_nodes() {
            census.add_node(node_cache);
        }
        census
    }
}

/// What the images of one node come to. It changes with the node's object alone, and is counted once for each change: who asks
/// for the census adds up nodes, and does not look at their images.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    images: BTreeMap<ImageStanding, u64>,
    failures: BTreeMap<FailureReason, u64>,
    wanted: u64,
    bytes_wanted: u64,
    bytes_present: u64,
}

impl Tally {
    /// Counts an image that the node is to hold, and how it stands, as far as is known.
    pub fn count(&mut self, standing: Option<&NodeImageStatus>) {
        self.wanted += 1;
        let size = bytes(standing.and_then(|standing| standing.size));
        self.bytes_wanted += size;
        let kind = match standing.map(|standing| standing.state) {
            // In use: wanted again a moment ago, of which its agent has not heard. Unknown: in a newer agent's words.
            None | Some(ImageState::InUse | ImageState::Unknown) => ImageStanding::Unreported,
            Some(ImageState::Pending) => ImageStanding::Pending,
            Some(ImageState::Pulling) => ImageStanding::Pulling,
            Some(ImageState::Delivering) => ImageStanding::Delivering,
            Some(ImageState::Saving) => ImageStanding::Saving,
            Some(ImageState::Failed) => ImageStanding::Failed,
            Some(ImageState::Ready) => ImageStanding::Ready,
        };
        if kind == ImageStanding::Ready {
            self.bytes_present += size;
        } else {
            let present = bytes(standing.and_then(|standing| standing.bytes_present));
            self.bytes_present += present.min(size);
        }
        if kind == ImageStanding::Failed {
            let reason = standing.and_then(|standing| standing.reason).unwrap_or(FailureReason::StoreError);
            *self.failures.entry(reason).or_default() += 1;
        }
        *self.images.entry(kind).or_default() += 1;
    }

    /// Whether every image is there.
    pub fn has_all(&self) -> bool {
        self.number(ImageStanding::Ready) == self.wanted
    }

    fn number(&self, standing: ImageStanding) -> u64 {
        self.images.get(&standing).copied().unwrap_or(0)
    }
}

impl Census {
    fn add_node(&mut self, node_cache: Option<&NodeCache>) {
        let standing = node_cache.map_or(NodeStanding::Unselected, |held| {
            let tally = held.tally();
            self.add(tally);
            if tally.wanted == 0 {
                NodeStanding::Unselected
            } else if tally.number(ImageStanding::Failed) > 0 {
                NodeStanding::Failed
            } else if tally.has_all() {
                NodeStanding::Ready
            } else if !held.has_agent {
                NodeStanding::NoAgent
            } else {
                NodeStanding::Progressing
            }
        });
        *self.nodes.entry(standing).or_default() += 1;
    }

    fn add(&mut self, tally: &Tally) {
        for (standing, number) in &tally.images {
            *self.images.entry(*standing).or_default() += number;
        }
        for (reason, number) in &tally.failures {
            *self.failures.entry(*reason).or_default() += number;
        }
        self.bytes_wanted += tally.bytes_wanted;
        self.bytes_present += tally.bytes_present;
    }
}

fn bytes(count: Option<i64>) -> u64 {
    count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

fn cache_standing(status: &ImageCacheStatus) -> CacheStanding {
    let holds = |kind: ConditionType| {
        let mut conditions = status.conditions.iter();
        conditions.any(|condition| condition.type_ == kind.as_str() && condition.status == "True")
    };
    if holds(ConditionType::Stalled) {
        CacheStanding::Stalled
    } else if holds(ConditionType::Degraded) {
        CacheStanding::Degraded
    } else if holds(ConditionType::Ready) {
        CacheStanding::Ready
    } else {
        CacheStanding::Progressing
    }
}
