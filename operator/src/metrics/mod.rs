//! What is counted, and how it is shown: `OpenMetrics` text. `docs/operations.md` lists it for people.

mod labels;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use larder_crds::{FailureReason, PullCount};
use larder_plan::{
    Key,
    census::{CacheStanding, Census, ImageStanding, NodeStanding},
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use self::labels::{
    CacheLabels, FailureLabels, ImageLabels, Label, NodeLabels, PullLabels, PullResult, ReconcileLabels,
    WatchLabels, WriteLabels,
};
pub(crate) use self::labels::{KeyKind, ReconcileResult, WriteKind, WriteOutcome};
use crate::{queue::Depth, watch::Kind};

/// All metrics of the process.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Histogram>,
    writes: Family<WriteLabels, Counter>,
    watch_restarts: Family<WatchLabels, Counter>,
    leader: Gauge,
    queue_keys: Gauge,
    queue_age: Gauge<f64, AtomicU64>,
    caches: Counts<CacheStanding, CacheLabels>,
    nodes: Counts<NodeStanding, NodeLabels>,
    images: Counts<ImageStanding, ImageLabels>,
    failures: Counts<FailureReason, FailureLabels>,
    wanted_bytes: Gauge,
    present_bytes: Gauge,
    pulls: Pulls,
}

/// How things stand at the moment at which somebody asks.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Whether this process leads.
    pub leads: bool,
    pub queue: Depth,
    /// Absent while this process does not lead: one replica at a time shows the cluster.
    pub census: Option<Census>,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("larder");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The operator's version", build);
        // From a plan that changes nothing to a write that times out.
        let buckets = || Histogram::new(exponential_buckets(0.000_25, 4.0, 9));
        let reconciles = Family::new_with_constructor(buckets as fn() -> Histogram);
        registry.register_with_unit(
            "reconcile_duration",
            "How long a reconcile took, its write included",
            Unit::Seconds,
            reconciles.clone(),
        );
        let mut inner = Inner {
            reconciles,
            writes: Family::default(),
            watch_restarts: Family::default(),
            leader: Gauge::default(),
            queue_keys: Gauge::default(),
            queue_age: Gauge::default(),
            caches: Counts::new(|state| CacheLabels { state: Label(state) }),
            nodes: Counts::new(|state| NodeLabels { state: Label(state) }),
            images: Counts::new(|state| ImageLabels { state: Label(state) }),
            failures: Counts::new(|reason| FailureLabels { reason: Label(reason) }),
            wanted_bytes: Gauge::default(),
            present_bytes: Gauge::default(),
            pulls: Pulls::default(),
            registry,
        };
        inner.register();
        Self(Arc::new(inner))
    }

    /// A reconcile has ended.
    pub fn observe_reconcile(&self, key: &Key, result: ReconcileResult, took: Duration) {
        let kind = match key {
            Key::Node(_) => KeyKind::Node,
            Key::Cache(_) => KeyKind::Cache,
            Key::Rollout(_) => KeyKind::Rollout,
            Key::Secrets => KeyKind::Secrets,
        };
        let labels = ReconcileLabels { kind: Label(kind), result: Label(result) };
        self.0.reconciles.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A write has ended, or was not even sent.
    pub fn count_write(&self, kind: WriteKind, outcome: WriteOutcome) {
        self.0.writes.get_or_create(&WriteLabels { kind: Label(kind), outcome: Label(outcome) }).inc();
    }

    /// A watch lists everything anew.
    pub fn count_watch_restart(&self, kind: Kind) {
        self.0.watch_restarts.get_or_create(&WatchLabels { kind: Label(kind) }).inc();
    }

    /// Everything as `OpenMetrics` text.
    pub fn text(&self, snapshot: Snapshot) -> Result<String, fmt::Error> {
        self.0.show(snapshot);
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

impl Inner {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("writes", "Writes to the API server", self.writes.clone());
        registry.register(
            "watch_restarts",
            "How often a watch had to list everything anew",
            self.watch_restarts.clone(),
        );
        registry.register("leader_status", "Whether this replica leads: 1 or 0", self.leader.clone());
        registry.register("queue_keys", "Objects that wait to be reconciled", self.queue_keys.clone());
        registry.register_with_unit(
            "queue_age",
            "How long the object that waits longest has been waiting",
            Unit::Seconds,
            self.queue_age.clone(),
        );
        registry.register("image_caches", "ImageCaches, by state", self.caches.family.clone());
        registry.register("nodes", "Nodes, each once, by state", self.nodes.family.clone());
        registry.register(
            "node_images",
            "Images on nodes, by state: one for each node and image that it is to hold",
            self.images.family.clone(),
        );
        registry.register(
            "failed_node_images",
            "Images on nodes that failed, by reason",
            self.failures.family.clone(),
        );
        registry.register_with_unit(
            "node_images_wanted",
            "Size of the images that nodes are to hold, as far as it is known",
            Unit::Bytes,
            self.wanted_bytes.clone(),
        );
        registry.register_with_unit(
            "node_images_present",
            "Bytes of these images that are on the nodes",
            Unit::Bytes,
            self.present_bytes.clone(),
        );
        self.pulls.register(registry);
    }

    fn show(&self, snapshot: Snapshot) {
        self.leader.set(i64::from(snapshot.leads));
        self.queue_keys.set(whole(snapshot.queue.keys as u64));
        self.queue_age.set(snapshot.queue.oldest.as_secs_f64());
        if let Some(census) = &snapshot.census {
            self.pulls.advance(census.pulls);
        }
        let census = snapshot.census.unwrap_or_default();
        self.caches.set(&census.caches);
        self.nodes.set(&census.nodes);
        self.images.set(&census.images);
        self.failures.set(&census.failures);
        self.wanted_bytes.set(whole(census.bytes_wanted));
        self.present_bytes.set(whole(census.bytes_present));
    }
}

/// What agents have fetched, as counters: they stay where they are when this process does not lead any more.
#[derive(Debug, Default)]
struct Pulls {
    ended: Family<PullLabels, Counter>,
    bytes: Counter,
    seconds: Counter<f64, AtomicU64>,
    /// What they stand at.
    shown: Mutex<PullCount>,
}

impl Pulls {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "node_pulls",
            "Images that agents fetched, and tries that failed",
            self.ended.clone(),
        );
        registry.register_with_unit(
            "node_pull",
            "Bytes of layers, configurations and archives that agents received",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register_with_unit(
            "node_pull",
            "How long it took agents to fetch images: the sum over the tries that succeeded",
            Unit::Seconds,
            self.seconds.clone(),
        );
    }

    fn advance(&self, to: PullCount) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let more = to.since(*shown);
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        let ended = |result| self.ended.get_or_create(&PullLabels { result: Label(result) }).clone();
        ended(PullResult::Pulled).inc_by(count(more.images));
        ended(PullResult::Failed).inc_by(count(more.failures));
        self.bytes.inc_by(count(more.bytes));
        self.seconds.inc_by(Duration::from_millis(count(more.milliseconds)).as_secs_f64());
        // Two that ask at the same time may come here in either order.
        *shown = shown.max(to);
    }
}

