//! The operator: observe → plan → apply.
//!
//! Three watches keep an index of all `ImageCache`s, Nodes and `NodeImageCache`s. Each change
//! names the objects that may have to be written ([`Key`]); a queue hands these to workers; a
//! worker asks the index what is to be done, and does it. All thinking is in `larder-plan`, which has no client.
//!
//! Of several replicas one does the work. The others keep their index up to date, and wait for the Lease.

#![forbid(unsafe_code)]

mod apply;
mod catch_up;
mod election;
mod events;
mod explain;
mod health;
mod metrics;
mod object;
mod probes;
mod queue;
mod reconcile;
mod secrets;
mod watch;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, RwLock, atomic::AtomicBool},
    time::Duration,
};

use kube::Client;
use larder_plan::{AllowList, Key};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::Writer,
    catch_up::catch_up,
    election::{Elector, Fence},
    health::Standing,
    probes::Shared,
    queue::{Lane, Policy, Queue},
    reconcile::{Context, reconcile},
    secrets::SecretsRoleWatch,
    watch::Watches,
};
pub use crate::{
    election::{ElectionOptions, LEASE_NAME, LeaseLost},
    explain::explain,
    watch::WatchEnded,
};

/// How long the last events may take after the shutdown.
const LAST_EVENTS: Duration = Duration::from_secs(3);

/// How far apart two writes of one object are at least. An `ImageCache`'s status follows what thousands of nodes
/// report; a node's specification changes with every `ImageCache` that is applied. The turns of a roll-out are written
/// nowhere, but to give them takes a look at all nodes.
fn spacing(key: &Key) -> Duration {
    match key {
        Key::Node(_) | Key::Rollout(_) => Duration::from_millis(100),
        Key::Cache(_) | Key::Secrets => Duration::from_secs(1),
    }
}

/// Of nodes there are thousands. Who has edited an `ImageCache` looks at its status, and does not want to wait until all of
/// them have been told. The Role for Secrets goes before the nodes that came with it, which it does only in their lane.
fn lane(key: &Key) -> Lane {
    match key {
        Key::Node(_) | Key::Secrets => Lane::Many,
        Key::Cache(_) | Key::Rollout(_) => Lane::Few,
    }
}

/// How the operator is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many objects are written at a time.
    pub workers: usize,
    /// Where probes and metrics are answered: at the first of these addresses that can be had; nowhere if there is none.
    pub listen: Vec<SocketAddr>,
    /// The election that decides which replica works. Absent: this process is alone.
    pub election: Option<ElectionOptions>,
    /// This process' name, in its events.
    pub instance: String,
    /// The namespace of the Secrets that `ImageCache`s name, and of the Role that lets agents read them.
    pub secrets_namespace: String,
    /// The registries from which `ImageCache`s may name images.
    pub allowed: AllowList,
}

/// Why the operator stopped although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A watch is not to end, whatever the API server does; without it the operator is blind.
    #[error(transparent)]
    WatchEnded(#[from] WatchEnded),
    /// Another replica leads now, or may.
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    /// Nobody can ask how it is.
    #[error("answering probes and metrics on {addresses:?}: {source}")]
    Probes {
        /// Where.
        addresses: Vec<SocketAddr>,
        /// Why not.
        source: io::Error,
    },
    /// Events are not told any more.
    #[error("the task that writes events ended; the process has to be started anew")]
    EventsEnded,
}

/// Runs until `shutdown` is cancelled; writes that are under way are finished first, and the Lease is given up.
///
/// # Errors
/// [`Error`], after which the process has to be started anew.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let shared = Arc::new(Shared::new());
    tokio::select! {
        ended = answer_probes(options.listen.clone(), Arc::clone(&shared)) => Err(ended),
        ended = Box::pin(operate(client, options, &shared, shutdown)) => ended,
    }
}

