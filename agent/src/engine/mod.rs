//! Keeping a set of images on the node: the agent's reconcile loop.
//!
//! Observe store and runtime, plan with [`larder_plan::node`], act, report; again whenever the wanted images change, a
//! pull or a delivery ends, the runtime tells of a change, a retry is due, or nobody has looked for a while. The engine
//! knows nothing of Kubernetes: wanted images come in through one channel, reports go out through another.
//!
//! | what | where | at the same time |
//! | --- | --- | --- |
//! | fetching | `pulls`; in which order: `schedule` | a task an image, three a registry |
//! | loading from archives | `load` | a task an archive, two for files |
//! | giving to the runtime | `delivery` | beside each pull; of images that are there, two |
//! | saving archives | `archives` | one |
//! | taking away | `chores` | one task for all |
//!
//! # A runtime that is away
//!
//! Ready means that the runtime says so. While it does not answer, nobody says so: after a grace of ten seconds, in which
//! any containerd restarts, images that need it are reported as failed for `RuntimeUnavailable`, those that were ready
//! before included. Nothing is fetched for it then, since it may have the layers. An agent that is started beside a runtime
//! that is away waits, and reports nothing within the grace.

mod act;
mod archives;
mod backoff;
mod chores;
mod delivery;
mod desired;
mod disk;
mod fetch;
mod image;
mod ledger;
mod link;
mod load;
mod logins;
mod names;
mod observe;
mod pulls;
mod purge;
mod refresh;
mod removals;
mod report;
mod schedule;
mod stop;
mod survey;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use larder_crds::PullCount;
use larder_oci::ImageKey;
use larder_plan::node::{self, Spared, Wanted};
use larder_pull::{Pulled, Puller};
use larder_registry::Registry;
use larder_runtime::ConnectOptions;
use larder_store::{Store, StoreError};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{Id, JoinSet},
    time::{Instant, sleep_until, timeout_at},
};

use act::Kept;
use archives::Archives;
pub use backoff::BackoffOptions;
use chores::{Done, WantedNow};
use delivery::{CONCURRENT_DELIVERIES, Delivery};
use desired::Fetching;
pub use desired::{Desired, DesiredImage, EngineOptions, Source, all_names};
use disk::Disks;
pub(crate) use fetch::FetchError;
use image::{Image, News};
use ledger::Ledger;
use link::Link;
use load::Loads;
pub use logins::{PullSecrets, Repository};
use names::{Named, Names};
use observe::{Observed, Standing};
use pulls::Begun;
use refresh::LookResult;
use removals::Removals;
pub use report::{ImageReport, Notice, Report, State};
use schedule::Turns;

/// How often progress is reported while something is being fetched.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the runtime must have told of changes before they are looked at: they come in swarms, many of them our own.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// The shortest time between two looks that the runtime asks for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the first report waits for what is to be taken away, so that it names what stays in use.
const FIRST_CHORES: Duration = Duration::from_secs(30);

/// The same of the first report after an edit: what goes is gone by then, as a rule.
const EDITS_CHORES: Duration = Duration::from_secs(10);

/// Keeps the node's images as they are wanted.
pub struct Engine {
    store: Store,
    registry: Registry,
    puller: Puller,
    link: Link,
    options: EngineOptions,
    notices: Option<mpsc::UnboundedSender<Notice>>,
    pull_secrets: Option<Arc<dyn PullSecrets>>,
    desired: Desired,
    names: Arc<Names>,
    images: BTreeMap<ImageKey, Image>,
    observed: Observed,
    /// Those that the runtime said it has, when it was last asked.
    ready: BTreeSet<ImageKey>,
    /// Why the store could not be read or changed, last time.
    trouble: Option<String>,
    pulls: JoinSet<Result<Pulled, FetchError>>,
    pull_keys: HashMap<Id, Begun>,
    pull_count: PullCount,
    /// How each wanted image is to be fetched.
    fetching: BTreeMap<ImageKey, Fetching>,
    turns: Turns,
    disks: Arc<Disks>,
    /// Tags that are being looked up.
    looks: JoinSet<LookResult>,
    look_keys: HashMap<Id, ImageKey>,
    deliveries: JoinSet<Delivery>,
    delivery_keys: HashMap<Id, ImageKey>,
    delivery_slots: Arc<Semaphore>,
    /// Giving further names in the store: at most one task.
    naming: JoinSet<Named>,
    /// Not before this, since it was of no use.
    naming_at: Option<Instant>,
    /// The import folder.
    loads: Loads,
    /// The export folder.
    archives: Archives,
    /// At most one task.
    chores: JoinSet<Done>,
    /// A name has gone from one image to another: what only the former needed can be reclaimed.
    is_stale: bool,
    /// Not before this, since the store failed.
    chores_at: Option<Instant>,
    /// The images that it takes away.
    tidying: BTreeSet<ImageKey>,
    wanted_now: WantedNow,
    /// Images that nobody wants and that could not go.
    kept: BTreeMap<ImageKey, Kept>,
    /// Images whose interrupted pulls are to be cleaned up.
    forget: BTreeSet<ImageKey>,
    removals: Removals,
    /// When to look at what the runtime tells of.
    look_at: Option<Instant>,
    last_look: Instant,
    has_reported: bool,
}

