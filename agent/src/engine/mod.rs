//! Keeping a set of images in the store: the agent's reconcile loop.
//!
//! Observe the store, plan with [`larder_plan::node`], act, report; again whenever the wanted images change, a pull
//! ends, a retry is due, or the store has not been looked at for a while. The engine knows nothing of Kubernetes:
//! wanted images come in through one channel, reports go out through another.

mod backoff;
mod observe;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use larder_crds::FailureReason;
use larder_oci::{ImageKey, Platform};
use larder_plan::node::{self, Step, Wanted};
use larder_pull::{Progress, PullError, Pulled, Puller};
use larder_registry::Registry;
use larder_store::{Claim, Store, StoreError};
use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::reason;

use backoff::Backoff;
pub use backoff::BackoffOptions;
use observe::Observed;
pub use report::{ImageReport, Report, State};

/// Images that are fetched from one registry at the same time. There is no limit over all registries: a slow one
/// must not hold up the others.
const CONCURRENT_PULLS_A_REGISTRY: usize = 3;
/// How often progress is reported while something is being fetched.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How long to wait after failures.
    pub backoff: BackoffOptions,
    /// How often the store is checked for images that somebody else removed.
    pub check_interval: Duration,
    /// Leave images that the engine brought and that are no longer wanted where they are, its claim on them too.
    pub keep_unwanted: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            backoff: BackoffOptions::default(),
            check_interval: Duration::from_secs(30),
            keep_unwanted: false,
        }
    }
}

/// The images that the store is to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The generation of the object that says so; reported back once it has been taken up.
    pub generation: Option<i64>,
    /// The images, in the order in which they are reported.
    pub images: Vec<DesiredImage>,
    /// Images to keep without looking after them.
    pub released: BTreeSet<ImageKey>,
}

/// One image that the store is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredImage {
    /// Which image; where it can't be read, why.
    pub key: Result<ImageKey, String>,
    /// The name as it was given.
    pub image: String,
    /// The platform as it was given.
    pub platform: Option<String>,
    /// Whether the tag is looked up again when the engine starts.
    pub always: bool,
}

impl DesiredImage {
    /// Reads a name and a platform, the host's where none is given.
    #[must_use]
    pub fn new(image: &str, platform: Option<&str>, always: bool) -> Self {
        let key = || -> Result<ImageKey, String> {
            let name = image.parse().map_err(|error: larder_oci::InvalidName| error.to_string())?;
            let platform = platform
                .map_or_else(|| Ok(Platform::host()), str::parse)
                .map_err(|error: larder_oci::InvalidPlatform| error.to_string())?;
            Ok(ImageKey { name, platform })
        };
        Self { key: key(), image: image.to_owned(), platform: platform.map(str::to_owned), always }
    }
}

/// Keeps the store as it is wanted.
pub struct Engine {
    store: Store,
    puller: Puller,
    options: EngineOptions,
    desired: Desired,
    images: BTreeMap<ImageKey, Image>,
    observed: Observed,
    /// Why the store could not be read or changed, last time.
    trouble: Option<String>,
    pulls: JoinSet<Result<Pulled, PullError>>,
    pull_keys: HashMap<Id, ImageKey>,
    slots: HashMap<String, Arc<Semaphore>>,
    /// Images whose interrupted pulls are to be cleaned up.
    forget: BTreeSet<ImageKey>,
}

/// What the engine remembers of a wanted image.
struct Image {
    pull: Option<(Arc<Progress>, AbortHandle)>,
    failure: Option<Failure>,
    backoff: Backoff,
    rechecked: bool,
}

/// Why an image was not had, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    reason: FailureReason,
    message: String,
    due: Instant,
    retry_time: Timestamp,
}