async fn answer_probes(addresses: Vec<SocketAddr>, shared: Arc<Shared>) -> Error {
    if addresses.is_empty() {
        return std::future::pending().await;
    }
    let source = match probes::bind(&addresses).await {
        Ok(listener) => probes::serve(listener, shared).await,
        Err(error) => error,
    };
    Error::Probes { addresses, source }
}

async fn operate(
    client: Client,
    options: Options,
    shared: &Arc<Shared>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut watches = Watches::new(&client, shared);
    tracing::info!("listing ImageCaches, Nodes and NodeImageCaches");
    let index = tokio::select! {
        index = watches.first_lists(options.allowed.clone()) => index?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let fence = if options.election.is_some() { Fence::closed() } else { Fence::open() };
    let metrics = shared.metrics.clone();
    let (events, publisher) =
        events::channel(client.clone(), options.instance.clone(), fence.clone(), metrics.clone());
    let context = Arc::new(Context {
        writer: Writer { client: client.clone(), fence: fence.clone(), metrics: metrics.clone() },
        events,
        index: RwLock::new(index),
        queue: Queue::new(Policy { spacing, lane }),
        is_working: AtomicBool::new(false),
        secrets_namespace: options.secrets_namespace.clone(),
    });
    let secrets_role = SecretsRoleWatch::new(&client, &options.secrets_namespace);
    shared.context.get_or_init(|| Arc::clone(&context));
    let elector = options
        .election
        .clone()
        .map(|election| Elector::new(client, election, fence, metrics, shared.health.election.clone()));
    tokio::select! {
        ended = watches.follow(&context) => Err(ended.into()),
        ended = secrets_role.follow(&context) => Err(ended.into()),
        ended = lead(elector, &options, shared, &context, publisher, shutdown) => ended,
    }
}

/// Waits to lead, then works until the shutdown.
async fn lead(
    mut elector: Option<Elector>,
    options: &Options,
    shared: &Shared,
    context: &Arc<Context>,
    publisher: events::Publisher,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    if let Some(elector) = &mut elector {
        shared.health.set(Standing::Standby);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = elector.campaign() => {}
        }
    }
    let ended = if shutdown.is_cancelled() {
        Ok(())
    } else {
        let was_standby = elector.is_some();
        let work = async {
            if was_standby && !catch_up(context, &shutdown).await {
                return Ok(());
            }
            // Before anybody is shown a count.
            context.index_mut().count_pulls();
            shared.health.set(Standing::Leading);
            tracing::info!("leading: planning starts");
            context.start();
            work(options, shared, context, publisher, &shutdown).await
        };
        match &mut elector {
            None => work.await,
            Some(elector) => tokio::select! {
                biased;
                // Who is about to leave anyway has lost nothing.
                lost = elector.hold() => if shutdown.is_cancelled() { Ok(()) } else { Err(lost.into()) },
                ended = work => ended,
            },
        }
    };
    // To give the Lease up may take a while, and somebody else leads meanwhile.
    shared.health.set(Standing::Released);
    if let Some(elector) = elector {
        elector.release().await;
    }
    ended
}

async fn work(
    options: &Options,
    shared: &Shared,
    context: &Arc<Context>,
    publisher: events::Publisher,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let drain = CancellationToken::new();
    let publishing = publisher.run(drain.clone());
    tokio::pin!(publishing);
    let work = |key: Key| reconcile(Arc::clone(context), key);
    tokio::select! {
        () = &mut publishing => return Err(Error::EventsEnded),
        () = async {
            shutdown.cancelled().await;
            shared.health.set(Standing::Stopping);
            std::future::pending::<()>().await;
        } => {}
        () = context.queue.run(options.workers, &shared.health.queue, shutdown, work) => {}
    }
    drain.cancel();
    if tokio::time::timeout(LAST_EVENTS, publishing).await.is_err() {
        tracing::warn!("events that were not written within {} s were given up", LAST_EVENTS.as_secs());
    }
    tracing::info!("stopped");
    Ok(())
}