/// Why the engine looks again.
enum Wake {
    /// Something may have changed outside.
    Outside,
    /// Something of the engine's own has ended, or is due.
    Inside,
    /// There will be no more wishes.
    End,
}

impl Engine {
    /// An engine that has not started, for a node without a container runtime.
    #[must_use]
    pub fn new(store: Store, registry: Registry, options: EngineOptions) -> Self {
        let removals = Removals::new(options.removal_grace);
        let disks = Arc::new(Disks::new(store.root(), options.runtime_root.clone()));
        let ledger = Arc::new(Ledger::of(&store));
        // What is noted of them has to hold wherever the program is started.
        let absolute = |folder: &PathBuf| std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        let loads = Loads::new(options.import_dir.as_ref().map(absolute), ledger.clone());
        let archives = Archives::new(options.export_dir.as_ref().map(absolute), ledger);
        Self {
            puller: Puller::new(store.clone(), registry.clone()),
            store,
            registry,
            link: Link::none(),
            options,
            notices: None,
            pull_secrets: None,
            desired: Desired::default(),
            names: Arc::default(),
            images: BTreeMap::new(),
            observed: Observed::default(),
            ready: BTreeSet::new(),
            trouble: None,
            pulls: JoinSet::new(),
            pull_keys: HashMap::new(),
            pull_count: PullCount::default(),
            fetching: BTreeMap::new(),
            turns: Turns::default(),
            disks,
            looks: JoinSet::new(),
            look_keys: HashMap::new(),
            deliveries: JoinSet::new(),
            delivery_keys: HashMap::new(),
            delivery_slots: Arc::new(Semaphore::new(CONCURRENT_DELIVERIES)),
            naming: JoinSet::new(),
            naming_at: None,
            loads,
            archives,
            chores: JoinSet::new(),
            // The last agent may have been killed before it came to that.
            is_stale: true,
            chores_at: None,
            tidying: BTreeSet::new(),
            wanted_now: WantedNow::default(),
            kept: BTreeMap::new(),
            forget: BTreeSet::new(),
            removals,
            look_at: None,
            last_look: Instant::now(),
            has_reported: false,
        }
    }

    /// The same with the container runtime that is to be found so. It need not be there yet.
    #[must_use]
    pub fn with_runtime(self, options: ConnectOptions) -> Self {
        Self { link: Link::to(options), ..self }
    }

    /// The same, telling of what reports can't show.
    #[must_use]
    pub fn with_notices(self, notices: mpsc::UnboundedSender<Notice>) -> Self {
        Self { notices: Some(notices), ..self }
    }

    /// Runs until nobody sends desired images any more. While nothing is known of them (`None`) nothing is done:
    /// not to know what is wanted is not the same as to want nothing.
    pub async fn run(
        mut self,
        mut desired: watch::Receiver<Option<Desired>>,
        reports: watch::Sender<Report>,
    ) {
        loop {
            let next = desired.borrow_and_update().clone();
            if let Some(next) = next {
                let is_edit = self.desired.generation != next.generation;
                self.take_up(next);
                self.converge().await;
                // Whoever waits until nothing is wanted here may end this agent next.
                let patience = if self.has_reported { EDITS_CHORES } else { FIRST_CHORES };
                let until = Instant::now() + patience;
                // What was under way may be older than the edit: then its own follow.
                while (is_edit || !self.has_reported)
                    && let Ok(Some(done)) = timeout_at(until, self.chores.join_next()).await
                {
                    self.record_chores(done);
                    self.converge().await;
                }
                self.publish(&reports);
            }
            match self.wait(&mut desired, &reports).await {
                Wake::Outside => {
                    self.kept.values_mut().for_each(|kept| kept.try_again = true);
                    self.removals.look_again();
                    self.link.hurry();
                }
                Wake::Inside => {}
                Wake::End => {
                    self.pulls.shutdown().await;
                    self.looks.shutdown().await;
                    self.deliveries.shutdown().await;
                    self.naming.shutdown().await;
                    self.chores.shutdown().await;
                    self.archives.shutdown().await;
                    return;
                }
            }
        }
    }

