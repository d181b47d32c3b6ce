//! Looking tags up again, when their time has come, and noticing that they have moved.
//!
//! A look is one request that fetches nothing. Where a tag has moved, its new digest is reported beside the one that is
//! held; an image whose tag is to be followed is then fetched like any other. What cannot be looked up stays as it is, and
//! is tried again.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use larder_crds::RefreshRule;
use larder_oci::Digest;
use larder_plan::refresh;
use larder_registry::RegistryError;
use tokio::{
    task::{Id, JoinError},
    time::{Instant, timeout},
};

use super::{
    Engine,
    backoff::{Backoff, BackoffOptions},
    desired::{DesiredImage, Source},
    logins::Logins,
};

/// Tags that are looked up at the same time. A look is short, and a registry that does not answer holds up few.
const CONCURRENT_LOOKS: usize = 4;
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the engine remembers of an image whose tag is looked up again and again.
pub(super) struct Look {
    rules: Vec<RefreshRule>,
    /// When the tag was last looked up.
    refreshed: Option<Timestamp>,
    /// When it is to be looked up next.
    due: Option<Timestamp>,
    /// What it stood for then.
    found: Option<Digest>,
    /// The look that is under way.
    under_way: Option<Id>,
    backoff: Backoff,
    /// Not before this, since the last look failed.
    retry_at: Option<Instant>,
}

impl Look {
    pub(super) fn new(options: &BackoffOptions) -> Self {
        Self {
            rules: Vec::new(),
            refreshed: None,
            due: None,
            found: None,
            under_way: None,
            backoff: Backoff::new(options),
            retry_at: None,
        }
    }

    /// Takes up what is wanted now.
    pub(super) fn follow(&mut self, wanted: &DesiredImage, seed: refresh::Seed, now: Timestamp) {
        self.refreshed = self.refreshed.or(wanted.refreshed);
        if self.rules != wanted.refresh {
            self.rules.clone_from(&wanted.refresh);
            self.plan(seed, now);
        }
    }

    fn plan(&mut self, seed: refresh::Seed, now: Timestamp) {
        self.due = match self.refreshed {
            _ if self.rules.is_empty() => None,
            Some(last) => refresh::next_of(&self.rules, last, seed),
            None => Some(refresh::first(now, seed)),
        };
    }

    /// The tag has been looked up, and stands for this.
    pub(super) fn done(&mut self, found: Option<Digest>, seed: refresh::Seed, now: Timestamp) {
        (self.refreshed, self.found, self.retry_at) = (Some(now), found, None);
        self.backoff.reset();
        self.plan(seed, now);
    }

    /// When it was last looked up; nothing where it is not to be looked up again.
    pub(super) fn refreshed(&self) -> Option<Timestamp> {
        self.refreshed.filter(|_| !self.rules.is_empty())
    }

    /// What the tag stands for, where that is another than the one that is held.
    pub(super) fn moved(&self, held: &Digest) -> Option<&Digest> {
        self.found.as_ref().filter(|found| !self.rules.is_empty() && *found != held)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let may = self.under_way.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now());
        may && self.due.is_some_and(|due| due <= now)
    }

    /// When to wake up for it. Clocks are set: whoever waits looks again from time to time.
    pub(super) fn wake_at(&self, now: Timestamp) -> Option<Instant> {
        let due = self.due.filter(|_| self.under_way.is_none())?;
        let wait = Duration::try_from(due.duration_since(now)).unwrap_or_default();
        Some(self.retry_at.map_or(Instant::now() + wait, |at| at.max(Instant::now() + wait)))
    }
}

