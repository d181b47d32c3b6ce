//! How long to leave an image alone after it failed.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Bounds of the waiting time. It doubles with each failure in a row, from `min` to `max`, and up to as much again is
/// added at random, so that a thousand nodes don't come back together.
#[derive(Debug, Clone)]
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

/// The waiting times of one image.
pub(super) struct Backoff {
    builder: ExponentialBuilder,
    delays: ExponentialBackoff,
}

impl Backoff {
    pub(super) fn new(options: &BackoffOptions) -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(options.min)
            .with_max_delay(options.max)
            .with_jitter()
            .without_max_times();
        Self { builder, delays: builder.build() }
    }

    /// The wait after one more failure; never shorter than the registry asks for.
    pub(super) fn next_delay(&mut self, retry_after: Option<Duration>) -> Duration {
        let delay = self.delays.next().unwrap_or(Duration::from_secs(60));
        retry_after.map_or(delay, |asked| if asked > delay { asked + delay.min(asked / 4) } else { delay })
    }

    /// Starts over after a success.
    pub(super) fn reset(&mut self) {
        self.delays = self.builder.build();
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
