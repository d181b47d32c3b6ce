//! What the engine remembers of an image that is wanted.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use larder_crds::FailureReason;
use larder_oci::Digest;
use larder_pull::Progress;
use tokio::{task::AbortHandle, time::Instant};

use super::backoff::{Backoff, BackoffOptions};

/// What the engine remembers of a wanted image. Nothing that could not be found out again.
pub(super) struct Image {
    pub pull: Option<Pull>,
    /// The delivery that is under way.
    pub delivery: Option<AbortHandle>,
    /// Why it was not fetched, last time.
    pub failure: Option<Failure>,
    /// Why it was not delivered, last time.
    pub delivery_failure: Option<Failure>,
    pub backoff: Backoff,
    pub deliver_backoff: Backoff,
    /// Before this it is not delivered again.
    pub deliver_at: Option<Instant>,
    /// Its tag has been looked up since the engine started.
    pub rechecked: bool,
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
            delivery_failure: None,
            backoff: Backoff::new(options),
            deliver_backoff: Backoff::new(options),
            deliver_at: None,
            rechecked: false,
            looked_up: None,
            ready: None,
            missed: false,
        }
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

    /// A look did not find it, or found it incomplete. `digest` is what the store has under its name.
    pub(super) fn not_found(&mut self, digest: Option<&Digest>) -> Option<News> {
        let ready = self.ready.take()?;
        // Where its tag has moved, nothing was lost.
        self.missed = digest.is_none_or(|digest| *digest == ready);
        self.missed.then_some(News::Lost)
    }

    /// When to try again what failed.
    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        let pull = self.failure.as_ref().filter(|_| self.pull.is_none()).map(|failure| failure.due);
        pull.into_iter().chain(self.deliver_at.filter(|_| self.delivery.is_none()))
    }
}

/// Why an image was not had, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub reason: FailureReason,
    pub message: String,
    pub due: Instant,
    pub retry_time: Timestamp,
}

impl Failure {
    pub(super) fn new(reason: FailureReason, message: String, delay: Duration) -> Self {
        let seconds = SignedDuration::try_from(delay).unwrap_or(SignedDuration::from_hours(1));
        Self { reason, message, due: Instant::now() + delay, retry_time: Timestamp::now() + seconds }
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
