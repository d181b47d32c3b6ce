//! How long to leave an image alone after it failed.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use larder_crds::RetryDelays;

/// Bounds of the waiting time. It doubles with each failure in a row, from `min` to `max`, and up to as much again is
/// added at random, so that a thousand nodes don't come back together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackoffOptions {
    /// The wait after the first failure.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Default for BackoffOptions {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(150) }
    }
}

impl BackoffOptions {
    /// The same for an image that has bounds of its own. A first wait that is longer than the longest counts for both, and
    /// a longest one that is shorter than the first, where only that is given.
    pub(super) fn with(&self, delays: &RetryDelays) -> Self {
        let read = |seconds: Option<i64>| {
            seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|&seconds| seconds > 0)
        };
        let [min, max] =
            [delays.initial_seconds, delays.max_seconds].map(|it| read(it).map(Duration::from_secs));
        let first = min.unwrap_or_else(|| max.map_or(self.min, |max| max.min(self.min)));
        Self { min: first, max: max.unwrap_or(self.max).max(first) }
    }
}

/// The waiting times of one image.
pub(super) struct Backoff {
    options: BackoffOptions,
    /// In a row.
    failures: u32,
}

impl Backoff {
    pub(super) fn new(options: &BackoffOptions) -> Self {
        Self { options: options.clone(), failures: 0 }
    }

    /// How often it has failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The wait after one more failure; never shorter than the registry asks for.
    pub(super) fn next_delay(&mut self, retry_after: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.delay(retry_after)
    }

    /// The wait after the last failure, drawn anew.
    pub(super) fn delay(&self, retry_after: Option<Duration>) -> Duration {
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(self.options.min)
            .with_max_delay(self.options.max)
            .with_jitter()
            .without_max_times()
            .build();
        // From some number on they are all the same.
        let number = self.failures.clamp(1, 32) as usize - 1;
        let delay = delays.nth(number).unwrap_or(self.options.max);
        retry_after.map_or(delay, |asked| if asked > delay { asked + delay.min(asked / 4) } else { delay })
    }

    /// Has other bounds from now on; says whether they are other ones. The failures so far count as before.
    pub(super) fn set(&mut self, options: &BackoffOptions) -> bool {
        let changed = self.options != *options;
        self.options.clone_from(options);
        changed
    }

    /// Starts over after a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_grow_to_a_cap_and_start_over() {
        let options = BackoffOptions { min: Duration::from_secs(1), max: Duration::from_secs(8) };
        let mut backoff = Backoff::new(&options);
        for (failure, base) in [1, 2, 4, 8, 8, 8].into_iter().enumerate() {
            let delay = backoff.next_delay(None);
            let base = Duration::from_secs(base);
            assert!(delay >= base && delay <= base * 2, "failure {failure}: {delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay(None) <= Duration::from_secs(2));
    }

    #[test]
    fn an_image_has_bounds_of_its_own() {
        let agents = BackoffOptions { min: Duration::from_secs(2), max: Duration::from_secs(60) };
        for (initial, max, expected) in [
            (None, None, (2, 60)),
            (Some(5), None, (5, 60)),
            (Some(100), None, (100, 100)),
            (None, Some(600), (2, 600)),
            (None, Some(1), (1, 1)),
            (Some(5), Some(10), (5, 10)),
            (Some(-1), Some(0), (2, 60)),
        ] {
            let delays = RetryDelays { initial_seconds: initial, max_seconds: max };
            let found = agents.with(&delays);
            assert_eq!((found.min.as_secs(), found.max.as_secs()), expected, "{delays:?}");
        }
    }

    #[test]
    fn other_bounds_count_at_once_and_failures_go_on_counting() {
        let seconds =
            |min, max| BackoffOptions { min: Duration::from_secs(min), max: Duration::from_secs(max) };
        let mut backoff = Backoff::new(&seconds(1, 1_000));
        for _ in 0..9 {
            backoff.next_delay(None);
        }
        assert!(backoff.delay(None) >= Duration::from_secs(256));
        assert!(backoff.set(&seconds(1, 4)) && !backoff.set(&seconds(1, 4)));
        assert!(backoff.delay(None) <= Duration::from_secs(8));
        assert!(
            backoff.delay(Some(Duration::from_secs(90))) >= Duration::from_secs(90),
            "the registry's wish stands"
        );
        backoff.set(&seconds(1, 1_000));
        assert!(backoff.next_delay(None) >= Duration::from_secs(512));
        assert_eq!(backoff.failures(), 10);
    }

    proptest! {
        #[test]
        fn never_shorter_than_the_registry_asks(asked in 0u64..4000, failures in 0usize..20) {
            let mut backoff = Backoff::new(&BackoffOptions::default());
            for _ in 0..failures {
                backoff.next_delay(None);
            }
            let asked = Duration::from_secs(asked);
            prop_assert!(backoff.next_delay(Some(asked)) >= asked);
        }
    }
}
