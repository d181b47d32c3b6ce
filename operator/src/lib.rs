//! The operator: observe → plan → apply.
//!
//! Three watches keep an [`Index`] of all `ImageCache`s, Nodes and `NodeImageCache`s. Each change
//! names the objects that may have to be written ([`Key`]); a queue hands these to workers; a
//! worker asks the index what is to be done, and does it. All thinking is in `larder-plan`, which has no client.

#![forbid(unsafe_code)]

mod apply;
mod explain;
mod object;
mod queue;
mod reconcile;
mod watch;

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use kube::Client;
use larder_plan::{Index, Key};
use tokio_util::sync::CancellationToken;

pub use crate::explain::explain;
use crate::{
    queue::Queue,
    reconcile::{Context, reconcile},
    watch::{WatchEnded, Watches},
};

/// How many objects are written at a time.
const WORKERS: usize = 16;

/// How far apart two writes of one object are at least. An `ImageCache`'s status follows what thousands of nodes
/// report; a node's specification changes with every `ImageCache` that is applied.
fn spacing(key: &Key) -> Duration {
    match key {
        Key::Node(_) => Duration::from_millis(100),
        Key::Cache(_) => Duration::from_secs(1),
    }
}

/// Why the operator stopped although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A watch is not to end, whatever the API server does; without it the operator is blind.
    #[error(transparent)]
    WatchEnded(#[from] WatchEnded),
}

/// Runs until `shutdown` is cancelled; writes that are under way are finished first.
///
/// # Errors
/// [`Error`], after which the process has to be started anew.
pub async fn run(client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let mut watches = Watches::new(&client);
    tracing::info!("listing ImageCaches, Nodes and NodeImageCaches");
    let (caches, nodes, node_caches) = tokio::select! {
        lists = watches.first_lists() => lists?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tracing::info!(
        image_caches = caches.len(),
        nodes = nodes.len(),
        node_image_caches = node_caches.len(),
        "all listed; planning starts"
    );
    let (index, dirty) = Index::new(caches, nodes, node_caches);
    let context = Arc::new(Context { client, index: RwLock::new(index), queue: Queue::new(spacing) });
    context.queue.add(dirty);
    let work = |key: Key| reconcile(Arc::clone(&context), key);
    tokio::select! {
        ended = watches.follow(&context) => Err(ended.into()),
        () = context.queue.run(WORKERS, &shutdown, work) => {
            tracing::info!("stopped");
            Ok(())
        }
    }
}
