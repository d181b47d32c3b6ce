//! The three watches, and how what they bring gets into the index.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use larder_plan::{
    AllowList, Index,
    index::Dirty,
    object::{CacheObject, NodeCacheObject, NodeObject},
};

use crate::{
    explain,
    object::{RawImageCache, RawNode, RawNodeImageCache},
    probes::Shared,
    reconcile::Context,
};

/// How many objects a list is asked for at a time. A page is held as text, as JSON and decoded at the same time.
pub(crate) const PAGE: u32 = 50;

/// A watch that failed is tried again after this, then after longer and longer pauses, each up to twice as long with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// No pause is longer than this, up to twice as long with jitter. The client's own goes up to half a minute, and comes once more
/// after the API server is back, when it says that the watch has to list anew. One operator may ask more often.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The pauses between tries of one watch.
struct Pauses(ExponentialBackoff);

impl Pauses {
    fn new() -> Self {
        let pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LAST_PAUSE);
        Self(pauses.with_jitter().without_max_times().build())
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next().unwrap_or(LAST_PAUSE))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        *self = Self::new();
    }
}

/// A watch came to its end, which it never does while the process is in order.
#[derive(Debug, thiserror::Error)]
#[error("the watch on {0} ended; the process has to be started anew")]
pub struct WatchEnded(pub(crate) &'static str);

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    ImageCache,
    Node,
    NodeImageCache,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::ImageCache, Self::Node, Self::NodeImageCache];

    /// As people write it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::ImageCache => "ImageCaches",
            Self::Node => "Nodes",
            Self::NodeImageCache => "NodeImageCaches",
        }
    }
}

/// A change, as a watch tells it.
enum Change<T> {
    /// All objects are about to be listed; nothing has been asked yet.
    BeginList,
    /// One of all objects there are.
    Listing(T),
    /// Those were all; their names.
    Listed(HashSet<String>),
    Applied(T),
    /// The object of this name is gone.
    Deleted(String),
}

/// A watch on objects `K`, seen as `T`.
struct Watch<K, T> {
    kind: Kind,
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    see: fn(K) -> T,
    take_in: fn(&mut Index, Change<T>) -> Dirty,
    /// The names on the list that is being read.
    listing: HashSet<String>,
    has_listed: bool,
    shared: Arc<Shared>,
}

impl<K: ResourceExt + 'static, T> Watch<K, T> {
    /// The next change. Errors are logged; the stream tries again by itself, at growing intervals.
    async fn next(&mut self) -> Result<Change<T>, WatchEnded> {
        loop {
            match self.events.next().await {
                // The stream asks the API server when it is polled next.
                Some(Ok(Event::Init)) => {
                    self.begin_list();
                    return Ok(Change::BeginList);
                }
                // Taken in one by one: a list of all objects, decoded, is larger than the index of them.
                Some(Ok(Event::InitApply(object))) => {
                    self.listing.insert(object.name_any());
                    return Ok(Change::Listing((self.see)(object)));
                }
                Some(Ok(Event::InitDone)) => {
                    self.has_listed = true;
                    return Ok(Change::Listed(std::mem::take(&mut self.listing)));
                }
                Some(Ok(Event::Apply(object))) => return Ok(Change::Applied((self.see)(object))),
                Some(Ok(Event::Delete(object))) => return Ok(Change::Deleted(object.name_any())),
                Some(Err(error)) => log(self.kind, &error),
                None => return Err(WatchEnded(self.kind.plural())),
            }
        }
    }

    fn begin_list(&mut self) {
        self.listing.clear();
        if self.has_listed {
            self.shared.metrics.count_watch_restart(self.kind);
        }
    }

    /// Takes in the first complete list, and says how long it was.
    async fn first_list(&mut self, index: &RwLock<Index>) -> Result<usize, WatchEnded> {
        loop {
            let change = self.next().await?;
            let listed = if let Change::Listed(names) = &change { Some(names.len()) } else { None };
            (self.take_in)(&mut write(index), change);
            if let Some(length) = listed {
                self.shared.health.has_listed(self.kind);
                return Ok(length);
            }
        }
    }

    async fn follow(mut self, context: &Context) -> WatchEnded {
        loop {
            match self.next().await {
                Ok(change) => {
                    let dirty = (self.take_in)(&mut write(&context.index), change);
                    context.add(dirty);
                }
                Err(ended) => return ended,
            }
        }
    }
}

/// The watches on all that planning depends on.
pub(crate) struct Watches {
    caches: Watch<RawImageCache, CacheObject>,
    nodes: Watch<RawNode, NodeObject>,
    node_caches: Watch<RawNodeImageCache, NodeCacheObject>,
}

