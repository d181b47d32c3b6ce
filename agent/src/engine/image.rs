//! What the engine remembers of an image that is wanted.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use larder_crds::FailureReason;
use larder_oci::Digest;
use larder_pull::Progress;
use tokio::{task::AbortHandle, time::Instant};

use super::{
    backoff::{Backoff, BackoffOptions},
    disk::{Takes, Ticket},
    refresh::Look,
};

/// For ever, as far as a program goes.
const LASTING: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How long what there was no room for is left alone, however much space there may be then.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// What the engine remembers of a wanted image. Nothing that could not be found out again.
pub(super) struct Image {
    pub pull: Option<Pull>,
    /// The delivery that is under way.
    pub delivery: Option<AbortHandle>,
    /// Why it was not fetched, last time.
    pub failure: Option<Failure>,
    /// What there was no room for beside images that are under way: it waits for them.
    pub crowded: Option<Takes>,
    /// Why it was not delivered, last time.
    pub delivery_failure: Option<Failure>,
    pub backoff: Backoff,
    pub deliver_backoff: Backoff,
    /// Before this it is not delivered again.
    pub deliver_at: Option<Instant>,
    /// Its tag has been looked up since the engine started.
    pub rechecked: bool,
    /// When its tag is looked up again, and what that came to.
    pub look: Look,
    /// A digest that the runtime had under its name, and that the registry does not mean by it (any more).
    pub looked_up: Option<Digest>,
    /// What was ready under its name at the last look that found it so.
    ready: Option<Digest>,
    /// It was ready, and then it was not any more.
    missed: bool,
}

/// A pull that is under way.
pub(super) struct Pull {
    pub progress: Arc<Progress>,
    pub abort: AbortHandle,
    /// Its claim on space.
    pub ticket: Arc<Ticket>,
}

/// What a look found, as far as it is news.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It was ready, and is not any more.
    Lost,
    /// It was lost, and is ready again.
    Restored,
}

impl Image {
    pub(super) fn new(options: &BackoffOptions) -> Self {
        Self {
            pull: None,
            delivery: None,
            failure: None,
            crowded: None,
            delivery_failure: None,
            backoff: Backoff::new(options),
            deliver_backoff: Backoff::new(options),
            deliver_at: None,
            rechecked: false,
            look: Look::new(options),
            looked_up: None,
            ready: None,
            missed: false,
        }
    }

    /// Waits as `options` say from now on, for the next try too.
    pub(super) fn set_backoff(&mut self, options: &BackoffOptions) {
        if self.backoff.set(options)
            && let Some(failure) = &mut self.failure
        {
            failure.reschedule(self.backoff.delay(failure.asked));
        }
        if self.deliver_backoff.set(options)
            && let Some(failure) = &mut self.delivery_failure
        {
            failure.reschedule(self.deliver_backoff.delay(None));
            self.deliver_at = Some(failure.due);
        }
    }

    /// Tries again at once what there was no room for, if there is now. Not in the same second: what the two looks at the
    /// disk saw may differ by what others write, and every try asks the registry.
    pub(super) fn look_for_room(&mut self, has_room: impl Fn(&Takes) -> bool) {
        let now = Instant::now();
        if let Some(failure) = self.failure.as_mut().filter(|failure| failure.due > now)
            && failure.since + ROOM_PAUSE <= now
            && failure.lacks.as_ref().is_some_and(has_room)
        {
            failure.due = now;
        }
    }

    /// It is to come from elsewhere: what the last tries came to says nothing of the next one.
    pub(super) fn start_over(&mut self) {
        if let Some(pull) = self.pull.take() {
            pull.abort.abort();
        }
        (self.failure, self.rechecked) = (None, false);
        self.backoff.reset();
    }

    /// Ends what is under way.
    pub(super) fn abort(&self) {
        let pull = self.pull.as_ref().map(|pull| &pull.abort);
        pull.into_iter().chain(&self.delivery).for_each(AbortHandle::abort);
    }

    /// A look found it ready.
    pub(super) fn found(&mut self, digest: &Digest) -> Option<News> {
        self.delivery_failure = None;
        self.deliver_at = None;
        self.deliver_backoff.reset();
        self.looked_up = None;
        self.ready = Some(digest.clone());
        std::mem::take(&mut self.missed).then_some(News::Restored)
    }

    /// What is wanted of it has changed: that it is not so yet does not mean that it was lost.
    pub(super) fn expect_change(&mut self) {
        self.ready = None;
    }

    /// A look did not find it, or found it incomplete. `digest` is what the store has under its name.
    pub(super) fn not_found(&mut self, digest: Option<&Digest>) -> Option<News> {
        let ready = self.ready.take()?;
        // Where its tag has moved, nothing was lost.
        self.missed = digest.is_none_or(|digest| *digest == ready);
        self.missed.then_some(News::Lost)
    }

    /// When to try again what failed.
    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        let failure = self.failure.as_ref().filter(|_| self.pull.is_none());
        let room =
            failure.filter(|failure| failure.lacks.is_some()).map(|failure| failure.since + ROOM_PAUSE);
        let pull = failure.map(|failure| failure.due).into_iter().chain(room);
        let look = self.look.wake_at(Timestamp::now());
        pull.chain(self.deliver_at.filter(|_| self.delivery.is_none())).chain(look)
    }
}

/// Why an image was not had, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub reason: FailureReason,
    pub message: String,
    pub due: Instant,
    /// `None`: not by the clock.
    pub retry_time: Option<Timestamp>,
    /// How long the registry asked to wait.
    pub asked: Option<Duration>,
    /// What there was no room for.
    pub lacks: Option<Takes>,
    /// When it failed.
    pub since: Instant,
    /// The same by the calendar.
    pub time: Timestamp,
}

impl Failure {
    pub(super) fn new(reason: FailureReason, message: String, delay: Duration) -> Self {
        let (since, time) = (Instant::now(), Timestamp::now());
        let mut failure = Self {
            reason,
            message,
            due: since,
            retry_time: Some(time),
            asked: None,
            lacks: None,
            since,
            time,
        };
        failure.reschedule(delay);
        failure
    }

    /// The same that lasts until something else than time has changed.
    pub(super) fn lasting(reason: FailureReason, message: String) -> Self {
        Self::new(reason, message, LASTING).that_lasts()
    }

    /// The same, lasting until something else than time has changed.
    pub(super) fn that_lasts(self) -> Self {
        Self { due: self.since + LASTING, retry_time: None, ..self }
    }

    /// Tries again so long after it failed, if it is a matter of time.
    fn reschedule(&mut self, delay: Duration) {
        if self.retry_time.is_none() {
            return;
        }
        let seconds = SignedDuration::try_from(delay).unwrap_or(SignedDuration::from_hours(1));
        (self.due, self.retry_time) = (self.since + delay, Some(self.time + seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_there_and_went_is_restored_and_what_moved_is_not() {
        let mut image = Image::new(&BackoffOptions::default());
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        assert_eq!(image.not_found(None), None, "it was never there");
        assert_eq!(image.found(&one), None);
        assert_eq!(image.not_found(Some(&one)), Some(News::Lost));
        assert_eq!(image.not_found(Some(&one)), None, "told once");
        assert_eq!(image.found(&one), Some(News::Restored));
        assert_eq!(image.not_found(Some(&two)), None, "its tag moved");
        assert_eq!(image.found(&two), None);
        assert_eq!(image.not_found(None), Some(News::Lost));
        assert_eq!(image.found(&two), Some(News::Restored));
    }
}