impl Engine {
    /// Looks up the tags whose time has come, of images that are there. Those that are not are fetched anyway.
    pub(super) fn start_looks(&mut self) {
        let now = Timestamp::now();
        for wanted in &self.desired.images {
            let Ok(key) = &wanted.key else { continue };
            let Some(held) = self.observed.complete(key).map(|found| found.digest.clone()) else { continue };
            let Some(image) = self.images.get_mut(key) else { continue };
            if image.pull.is_some() || !image.look.is_due(now) {
                continue;
            }
            match &wanted.source {
                // A digest stands for itself.
                Source::Registry if key.name.digest().is_some() => {
                    image.look.done(Some(held), self.options.seed, now);
                }
                Source::Registry if self.looks.len() < CONCURRENT_LOOKS => {
                    let (registry, name) = (self.registry.clone(), key.name.clone());
                    let logins =
                        Logins::new(self.pull_secrets.as_ref(), &self.registry, &wanted.pull_secrets);
                    let look = self.looks.spawn(async move {
                        let found = logins.with(&name, || registry.head_manifest(&name));
                        timeout(PATIENCE, found).await.map(|found| found.map(|head| head.digest))
                    });
                    self.look_keys.insert(look.id(), key.clone());
                    image.look.under_way = Some(look.id());
                }
                Source::Registry => {}
                // Whether it is another archive by now is seen when it is loaded.
                Source::File(_) | Source::Artifact(_) => {
                    image.rechecked &= !wanted.always;
                    image.look.done(None, self.options.seed, now);
                }
            }
        }
    }

    /// Takes note of what a look came to.
    pub(super) fn record_look(&mut self, ended: Result<(Id, LookResult), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            Err(error) => (error.id(), None),
        };
        let Some(key) = self.look_keys.remove(&id) else { return };
        let wanted = self.desired.images.iter().find(|wanted| wanted.key.as_ref() == Ok(&key));
        let (Some(image), Some(wanted)) = (self.images.get_mut(&key), wanted) else { return };
        if image.look.under_way != Some(id) {
            return;
        }
        image.look.under_way = None;
        let why = match result {
            Some(Ok(Ok(digest))) => {
                let held = self.observed.complete(&key).map(|found| &found.digest);
                if let Some(held) = held.filter(|held| **held != digest) {
                    tracing::info!(image = %key, %held, found = %digest, follow = wanted.always, "its tag has moved");
                    image.rechecked &= !wanted.always;
                }
                return image.look.done(Some(digest), self.options.seed, Timestamp::now());
            }
            Some(Ok(Err(error))) => error.to_string(),
            Some(Err(_)) => format!("no answer within {} seconds", PATIENCE.as_secs()),
            None => "interrupted".to_owned(),
        };
        let delay = image.look.backoff.next_delay(None);
        image.look.retry_at = Some(Instant::now() + delay);
        tracing::warn!(image = %key, error = why, ?delay, "its tag could not be looked up; it stays as it is");
    }
}

/// What a tag stands for; an error, or no answer in time.
pub(super) type LookResult = Result<Result<Digest, RegistryError>, tokio::time::error::Elapsed>;

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(seconds: i64, refreshed: Option<Timestamp>) -> DesiredImage {
        let refresh = vec![RefreshRule { interval_seconds: Some(seconds), ..RefreshRule::default() }];
        DesiredImage { refresh, refreshed, ..DesiredImage::new("a", None, true) }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[tokio::test]
    async fn it_is_looked_up_soon_and_then_from_time_to_time() {
        let seed = refresh::Seed::of("n");
        let mut look = Look::new(&BackoffOptions::default());
        look.follow(&DesiredImage::new("a", None, true), seed, at(1_000));
        assert!(!look.is_due(at(1_000_000)) && look.wake_at(at(0)).is_none() && look.refreshed().is_none());
        look.follow(&wanted(3_600, None), seed, at(1_000));
        assert!(look.is_due(at(1_060)) && look.wake_at(at(1_000)).is_some());
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        look.done(Some(two.clone()), seed, at(1_060));
        assert_eq!((look.moved(&one), look.moved(&two)), (Some(&two), None));
        assert!(!look.is_due(at(1_060 + 3_000)) && look.is_due(at(1_060 + 3_600)));
        assert_eq!(look.refreshed(), Some(at(1_060)));
        look.follow(&wanted(600, None), seed, at(2_000));
        assert!(look.is_due(at(2_000)), "a shorter interval takes effect at once");
        look.follow(&DesiredImage::new("a", None, true), seed, at(2_000));
        assert_eq!((look.is_due(at(1_000_000)), look.moved(&one), look.refreshed()), (false, None, None));
    }

    #[tokio::test]
    async fn a_restart_goes_on_from_the_last_look() {
        let seed = refresh::Seed::of("n");
        let mut look = Look::new(&BackoffOptions::default());
        look.follow(&wanted(3_600, Some(at(1_000))), seed, at(2_000));
        assert!(!look.is_due(at(2_100)) && look.is_due(at(4_600)));
    }
}
