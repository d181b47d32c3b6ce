//! One key: what is to be done, and doing it.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use larder_plan::{Index, Key, index::NodeAction};
use tracing::Instrument as _;

use crate::{
    apply::{self, ApplyError, Category},
    queue::{Outcome, Queue},
};

/// What all workers share.
pub(crate) struct Context {
    pub client: Client,
    pub index: RwLock<Index>,
    pub queue: Queue<Key>,
}

impl Context {
    /// Never held across a wait.
    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never held across a wait.
    pub fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the object behind `key` what it should be, and says whether that has to be tried again.
pub(crate) async fn reconcile(context: Arc<Context>, key: Key) -> Outcome {
    let span = match &key {
        Key::Node(node) => tracing::info_span!("reconcile", node),
        Key::Cache(cache) => tracing::info_span!("reconcile", cache),
    };
    let done = async {
        match &key {
            Key::Node(name) => reconcile_node(&context, name).await,
            Key::Cache(name) => reconcile_cache(&context, name).await,
        }
    };
    async {
        let Err(error) = done.await else { return Outcome::Done };
        match error.category() {
            Category::Conflict => tracing::debug!("{error}"),
            category => tracing::warn!(category = category.as_str(), "{error}; trying again"),
        }
        Outcome::Retry
    }
    .instrument(span)
    .await
}

async fn reconcile_node(context: &Context, node: &str) -> Result<(), ApplyError> {
    let action = context.index().plan_node(node);
    match action {
        None => {}
        Some(NodeAction::Apply { node_uid, uid, spec }) => {
            let applied = apply::node_cache(&context.client, node, &node_uid, uid.as_deref(), &spec).await?;
            tracing::info!(
                images = spec.images.len(),
                released = spec.released.len(),
                "node's images applied"
            );
            // What was written is known before the watch shows it: the next plan must not start from less.
            let dirty = context.index_mut().apply_node_cache(applied);
            context.queue.add(dirty);
        }
        Some(NodeAction::Delete { uid, resource_version }) => {
            apply::delete_node_cache(&context.client, node, uid, resource_version).await?;
            tracing::info!("NodeImageCache deleted: its Node is gone");
        }
    }
    Ok(())
}

async fn reconcile_cache(context: &Context, cache: &str) -> Result<(), ApplyError> {
    let action = context.index().plan_status(cache, Timestamp::now());
    if let Some(action) = action {
        let applied = apply::cache_status(&context.client, cache, &action.uid, &action.status).await?;
        tracing::debug!("status applied");
        let dirty = context.index_mut().apply_cache(applied);
        context.queue.add(dirty);
    }
    Ok(())
}
