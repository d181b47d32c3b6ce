//! Trying again what may pass by itself, for callers that have no back-off of their own.

use std::{future::Future, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use larder_registry::RegistryError;

use crate::PullError;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The longest wait that a registry may ask for. Beyond it, the person who waits is told instead.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// Tries until it succeeds, fails for good, or has failed once more than `retries` times.
pub(crate) async fn patiently<T, F>(retries: usize, operation: impl FnMut() -> F) -> Result<T, PullError>
where
    F: Future<Output = Result<T, PullError>>,
{
    let pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_max_times(retries)
        .with_jitter();
    operation
        .retry(pauses)
        .when(may_pass)
        .adjust(|error, pause| pause.map(|pause| error.retry_after().map_or(pause, |asked| asked.max(pause))))
        .notify(|error, wait| tracing::info!(%error, ?wait, "trying again"))
        .await
}

fn may_pass(error: &PullError) -> bool {
    let PullError::Registry(error) = error else { return false };
    match error.retry_after() {
        Some(wait) => wait <= MAX_WAIT,
        None => error.is_passing() || matches!(error, RegistryError::TooManyRequests { .. }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let limited = |seconds: u64| {
            PullError::from(RegistryError::TooManyRequests {
                registry: "a.corp".to_owned(),
                detail: String::new(),
                retry_after: Some(Duration::from_secs(seconds)),
            })
        };
        assert!(may_pass(&limited(2)));
        assert!(!may_pass(&limited(3600)));
        assert!(!may_pass(&PullError::Interrupted));
        let gone = RegistryError::NotFound { what: "x".to_owned(), detail: String::new() };
        assert!(!may_pass(&gone.into()));
    }
}
