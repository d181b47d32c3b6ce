//! A work queue of keys.
//!
//! Level-triggered: a key in it means "look again", however often it was added. One worker a key at a time; a key that
//! is added while it is worked on comes up again. Two runs of one key are a minimum spacing apart. A key whose work
//! fails comes up again after a capped, jittered, growing delay, which a success resets and a new change cuts short.
//! Keys stand in two lanes that take turns, so that a few do not wait behind thousands.

mod due;

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::health::Pulse;
pub(crate) use due::Lane;
use due::{Due, Place};

/// The first retry comes after this, up to twice as long with jitter.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Retries are no further apart than this, up to twice as long with jitter.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The dispatcher looks around at least this often, so that one can tell whether it still does.
const TURN: Duration = Duration::from_secs(10);
/// How long work under way may go on after the shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// How work on a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Retry,
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Depth {
    /// Keys that wait to be worked on.
    pub keys: usize,
    /// How long the one that waits longest has been waiting.
    pub oldest: Duration,
}

/// How keys are treated.
pub(crate) struct Policy<K> {
    /// How far apart two runs of a key are at least.
    pub spacing: fn(&K) -> Duration,
    /// With which others it waits.
    pub lane: fn(&K) -> Lane,
}

/// A queue of keys, filled from anywhere and worked off by one [`Queue::run`].
pub(crate) struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    entries: HashMap<K, Entry>,
    due: Due<K>,
    arrivals: u64,
    policy: Policy<K>,
}

/// A key that waits, is worked on, or rests until its spacing is over and it can be forgotten.
struct Entry {
    /// Since when it waits to be worked on; absent where it does not.
    wanted: Option<Instant>,
    /// Where it stands in `due`; nowhere while it is worked on.
    place: Option<Place>,
    not_before: Instant,
    retries: Option<ExponentialBackoff>,
}

impl<K: Clone + Eq + Hash + Send + 'static> Queue<K> {
    /// An empty queue.
    pub fn new(policy: Policy<K>) -> Self {
        let state = State { entries: HashMap::new(), due: Due::default(), arrivals: 0, policy };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Has these keys looked at, now or as soon as their spacing allows.
    pub fn add(&self, keys: impl IntoIterator<Item = K>) {
        let now = Instant::now();
        let mut state = self.state();
        for key in keys {
            state.add(key, now);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// How full it is now.
    pub fn depth(&self) -> Depth {
        let now = Instant::now();
        let state = self.state();
        let waiting = || state.entries.values().filter_map(|entry| entry.wanted);
        let oldest = waiting().min().map(|since| now.saturating_duration_since(since));
        Depth { keys: waiting().count(), oldest: oldest.unwrap_or_default() }
    }

    /// Works the queue off, `limit` keys at a time, until the shutdown; then finishes what is under way.
    pub async fn run<F>(
        &self,
        limit: usize,
        pulse: &Pulse,
        shutdown: &CancellationToken,
        work: impl Fn(K) -> F,
    ) where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut running = JoinSet::new();
        loop {
            pulse.beat();
            while running.len() < limit
                && let Some(key) = self.take()
            {
                let future = work(key.clone());
                running.spawn(async move { (key, future.await) });
            }
            let wake = if running.len() < limit { self.state().due.next() } else { None };
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = running.join_next() => self.settle(ended),
                () = self.changed.notified() => {}
                () = sleep_until(wake) => {}
                () = tokio::time::sleep(TURN) => {}
            }
        }
        pulse.rest();
        let drained = tokio::time::timeout(GRACE, async { while running.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(
                "writes that did not end within {} s after the shutdown were given up",
                GRACE.as_secs()
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<K> {
        self.state().take(Instant::now())
    }

    fn settle(&self, ended: Result<(K, Outcome), JoinError>) {
        match ended {
            Ok((key, outcome)) => self.state().settle(key, outcome, Instant::now()),
            // A defect: the process ends, and starts anew from what the API server knows.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => tracing::error!("work was cancelled: {error}"),
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else {
            let entry = Entry { wanted: Some(now), place: None, not_before: now, retries: None };
            self.entries.insert(key.clone(), entry);
            return self.put(key, now);
        };
        entry.wanted.get_or_insert(now);
        let at = entry.not_before.max(now);
        if entry.place.is_some_and(|(planned, _)| at < planned) {
            self.put(key, at);
        }
    }

    /// Gives the key a place, and gives up the one it had.
    fn put(&mut self, key: K, at: Instant) {
        self.arrivals += 1;
        let (place, lane) = ((at, self.arrivals), (self.policy.lane)(&key));
        if let Some(entry) = self.entries.get_mut(&key)
            && let Some(former) = entry.place.replace(place)
        {
            self.due.remove(lane, former);
        }
        self.due.insert(lane, place, key);
    }

    /// The first key that is due. Keys that only rested are forgotten on the way.
    fn take(&mut self, now: Instant) -> Option<K> {
        while let Some(key) = self.due.pop(now) {
            match self.entries.get_mut(&key) {
                Some(entry) if entry.wanted.is_some() => {
                    entry.wanted = None;
                    entry.place = None;
                    entry.not_before = now + (self.policy.spacing)(&key);
                    self.due.served((self.policy.lane)(&key));
                    return Some(key);
                }
                _ => self.entries.remove(&key),
            };
        }
        None
    }

    fn settle(&mut self, key: K, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let delay = match outcome {
            Outcome::Done => {
                entry.retries = None;
                Duration::ZERO
            }
            Outcome::Retry => {
                let delay = entry.retries.get_or_insert_with(retries).next().unwrap_or(LAST_RETRY);
                // A change that came meanwhile may be the very thing that was missing.
                if entry.wanted.is_some() { Duration::ZERO } else { delay }
            }
        };
        if outcome == Outcome::Retry {
            entry.wanted.get_or_insert(now);
        }
        let at = (now + delay).max(entry.not_before);
        self.put(key, at);
    }
}

fn retries() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_RETRY)
        .with_max_delay(LAST_RETRY)
        .with_jitter()
        .without_max_times()
        .build()
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
