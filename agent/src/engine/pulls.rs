//! Fetching images, one task each.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use larder_crds::PullCount;
use larder_oci::{ImageKey, spec::Descriptor};
use larder_plan::node::Delivered;
use larder_pull::{Progress, PullError, Pulled};
use larder_store::Claim;
use tokio::{
    task::{Id, JoinError},
    time::Instant,
};

use super::{
    Engine,
    desired::{Fetching, Source},
    disk::Ticket,
    fetch::{Fetch, FetchError},
    image::{Failure, Pull},
    logins::Logins,
    observe::Standing,
    schedule::{self, Turn, Waiting},
};
use crate::reason;

/// The platform's manifest and the index that the name stands for, once the store has them.
pub(super) type Resolved = (Descriptor, Option<Descriptor>);

/// What an image holds while it is fetched and delivered: others wait for it.
pub(super) struct Held {
    _turn: Turn,
    _ticket: Arc<Ticket>,
}

/// A try to fetch an image that is under way, or whose end has not been taken note of. The image may not be wanted any more.
pub(super) struct Begun {
    pub key: ImageKey,
    at: Instant,
    progress: Arc<Progress>,
    ticket: Arc<Ticket>,
}

impl Begun {
    /// What it comes to, now that it is over.
    fn count(&self, result: &Result<Pulled, FetchError>) -> PullCount {
        let milliseconds = i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        let bytes = i64::try_from(self.progress.received()).unwrap_or(i64::MAX);
        match result {
            // Its tag was looked up, and that was all.
            Ok(pulled) if pulled.up_to_date => PullCount::default(),
            Ok(_) => PullCount { images: 1, failures: 0, bytes, milliseconds },
            Err(FetchError::Unsettled | FetchError::Pull(PullError::Interrupted)) => {
                PullCount { bytes, ..PullCount::default() }
            }
            // It waits for space that others are about to free.
            Err(_) if self.ticket.refused().is_some_and(|refused| refused.passes) => {
                PullCount { bytes, ..PullCount::default() }
            }
            Err(_) => PullCount { failures: 1, bytes, ..PullCount::default() },
        }
    }
}

impl Engine {
    /// Starts to fetch those of these images whose turn it is. What they need of the runtime goes on beside them.
    pub(super) fn start_pulls(&mut self, wanted: &[ImageKey]) {
        let nothing = Fetching::default();
        let waiting = wanted.iter().filter(|key| self.may_start(key)).filter_map(|key| {
            let failures = self.images.get(key)?.backoff.failures();
            Some(Waiting::new(key, self.fetching.get(key).unwrap_or(&nothing), failures))
        });
        let picked = schedule::pick(waiting.collect(), &self.turns.under_way(), self.desired.max_downloads);
        for image in picked {
            self.start_pull(&image);
        }
    }

    /// Whether an image could be fetched now: that is not under way, and its time has come.
    ///
    /// While the runtime is away nothing is fetched for it: it may have the layers already.
    fn may_start(&self, key: &ImageKey) -> bool {
        let is_idle = self.images.get(key).is_some_and(|image| {
            let waits = image.failure.as_ref().is_some_and(|failure| failure.due > Instant::now());
            let is_crowded = || image.crowded.as_ref().is_some_and(|takes| self.disks.are_crowded_for(takes));
            image.pull.is_none() && !waits && !is_crowded()
        });
        is_idle && !self.link.is_missed_by(key) && !self.tidying.contains(key) && self.may_load(key)
    }

    /// Who looks after an image that is fetched. What a person put there stays a person's, whatever is fetched for it again.
    pub(super) fn claim_for(&self, key: &ImageKey) -> Claim {
        match self.observed.claim(key) {
            Some(Claim::None) => Claim::None,
            _ => Claim::Delete,
        }
    }

