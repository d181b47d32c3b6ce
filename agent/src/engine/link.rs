//! The engine's tie to the node's container runtime: found, lost, and found again.

use std::{collections::BTreeSet, future::Future, time::Duration};

use larder_oci::{Digest, ImageKey};
use larder_runtime::{self as runtime, Choice, ConnectOptions, Observation, Runtime, RuntimeError};
use larder_store::StoreId;
use tokio::time::{Instant, timeout};

/// How long the runtime may be away before images are not reported ready any more: a restart takes a second or two, and
/// containers outlive it.
const GRACE: Duration = Duration::from_secs(10);
/// How long the runtime may take to say how images stand. Nothing else is planned meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a runtime is looked for where none was found.
const FIND_INTERVAL: Duration = Duration::from_secs(30);
/// The longest pause between two tries to reach a runtime that is away. The first is a second.
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// Where images go beyond the store.
pub(super) struct Link {
    /// How to find it; nothing where there is none to be found.
    options: Option<ConnectOptions>,
    /// `None` before it has been found.
    runtime: Option<Runtime>,
    away: Option<Away>,
    /// When to look again for one that was not to be found.
    find_at: Option<Instant>,
    description: Option<String>,
}

/// A runtime that does not answer.
struct Away {
    since: Instant,
    pause: Duration,
    ask_at: Instant,
    message: String,
}

impl Link {
    /// No runtime.
    pub(super) fn none() -> Self {
        Self { options: None, runtime: Some(Runtime::none()), away: None, find_at: None, description: None }
    }

    /// The runtime that is to be found so.
    pub(super) fn to(options: ConnectOptions) -> Self {
        Self { options: Some(options), runtime: None, away: None, find_at: None, description: None }
    }

    /// Looks for the runtime, where that has not succeeded yet; true when it has now.
    ///
    /// Where none was found that might have been, it is looked for again each time: a node's runtime is there before any
    /// pod is, but an agent may also be started by hand, or by systemd.
    pub(super) async fn find(&mut self, now: Instant) -> bool {
        let Some(options) = &self.options else { return false };
        let is_settled = |runtime: &Runtime| !runtime.is_none() || options.choice == Choice::None;
        let is_early = self.find_at.is_some_and(|at| now < at);
        if self.runtime.as_ref().is_some_and(is_settled) || is_early || !self.may_ask(now) {
            return false;
        }
        match patiently(runtime::connect(options)).await {
            Ok(runtime) => {
                let is_news = !runtime.is_none() || self.runtime.is_none();
                self.find_at = runtime.is_none().then(|| now + FIND_INTERVAL);
                self.runtime = Some(runtime);
                self.away = None;
                if is_news {
                    self.describe().await;
                }
                is_news
            }
            Err(error) => {
                self.failed(&error, Instant::now());
                false
            }
        }
    }

    async fn describe(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        match patiently(runtime.describe()).await {
            Ok(Some(found)) => {
                let description = format!("{} {}", found.name, found.version);
                if self.description.as_ref() != Some(&description) {
                    tracing::info!(
                        runtime = description,
                        interface = found.interface,
                        "images go to the container runtime"
                    );
                }
                self.description = Some(description);
            }
            Ok(None) => tracing::info!("there is no container runtime here; images stay in the layer store"),
            Err(error) => tracing::warn!(%error, "the container runtime does not say what it is"),
        }
    }

    /// What the runtime is, for people.
    pub(super) fn description(&self) -> Option<&String> {
        self.description.as_ref()
    }

    /// The runtime, where there is one.
    pub(super) fn runtime(&self) -> Option<&Runtime> {
        self.runtime.as_ref().filter(|runtime| !runtime.is_none())
    }

    /// The runtime, where there is one and it answers.
    pub(super) fn reachable(&self) -> Option<&Runtime> {
        if self.away.is_some() { None } else { self.runtime() }
    }

    /// Whether it is known what is in the runtime: it answers, or there is none.
    pub(super) fn answers(&self) -> bool {
        self.away.is_none() && self.runtime.is_some()
    }

    /// Whether an image is to be given to a runtime. Before one has been found: all of them, to be on the safe side.
    pub(super) fn takes(&self, key: &ImageKey) -> bool {
        self.runtime.as_ref().is_none_or(|runtime| runtime.takes(key))
    }