/// Gauges for the values of a closed set.
#[derive(Debug)]
struct Counts<K, L> {
    family: Family<L, Gauge>,
    labels: fn(K) -> L,
    /// What has ever been counted under: it goes to zero, for a series that just ends keeps its last value in many a query.
    shown: Mutex<BTreeSet<K>>,
}

impl<K, L> Counts<K, L>
where
    K: Copy + Ord,
    L: Clone + Eq + Hash,
{
    fn new(labels: fn(K) -> L) -> Self {
        Self { family: Family::default(), labels, shown: Mutex::default() }
    }

    fn set(&self, counts: &BTreeMap<K, u64>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.extend(counts.keys());
        for key in shown.iter() {
            let count = counts.get(key).copied().unwrap_or(0);
            self.family.get_or_create(&(self.labels)(*key)).set(whole(count));
        }
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two replicas of Prometheus ask at the same time, and the older answer comes last.
    #[test]
    fn an_older_count_of_pulls_is_not_added_again() {
        let pulls = Pulls::default();
        for images in [100, 105, 100, 106] {
            pulls.advance(PullCount { images, bytes: images * 10, milliseconds: images * 500, failures: 0 });
        }
        let ended = pulls.ended.get_or_create(&PullLabels { result: Label(PullResult::Pulled) }).get();
        assert_eq!((ended, pulls.bytes.get()), (106, 1_060));
        assert!((pulls.seconds.get() - 53.0).abs() < 1e-9);
    }
}