    fn start_pull(&mut self, waiting: &Waiting) {
        let key = &waiting.place.key;
        // Another one that has been picked may be to come from the same archive.
        if !self.may_load(key) {
            return;
        }
        let claim = self.claim_for(key);
        let unpacks = self.link.reachable().is_some_and(|runtime| runtime.takes(key));
        // What comes out of an archive is all there at once.
        let is_pulled = self.fetching.get(key).is_none_or(|fetching| fetching.source == Source::Registry);
        let pipeline = if is_pulled { self.start_pipeline(key) } else { None };
        let progress = Arc::new(match &pipeline {
            Some(pipeline) => Progress::observed(pipeline.clone()),
            None => Progress::default(),
        });
        progress.begin();
        let ticket = Arc::new(Ticket::new(&self.disks, &progress, unpacks));
        let held = Arc::new(Held { _turn: self.turns.begin(waiting.lane.clone()), _ticket: ticket.clone() });
        // Kept until the image is delivered too: a runtime that is slower than the registry must not be given ever more
        // images at once.
        if let Some(pipeline) = &pipeline {
            pipeline.hold(held.clone());
        }
        let fetch = Fetch {
            key: key.clone(),
            claim,
            puller: self
                .puller
                .clone()
                .to_annex(pipeline.is_some())
                .to_be_read(!self.link.takes(key))
                .with_admission(ticket.clone()),
            progress: progress.clone(),
            load: self.load(key, claim, ticket.clone()),
            pipeline,
            limit: self.fetching.get(key).and_then(|fetching| fetching.timeout),
            logins: Logins::new(
                self.pull_secrets.as_ref(),
                &self.registry,
                self.fetching.get(key).map_or(&[], |fetching| &fetching.pull_secrets),
            ),
        };
        let abort = self.pulls.spawn(async move {
            let _held = held;
            fetch.run().await
        });
        let begun = Begun {
            key: key.clone(),
            at: Instant::now(),
            progress: progress.clone(),
            ticket: ticket.clone(),
        };
        self.pull_keys.insert(abort.id(), begun);
        if let Some(image) = self.images.get_mut(key) {
            image.pull = Some(Pull { progress, abort, ticket });
            image.crowded = None;
        }
    }

    /// Takes note of how a pull ended.
    pub(super) fn record_pull(&mut self, ended: Result<(Id, Result<Pulled, FetchError>), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(PullError::Interrupted.into())),
        };
        let Some(begun) = self.pull_keys.remove(&id) else { return };
        self.pull_count = self.pull_count.plus(begun.count(&result));
        let key = begun.key;
        let Some(image) = self.images.get_mut(&key) else {
            // Its lease was alive when the image was given up, and is not any more.
            self.forget.insert(key);
            return;
        };
        // An image that was unwanted for a moment has a new entry, and perhaps a new pull, by now.
        if image.pull.as_ref().is_none_or(|pull| pull.abort.id() != id) {
            return;
        }
        let refused = image.pull.take().and_then(|pull| pull.ticket.refused());
        match result {
            Ok(pulled) => {
                tracing::info!(image = %key, digest = %pulled.digest, bytes = pulled.size, "pulled");
                image.failure = None;
                image.backoff.reset();
                image.rechecked = true;
                image.look.done(Some(pulled.digest.clone()), self.options.seed, Timestamp::now());
                self.is_stale |= self.observed.get(&key).is_some_and(|found| found.digest != pulled.digest);
                // What the runtime has under the name is older than this answer.
                image.looked_up = match self.observed.get(&key) {
                    Some(found) => match &found.standing {
                        Standing::Moved(to) => Some(to.clone()),
                        _ if found.digest != pulled.digest => Some(found.digest.clone()),
                        _ => None,
                    },
                    None => None,
                };
            }
            Err(FetchError::Unsettled) => {
                tracing::info!(image = %key, "its archive is still being written");
                image.failure = None;
            }
            Err(error) if refused.is_some_and(|refused| refused.passes) => {
                tracing::info!(image = %key, %error, "it waits until other images are done");
                (image.failure, image.crowded) = (None, refused.map(|refused| refused.takes));
            }
            Err(error) => {
                let delay = image.backoff.next_delay(error.retry_after());
                let why = reason::of_fetch(&error);
                tracing::warn!(image = %key, reason = why.as_str(), %error, ?delay, "pull failed");
                let failure = Failure {
                    asked: error.retry_after(),
                    lacks: refused.map(|refused| refused.takes),
                    ..Failure::new(why, error.to_string(), delay)
                };
                let lasts = self.loads.refused(&key, &error);
                image.failure = Some(if lasts { failure.that_lasts() } else { failure });
            }
        }
    }

    /// How images stand, as the plan wants to know it.
    pub(super) fn held(&self) -> Vec<larder_plan::node::Held> {
        let mut held = self.observed.held(|key, to| {
            let looked_up = self.images.get(key).is_some_and(|image| image.looked_up.as_ref() == Some(to));
            // What an image from an archive is, no registry has a say in.
            looked_up || self.fetching.get(key).is_some_and(|fetching| fetching.source != Source::Registry)
        });
        // A name is on its way from one image to another.
        for image in &mut held {
            let under_way = self.images.get(&image.key).is_some_and(|known| known.delivery.is_some());
            if image.delivered == Delivered::Moved && under_way {
                image.delivered = Delivered::Missing;
            }
        }
        held
    }
}