impl Engine {
    /// An engine that has not started.
    #[must_use]
    pub fn new(store: Store, registry: Registry, options: EngineOptions) -> Self {
        Self {
            puller: Puller::new(store.clone(), registry),
            store,
            options,
            desired: Desired::default(),
            images: BTreeMap::new(),
            observed: Observed::default(),
            trouble: None,
            pulls: JoinSet::new(),
            pull_keys: HashMap::new(),
            slots: HashMap::new(),
            forget: BTreeSet::new(),
        }
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
                self.take_up(next);
                self.converge().await;
                self.publish(&reports);
            }
            if !self.wait(&mut desired, &reports).await {
                self.pulls.shutdown().await;
                return;
            }
        }
    }

    /// Waits for a reason to look again; false when there will be none.
    async fn wait(
        &mut self,
        desired: &mut watch::Receiver<Option<Desired>>,
        reports: &watch::Sender<Report>,
    ) -> bool {
        let due = self.images.values().filter(|image| image.pull.is_none());
        let due = due.filter_map(|image| image.failure.as_ref().map(|failure| failure.due));
        let wake = wake(due, Instant::now(), self.options.check_interval);
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                changed = desired.changed() => return changed.is_ok(),
                Some(ended) = self.pulls.join_next_with_id() => {
                    self.record(ended);
                    return true;
                }
                () = sleep_until(wake) => return true,
                _ = progress.tick(), if !self.pulls.is_empty() => self.publish(reports),
            }
        }
    }

    /// Forgets what is no longer wanted, and makes room for what is.
    fn take_up(&mut self, desired: Desired) {
        let wanted: BTreeSet<_> = desired.images.iter().filter_map(|image| image.key.clone().ok()).collect();
        self.images.retain(|key, image| {
            let keep = wanted.contains(key);
            if !keep {
                self.forget.insert(key.clone());
                if let Some((_, abort)) = &image.pull {
                    abort.abort();
                }
            }
            keep
        });
        for key in wanted {
            self.forget.remove(&key);
            self.images.entry(key).or_insert_with(|| Image {
                pull: None,
                failure: None,
                backoff: Backoff::new(&self.options.backoff),
                rechecked: false,
            });
        }
        self.desired = desired;
    }

    /// Observe, plan, act.
    async fn converge(&mut self) {
        match observe::observe(&self.store).await {
            Ok(observed) => (self.observed, self.trouble) = (observed, None),
            Err(error) => return self.store_failed(&error),
        }
        let wanted = self.wanted();
        let steps = node::steps(&wanted, &self.desired.released, &self.observed.held());
        let mut changes = observe::Changes { forget: self.forget.clone(), ..observe::Changes::default() };
        for step in steps {
            match step {
                Step::Fetch(key) => self.start_pull(key),
                Step::Remove(_) if self.options.keep_unwanted => {}
                Step::Remove(key) => changes.remove.push(key),
                Step::Claim(key) => changes.claims.push((key, Claim::Delete)),
                Step::Release(key) => changes.claims.push((key, Claim::Retain)),
            }
        }
        match observe::apply(&self.store, changes).await {
            Ok(Some(observed)) => {
                self.observed = observed;
                self.forget.clear();
            }
            Ok(None) => {}
            Err(error) => self.store_failed(&error),
        }
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
        wanted
            .into_iter()
            .map(|(key, always)| Wanted { key: key.clone(), recheck: always && !rechecked(key) })
            .collect()
    }

    /// Starts to fetch an image, unless that is under way or its time has not come.
    fn start_pull(&mut self, key: ImageKey) {
        let Some(image) = self.images.get_mut(&key) else { return };
        let waits = image.failure.as_ref().is_some_and(|failure| failure.due > Instant::now());
        if image.pull.is_some() || waits {
            return;
        }
        // What a person put there stays a person's, whatever is fetched for it again.
        let claim = match self.observed.claim(&key) {
            Some(Claim::None) => Claim::None,
            _ => Claim::Delete,
        };
        let slots = self
            .slots
            .entry(key.name.registry().to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(CONCURRENT_PULLS_A_REGISTRY)))
            .clone();
        let progress = Arc::new(Progress::default());
        let (puller, image_key, shared) = (self.puller.clone(), key.clone(), progress.clone());
        let abort = self.pulls.spawn(async move {
            let _slot = slots.acquire().await.map_err(|_| PullError::Interrupted)?;
            tracing::info!(image = %image_key, "pulling");
            shared.begin();
            puller.pull(&image_key, claim, &shared).await
        });
        self.pull_keys.insert(abort.id(), key);
        image.pull = Some((progress, abort));
    }

    fn record(&mut self, ended: Result<(Id, Result<Pulled, PullError>), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(PullError::Interrupted)),
        };
        let Some(key) = self.pull_keys.remove(&id) else { return };
        let Some(image) = self.images.get_mut(&key) else {
            // Its lease was alive when the image was given up, and is not any more.
            self.forget.insert(key);
            return;
        };
        // An image that was unwanted for a moment has a new entry, and perhaps a new pull, by now.
        if image.pull.as_ref().is_none_or(|(_, abort)| abort.id() != id) {
            return;
        }
        image.pull = None;
        match result {
            Ok(pulled) => {
                tracing::info!(image = %key, digest = %pulled.digest, bytes = pulled.size, "ready");
                image.failure = None;
                image.backoff.reset();
                image.rechecked = true;
            }
            Err(error) => {
                let delay = image.backoff.next_delay(error.retry_after());
                let seconds = SignedDuration::try_from(delay).unwrap_or(SignedDuration::from_hours(1));
                tracing::warn!(image = %key, reason = reason::of(&error).as_str(), %error, ?delay, "pull failed");
                image.failure = Some(Failure {
                    reason: reason::of(&error),
                    message: error.to_string(),
                    due: Instant::now() + delay,
                    retry_time: Timestamp::now() + seconds,
                });
            }
        }
    }

    fn publish(&self, reports: &watch::Sender<Report>) {
        let report = report::report(self);
        reports.send_if_modified(|last| {
            let changed = *last != report;
            *last = report;
            changed
        });
    }
}

/// When to look again: at the next retry, and after `interval` at the latest. A retry that is overdue has had its turn: an
/// image that came another way, or a store that fails, must not keep the engine spinning.
fn wake(due: impl Iterator<Item = Instant>, now: Instant, interval: Duration) -> Instant {
    due.filter(|&due| due > now).fold(now + interval, Instant::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overdue_does_not_wake_the_engine() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let at = |seconds| now + second * seconds;
        assert_eq!(wake([].into_iter(), now, second * 30), at(30));
        assert_eq!(wake([at(40), at(7), at(9)].into_iter(), now, second * 30), at(7));
        assert_eq!(wake([now - second, now].into_iter(), now, second * 30), at(30));
    }
}
