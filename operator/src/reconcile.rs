//! One key: what is to be done, and doing it.

use std::sync::{
    Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, Ordering},
};

use k8s_openapi::jiff::Timestamp;
use larder_plan::{
    Index, Key,
    index::{Dirty, NodeAction},
    object::NodeCacheObject,
    rollout::Written,
};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{
    apply::{ApplyError, Category, Writer},
    events::Events,
    queue::{Outcome, Queue},
    secrets,
};

/// What all workers share.
pub(crate) struct Context {
    pub writer: Writer,
    pub events: Events,
    pub index: RwLock<Index>,
    pub queue: Queue<Key>,
    /// Whether the queue is worked off. It is not filled before: nobody would take out what has gone meanwhile.
    pub is_working: AtomicBool,
    /// Where the Secrets are that `ImageCache`s name.
    pub secrets_namespace: String,
}

impl Context {
    /// From here on the queue is filled, with everything to begin with.
    pub fn start(&self) {
        // In this order: a change that comes in between is in the queue twice, and not never.
        self.is_working.store(true, Ordering::SeqCst);
        self.queue.add(self.index().everything());
    }

    /// A change has made these keys dirty.
    pub fn add(&self, dirty: Dirty) {
        if self.is_working.load(Ordering::SeqCst) {
            self.queue.add(dirty);
        }
    }

    /// Never held across a wait.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never held across a wait.
    pub fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a reconcile came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// All was as it should be.
    Unchanged,
    Written,
}

/// Makes the object behind `key` what it should be, and says whether that has to be tried again.
pub(crate) async fn reconcile(context: Arc<Context>, key: Key) -> Outcome {
    let span = match &key {
        Key::Node(node) => tracing::info_span!("reconcile", node),
        Key::Cache(cache) | Key::Rollout(cache) => tracing::info_span!("reconcile", cache),
        Key::Secrets => tracing::info_span!("reconcile", role = secrets::ROLE_NAME),
    };
    let done = async {
        match &key {
            Key::Node(name) => reconcile_node(&context, name).await,
            Key::Cache(name) => reconcile_cache(&context, name).await,
            Key::Rollout(name) => Ok(give_turns(&context, name)),
            Key::Secrets => secrets::reconcile(&context).await,
        }
    };
    async {
        let start = Instant::now();
        let result = done.await;
        let counted = result.as_ref().map(|effect| *effect).map_err(ApplyError::category);
        context.writer.metrics.observe_reconcile(&key, counted, start.elapsed());
        let Err(error) = result else { return Outcome::Done };
        match error.category() {
            Category::Conflict | Category::NotLeading => tracing::debug!("{error}"),
            category => tracing::warn!(category = category.as_str(), "{error}; trying again"),
        }
        Outcome::Retry
    }
    .instrument(span)
    .await
}

async fn reconcile_node(context: &Context, node: &str) -> Result<Effect, ApplyError> {
    if context.index().is_in_doubt(node) {
        read_node_cache(context, node).await?;
    }
    let action = context.index_mut().take_on(node);
    let Some(action) = action else { return Ok(Effect::Unchanged) };
    let written = write_node_cache(context, node, action).await;
    if written.as_ref().is_err_and(|error| !error.leaves_in_doubt()) {
        let dirty = context.index_mut().conclude(node, Written::Refused);
        context.add(dirty);
    }
    written.map(|()| Effect::Written)
}

async fn write_node_cache(context: &Context, node: &str, action: NodeAction) -> Result<(), ApplyError> {
    match action {
        NodeAction::Apply { node_uid, uid, spec } => {
            let applied = context.writer.node_cache(node, &node_uid, uid.as_deref(), &spec).await?;
            tracing::info!(
                images = spec.images.len(),
                released = spec.released.len(),
                deferred = spec.deferred.len(),
                "node's images applied"
            );
            // What was written is known before the watch shows it: the next plan must not start from less.
            take_in(context, node, Some(applied));
        }
        NodeAction::Delete { uid, resource_version } => {
            context.writer.delete_node_cache(node, uid, resource_version).await?;
            tracing::info!("NodeImageCache deleted: its Node is gone");
        }
    }
    Ok(())
}

/// Finds out what became of a write that nobody answered for.
async fn read_node_cache(context: &Context, node: &str) -> Result<(), ApplyError> {
    let found = context.writer.read_node_cache(node).await?;
    take_in(context, node, found);
    Ok(())
}

fn take_in(context: &Context, node: &str, object: Option<NodeCacheObject>) {
    let mut index = context.index_mut();
    let mut dirty = match object {
        Some(object) => index.apply_node_cache(object),
        None => index.delete_node_cache(node),
    };
    dirty.extend(index.conclude(node, Written::Known));
    drop(index);
    context.add(dirty);
}

fn give_turns(context: &Context, cache: &str) -> Effect {
    let dirty = context.index_mut().roll_out(cache);
    let effect = if dirty.is_empty() { Effect::Unchanged } else { Effect::Written };
    tracing::debug!(nodes = dirty.len(), "turns given");
    context.add(dirty);
    effect
}

async fn reconcile_cache(context: &Context, cache: &str) -> Result<Effect, ApplyError> {
    let action = context.index().plan_status(cache, Timestamp::now());
    let Some(action) = action else { return Ok(Effect::Unchanged) };
    let applied = context.writer.cache_status(cache, &action.uid, &action.status).await?;
    tracing::debug!("status applied");
    // Only once it is written: what was not may look different at the next try.
    context.events.tell(cache, &action.uid, action.transitions);
    let dirty = context.index_mut().apply_cache(applied);
    context.add(dirty);
    Ok(Effect::Written)
}