    /// Waits for a reason to look again.
    async fn wait(
        &mut self,
        desired: &mut watch::Receiver<Option<Desired>>,
        reports: &watch::Sender<Report>,
    ) -> Wake {
        let now = Instant::now();
        let check = now + self.options.check_interval;
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        let runtime = self.link.runtime().cloned();
        loop {
            let due = self
                .images
                .values()
                .flat_map(Image::due)
                .chain(self.link.due())
                .chain(self.chores_at)
                .chain(self.removals.due())
                .chain(self.naming_at);
            let due = due.chain(self.loads.due()).chain(self.archives.due());
            let wake = wake(due, now, check).min(self.look_at.unwrap_or(check));
            let changed = async {
                match &runtime {
                    Some(runtime) if self.look_at.is_none() => runtime.changed().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = desired.changed() => return if changed.is_ok() { Wake::Outside } else { Wake::End },
                Some(ended) = self.pulls.join_next_with_id() => {
                    self.record_pull(ended);
                    return Wake::Inside;
                }
                Some(ended) = self.looks.join_next_with_id() => {
                    self.record_look(ended);
                    return Wake::Inside;
                }
                Some(ended) = self.deliveries.join_next_with_id() => {
                    self.record_delivery(ended);
                    return Wake::Inside;
                }
                Some(named) = self.naming.join_next() => {
                    self.record_naming(named);
                    return Wake::Inside;
                }
                Some(done) = self.chores.join_next() => {
                    self.record_chores(done);
                    return Wake::Inside;
                }
                saved = self.archives.ended() => {
                    self.record_save(saved);
                    return Wake::Inside;
                }
                () = changed => self.look_at = Some((Instant::now() + DEBOUNCE).max(self.last_look + LOOK_INTERVAL)),
                () = sleep_until(wake) => {
                    let told = self.look_at.take_if(|at| *at <= Instant::now()).is_some();
                    return if told || wake == check { Wake::Outside } else { Wake::Inside };
                }
                _ = progress.tick(), if !self.pulls.is_empty() => self.publish(reports),
            }
        }
    }

    /// Forgets what is no longer wanted, and makes room for what is.
    fn take_up(&mut self, desired: Desired) {
        let names = Names::of(&desired.images);
        let wanted = names.all();
        self.images.retain(|key, image| {
            let keep = names.contains(key) && names.source(key) == self.names.source(key);
            if keep && names.pin(key) != self.names.pin(key) {
                image.expect_change();
            }
            if !keep {
                self.forget.insert(key.clone());
                image.abort();
            }
            keep
        });
        for key in &wanted {
            self.forget.remove(key);
            self.kept.remove(key);
            self.images.entry(key.clone()).or_insert_with(|| Image::new(&self.options.backoff));
        }
        self.disks.keep_free(desired.disk_reserve);
        let before = std::mem::replace(&mut self.fetching, desired.fetching());
        for (key, fetching) in &self.fetching {
            if before.get(key).is_some_and(|before| before.source != fetching.source)
                && let Some(image) = self.images.get_mut(key)
            {
                image.start_over();
            }
        }
        for (key, fetching) in &self.fetching {
            if let Some(image) = self.images.get_mut(key) {
                image.set_backoff(&self.options.backoff.with(&fetching.retry));
            }
        }
        let now = Timestamp::now();
        for image in &desired.images {
            let known = image.key.as_ref().ok().and_then(|key| self.images.get_mut(key));
            if let Some(known) = known {
                known.look.follow(image, self.options.seed, now);
                let held = image.key.as_ref().ok().and_then(|key| self.observed.complete(key));
                // A tag that moved a while ago and is to be followed from now on.
                known.rechecked &=
                    !(image.always && held.is_some_and(|held| known.look.moved(&held.digest).is_some()));
            }
        }
        self.wanted_now.set(wanted.union(&desired.deferred).cloned().collect());
        self.removals.take_up(&desired, wanted.iter().chain(&desired.deferred).chain(&desired.released));
        self.names = Arc::new(names);
        self.desired = desired;
        self.assign_logins();
    }

    /// Observe, plan, act.
    async fn converge(&mut self) {
        self.last_look = Instant::now();
        if self.link.find(self.last_look).await
            && let Some(annex) = self.link.runtime().and_then(larder_runtime::Runtime::annex)
        {
            self.store = self.store.clone().with_annex(annex);
            self.puller = Puller::new(self.store.clone(), self.registry.clone());
        }
        match observe::observe(&self.store, &mut self.link, &self.names, &mut self.observed).await {
            Ok(observed) => (self.observed, self.trouble) = (observed, None),
            Err(error) => return self.store_failed(&error),
        }
        self.compare();
        self.look_at_imports().await;
        for image in self.images.values_mut() {
            image.look_for_room(|takes| self.disks.have_room_for(takes));
        }
        let spared = Spared { released: &self.desired.released, deferred: &self.desired.deferred };
        let steps = node::steps(&self.wanted(), &spared, &self.held(), &self.observed.strays);
        self.removals.look(&self.store, &mut self.link).await;
        self.act(steps);
        self.start_looks();
        self.tend_archives().await;
    }

    /// Compares with what was ready before, and tells of what was lost and is back.
    fn compare(&mut self) {
        for (key, image) in &mut self.images {
            let found = self.observed.get(key);
            let news = match self.observed.complete(key).map(|found| (&found.standing, &found.digest)) {
                Some((Standing::NotNeeded | Standing::Ready, digest)) => {
                    self.ready.insert(key.clone());
                    image.found(digest)
                }
                Some((Standing::Unknown, _)) => None,
                Some((Standing::Moved(_) | Standing::Elsewhere, _)) => {
                    self.ready.remove(key);
                    None
                }
                Some((Standing::Missing, _)) | None => {
                    self.ready.remove(key);
                    image.not_found(found.map(|found| &found.digest))
                }
            };
            match news {
                Some(News::Lost) => tracing::warn!(image = %key, "somebody removed it; putting it back"),
                Some(News::Restored) => {
                    tracing::info!(image = %key, "it is back");
                    if let Some(notices) = &self.notices {
                        notices.send(Notice::Restored(key.clone())).ok();
                    }
                }
                None => {}
            }
        }
        self.ready.retain(|key| self.images.contains_key(key));
    }

    fn store_failed(&mut self, error: &StoreError) {
        tracing::error!(%error, "the layer store fails; trying again");
        self.trouble = Some(error.to_string());
    }

    fn wanted(&self) -> Vec<Wanted> {
        let always =
            self.desired.images.iter().filter_map(|image| Some((image.key.as_ref().ok()?, image.always)));
        let mut wanted: BTreeMap<&ImageKey, bool> = BTreeMap::new();
        for (key, always) in always {
            *wanted.entry(key).or_default() |= always;
        }
        let rechecked = |key| self.images.get(key).is_some_and(|image| image.rechecked);
        let own = wanted.into_iter().map(|(key, always)| Wanted {
            key: key.clone(),
            recheck: always && !rechecked(key),
            of: None,
        });
        let further = self.names.further();
        let further =
            further.map(|(key, of)| Wanted { key: key.clone(), recheck: false, of: Some(of.clone()) });
        own.chain(further).collect()
    }

    fn publish(&mut self, reports: &watch::Sender<Report>) {
        // What an agent said before it was restarted holds until it knows better.
        if !self.has_reported && self.link.is_in_grace(Instant::now()) {
            return;
        }
        self.has_reported = true;
        let report = report::report(self);
        reports.send_if_modified(|last| {
            let changed = *last != report;
            *last = report;
            changed
        });
    }
}

/// When to look again: when the next thing is due, and at `check` at the latest. What is overdue has had its turn: an
/// image that came another way, or a store that fails, must not keep the engine spinning.
fn wake(due: impl Iterator<Item = Instant>, now: Instant, check: Instant) -> Instant {
    due.filter(|&due| due > now).fold(check, Instant::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overdue_does_not_wake_the_engine() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let at = |seconds| now + second * seconds;
        assert_eq!(wake([].into_iter(), now, at(30)), at(30));
        assert_eq!(wake([at(40), at(7), at(9)].into_iter(), now, at(30)), at(7));
        assert_eq!(wake([now - second, now].into_iter(), now, at(30)), at(30));
    }
}