impl Watches {
    pub fn new(client: &Client, shared: &Arc<Shared>) -> Self {
        Self {
            caches: watch(
                Kind::ImageCache,
                client,
                shared,
                CacheObject::from,
                |index, change| match change {
                    Change::BeginList => {
                        index.begin_caches();
                        Dirty::new()
                    }
                    Change::Listing(object) => index.list_cache(object),
                    Change::Listed(names) => index.end_caches(&names),
                    Change::Applied(object) => index.apply_cache(object),
                    Change::Deleted(name) => index.delete_cache(&name),
                },
            ),
            nodes: watch(Kind::Node, client, shared, NodeObject::from, |index, change| match change {
                // Nobody but the watch brings Nodes.
                Change::BeginList => Dirty::new(),
                Change::Listing(object) | Change::Applied(object) => index.apply_node(object),
                Change::Listed(names) => index.end_nodes(&names),
                Change::Deleted(name) => index.delete_node(&name),
            }),
            node_caches: watch(
                Kind::NodeImageCache,
                client,
                shared,
                NodeCacheObject::from,
                |index, change| match change {
                    Change::BeginList => {
                        index.begin_node_caches();
                        Dirty::new()
                    }
                    Change::Listing(object) => index.list_node_cache(object),
                    Change::Listed(names) => index.end_node_caches(&names),
                    Change::Applied(object) => index.apply_node_cache(object),
                    Change::Deleted(name) => index.delete_node_cache(&name),
                },
            ),
        }
    }

    /// An index of the first complete list of each kind. Nobody sees it before.
    pub async fn first_lists(&mut self, allowed: AllowList) -> Result<Index, WatchEnded> {
        let index = RwLock::new(Index::allowing(allowed));
        let (image_caches, nodes, node_image_caches) = tokio::try_join!(
            self.caches.first_list(&index),
            self.nodes.first_list(&index),
            self.node_caches.first_list(&index)
        )?;
        tracing::info!(image_caches, nodes, node_image_caches, "all listed");
        Ok(index.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the index up to date and, while there is work, the queue filled. It comes back only when a watch has ended.
    pub async fn follow(self, context: &Context) -> WatchEnded {
        tokio::select! {
            ended = self.caches.follow(context) => ended,
            ended = self.nodes.follow(context) => ended,
            ended = self.node_caches.follow(context) => ended,
        }
    }
}

/// Never held across a wait.
fn write(index: &RwLock<Index>) -> RwLockWriteGuard<'_, Index> {
    index.write().unwrap_or_else(PoisonError::into_inner)
}

fn watch<K, T>(
    kind: Kind,
    client: &Client,
    shared: &Arc<Shared>,
    see: fn(K) -> T,
    take_in: fn(&mut Index, Change<T>) -> Dirty,
) -> Watch<K, T>
where
    K: ResourceExt<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let config = watcher::Config::default().page_size(PAGE);
    let events = watcher(Api::all(client.clone()), config).backoff(Pauses::new()).boxed();
    let shared = Arc::clone(shared);
    Watch { kind, events, see, take_in, listing: HashSet::new(), has_listed: false, shared }
}

fn log(kind: Kind, error: &watcher::Error) {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let kind = kind.plural();
    let (code, why) = match error {
        InitialListFailed(cause) | WatchStartFailed(cause) | WatchFailed(cause) => {
            let code = if let kube::Error::Api(status) = cause { status.code } else { 0 };
            (code, explain(cause))
        }
        WatchError(status) => (status.code, status.message.clone()),
        NoResourceVersion => (0, explain(error)),
    };
    match code {
        // The server forgets old changes after some minutes; a new list follows.
        410 => tracing::debug!("watch on {kind} to be started anew: {why}"),
        401 => tracing::warn!("the API server does not accept the operator's credentials: {why}"),
        403 => tracing::warn!("the operator may not watch {kind}; is its ClusterRole bound? {why}"),
        404 => tracing::warn!(
            "the API server does not know {kind}; are the CustomResourceDefinitions installed? {why}"
        ),
        _ => tracing::warn!("watch on {kind} interrupted, and tried again: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_tried_again_for_ever_and_soon_after_the_api_server_is_back() {
        let mut pauses = Pauses::new();
        let all: Vec<Duration> = pauses.by_ref().take(1_000).collect();
        assert!(all[0] >= FIRST_PAUSE && all[0] <= FIRST_PAUSE * 2, "{:?}", all[0]);
        assert!(all.iter().skip(10).all(|pause| (LAST_PAUSE..=LAST_PAUSE * 2).contains(pause)), "{all:?}");
        pauses.reset();
        assert!(pauses.next().is_some_and(|pause| pause <= FIRST_PAUSE * 2));
    }
}