    /// Whether an image is to be given to a runtime that does not answer.
    pub(super) fn is_missed_by(&self, key: &ImageKey) -> bool {
        (self.away.is_some() || self.runtime.is_none()) && self.takes(key)
    }

    /// Whether the runtime has been away for so short a time that nothing is said of it yet.
    pub(super) fn is_in_grace(&self, now: Instant) -> bool {
        self.away.as_ref().is_some_and(|away| now < away.since + GRACE)
    }

    /// What is wrong with the runtime, once it has been away for longer than a restart takes.
    pub(super) fn trouble(&self, now: Instant) -> Option<&str> {
        let away = self.away.as_ref().filter(|away| now >= away.since + GRACE)?;
        Some(&away.message)
    }

    /// When to look again at a runtime that is away, and when to say that it is.
    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        self.away.iter().flat_map(|away| [away.ask_at, away.since + GRACE])
    }

    /// Asks it at the next opportunity, whether its time has come or not.
    pub(super) fn hurry(&mut self) {
        if let Some(away) = &mut self.away {
            away.ask_at = Instant::now();
        }
    }

    fn may_ask(&self, now: Instant) -> bool {
        self.away.as_ref().is_none_or(|away| now >= away.ask_at)
    }

    /// How images stand; `None` where there is no runtime, or it does not answer.
    pub(super) async fn observe(
        &mut self,
        store: &StoreId,
        images: &[runtime::Image],
        handed_over: &BTreeSet<Digest>,
    ) -> Option<Observation> {
        let now = Instant::now();
        let runtime = self.runtime().filter(|_| self.may_ask(now))?.clone();
        match patiently(runtime.observe(store, images, handed_over)).await {
            Ok(observation) => {
                if let Some(away) = self.away.take() {
                    tracing::info!(seconds = away.since.elapsed().as_secs(), "the container runtime is back");
                    self.describe().await;
                }
                Some(observation)
            }
            Err(error) => {
                // Not when it was asked: that may be longer ago than the pause before it is asked again.
                self.failed(&error, Instant::now());
                None
            }
        }
    }

    /// Notes that the runtime did not answer.
    pub(super) fn failed(&mut self, error: &RuntimeError, now: Instant) {
        let message = error.to_string();
        if self.away.is_none() {
            tracing::warn!(error = message, "the container runtime is away; trying again");
        }
        let (since, pause) = self
            .away
            .as_ref()
            .map_or((now, Duration::from_secs(1)), |away| (away.since, (away.pause * 2).min(MAX_PAUSE)));
        self.away = Some(Away { since, pause, ask_at: now + pause, message });
    }
}

/// An answer, or an error where there is none for too long.
pub(super) async fn patiently<T>(
    answer: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    match timeout(PATIENCE, answer).await {
        Ok(result) => result,
        Err(_) => Err(RuntimeError::Refused {
            what: "say how images stand".to_owned(),
            cause: format!("no answer within {} seconds", PATIENCE.as_secs()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> RuntimeError {
        RuntimeError::Unreachable { endpoint: "/run/x.sock".into(), cause: "refused".to_owned() }
    }

    #[tokio::test]
    async fn a_restart_is_not_told_and_an_outage_is() {
        let mut link = Link::none();
        let now = Instant::now();
        assert!(!link.is_in_grace(now) && link.trouble(now).is_none() && link.may_ask(now));
        link.failed(&unreachable(), now);
        assert!(link.is_in_grace(now + GRACE / 2) && link.trouble(now + GRACE / 2).is_none());
        assert!(link.due().any(|due| link.trouble(due).is_some()), "it is told as soon as it is one");
        link.failed(&unreachable(), now + GRACE / 2);
        let later = now + GRACE;
        assert!(!link.is_in_grace(later));
        let message = link.trouble(later).unwrap();
        assert!(message.contains("/run/x.sock"), "{message}");
    }

    #[tokio::test]
    async fn a_runtime_that_is_away_is_asked_less_and_less_often() {
        let mut link = Link::none();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..5 {
            link.failed(&unreachable(), now);
            let due = link.due().next().unwrap();
            assert!(!link.may_ask(now) && link.may_ask(due));
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 8]);
    }
}
