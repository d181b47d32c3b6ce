//! The three watches, and how what they bring gets into the index.

use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use larder_plan::{
    Index,
    index::Dirty,
    object::{CacheObject, NodeCacheObject, NodeObject},
};

use crate::{
    explain,
    object::{self, RawImageCache, RawNodeImageCache},
    reconcile::Context,
};

/// A watch came to its end, which it never does while the process is in order.
#[derive(Debug, thiserror::Error)]
#[error("the watch on {0} ended; the process has to be started anew")]
pub struct WatchEnded(&'static str);

/// A change, as a watch tells it.
enum Change<T> {
    /// All objects there are.
    Listed(Vec<T>),
    Applied(T),
    /// The object of this name is gone.
    Deleted(String),
}

/// A watch on objects `K`, seen as `T`.
struct Watch<K, T> {
    kind: &'static str,
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    see: fn(K) -> T,
    listing: Vec<T>,
}

impl<K: ResourceExt + 'static, T> Watch<K, T> {
    /// The next change. Errors are logged; the stream tries again by itself, at growing intervals.
    async fn next(&mut self) -> Result<Change<T>, WatchEnded> {
        loop {
            match self.events.next().await {
                Some(Ok(Event::Init)) => self.listing.clear(),
                Some(Ok(Event::InitApply(object))) => self.listing.push((self.see)(object)),
                Some(Ok(Event::InitDone)) => return Ok(Change::Listed(std::mem::take(&mut self.listing))),
                Some(Ok(Event::Apply(object))) => return Ok(Change::Applied((self.see)(object))),
                Some(Ok(Event::Delete(object))) => return Ok(Change::Deleted(object.name_any())),
                Some(Err(error)) => log(self.kind, &error),
                None => return Err(WatchEnded(self.kind)),
            }
        }
    }

    async fn first_list(&mut self) -> Result<Vec<T>, WatchEnded> {
        loop {
            if let Change::Listed(all) = self.next().await? {
                return Ok(all);
            }
        }
    }
}

/// The watches on all that planning depends on.
pub(crate) struct Watches {
    caches: Watch<RawImageCache, CacheObject>,
    nodes: Watch<PartialObjectMeta<Node>, NodeObject>,
    node_caches: Watch<RawNodeImageCache, NodeCacheObject>,
}

impl Watches {
    pub fn new(client: &Client) -> Self {
        Self {
            caches: watch("ImageCaches", client, CacheObject::from),
            // Metadata alone: the rest of a Node is large, and changes with every heartbeat.
            nodes: watch("Nodes", client, object::node),
            node_caches: watch("NodeImageCaches", client, NodeCacheObject::from),
        }
    }

    /// The first complete list of each kind.
    pub async fn first_lists(
        &mut self,
    ) -> Result<(Vec<CacheObject>, Vec<NodeObject>, Vec<NodeCacheObject>), WatchEnded> {
        tokio::try_join!(self.caches.first_list(), self.nodes.first_list(), self.node_caches.first_list())
    }

    /// Keeps the index up to date and the queue filled. It comes back only when a watch has ended.
    pub async fn follow(self, context: &Context) -> WatchEnded {
        let caches = follow(self.caches, context, |index, change| match change {
            Change::Listed(all) => index.replace_caches(all),
            Change::Applied(object) => index.apply_cache(object),
            Change::Deleted(name) => index.delete_cache(&name),
        });
        let nodes = follow(self.nodes, context, |index, change| match change {
            Change::Listed(all) => index.replace_nodes(all),
            Change::Applied(object) => index.apply_node(object),
            Change::Deleted(name) => index.delete_node(&name),
        });
        let node_caches = follow(self.node_caches, context, |index, change| match change {
            Change::Listed(all) => index.replace_node_caches(all),
            Change::Applied(object) => index.apply_node_cache(object),
            Change::Deleted(name) => index.delete_node_cache(&name),
        });
        tokio::select! {
            ended = caches => ended,
            ended = nodes => ended,
            ended = node_caches => ended,
        }
    }
}

async fn follow<K: ResourceExt + 'static, T>(
    mut watch: Watch<K, T>,
    context: &Context,
    take_in: fn(&mut Index, Change<T>) -> Dirty,
) -> WatchEnded {
    loop {
        match watch.next().await {
            Ok(change) => {
                let dirty = take_in(&mut context.index_mut(), change);
                context.queue.add(dirty);
            }
            Err(ended) => return ended,
        }
    }
}

fn watch<K, T>(kind: &'static str, client: &Client, see: fn(K) -> T) -> Watch<K, T>
where
    K: ResourceExt<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let events = watcher(Api::all(client.clone()), watcher::Config::default()).default_backoff().boxed();
    Watch { kind, events, see, listing: Vec::new() }
}

fn log(kind: &'static str, error: &watcher::Error) {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
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
