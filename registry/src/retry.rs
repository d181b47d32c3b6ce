//! Trying again: what may succeed a moment later, after a wait that grows, or that the registry asks for.

use std::{future::Future, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder, Retryable};

use crate::RegistryError;

/// How often a request is sent again without any progress.
pub(crate) const RETRIES: usize = 4;
/// The pause before the first retry; each further one is twice as long, and all are jittered.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest wait that a registry may ask for within one operation. Beyond it, whoever asked for the operation is
/// told instead.
const MAX_WAIT: Duration = Duration::from_secs(60);

fn builder() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_max_times(RETRIES)
        .with_jitter()
}

/// The pauses between tries, as many as there are retries.
pub(crate) fn pauses() -> ExponentialBackoff {
    builder().build()
}

/// Whether to try again after this error, within the same operation.
pub(crate) fn is_worth_a_retry(error: &RegistryError) -> bool {
    let limited = matches!(error, RegistryError::TooManyRequests { .. });
    match error.retry_after() {
        Some(wait) => wait <= MAX_WAIT,
        None => limited || error.is_passing(),
    }
}

/// How long to wait after this error, where the pause would be `pause`.
pub(crate) fn wait_after(error: &RegistryError, pause: Duration) -> Duration {
    error.retry_after().map_or(pause, |asked| asked.max(pause))
}

/// Tries until it succeeds, fails for good, or has failed often enough.
pub(crate) async fn retrying<T, F>(operation: impl FnMut() -> F) -> Result<T, RegistryError>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    operation
        .retry(builder())
        .when(is_worth_a_retry)
        .adjust(|error, pause| pause.map(|pause| wait_after(error, pause)))
        .notify(|error, wait| tracing::debug!(%error, ?wait, "trying again"))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, retry_after: Option<u64>) -> RegistryError {
        RegistryError::Status {
            registry: "a.corp".to_owned(),
            status,
            what: "x".to_owned(),
            detail: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        for (error, again) in [
            (status(500, None), true),
            (status(503, Some(2)), true),
            (status(503, Some(3600)), false),
            (status(400, None), false),
            (RegistryError::Unreachable { registry: String::new(), cause: String::new() }, true),
            (RegistryError::NotFound { what: String::new(), detail: String::new() }, false),
            (
                RegistryError::TooManyRequests {
                    registry: String::new(),
                    detail: String::new(),
                    retry_after: None,
                },
                true,
            ),
        ] {
            assert_eq!(is_worth_a_retry(&error), again, "{error}");
        }
    }

    #[test]
    fn a_registry_may_ask_for_a_longer_wait_and_not_for_a_shorter() {
        let second = Duration::from_secs(1);
        assert_eq!(wait_after(&status(503, Some(7)), second), Duration::from_secs(7));
        assert_eq!(wait_after(&status(503, Some(0)), second), second);
        assert_eq!(wait_after(&status(503, None), second), second);
    }

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = pauses().collect();
        assert_eq!(pauses.len(), RETRIES);
        assert!(pauses.iter().all(|pause| *pause >= FIRST_PAUSE && *pause <= LONGEST_PAUSE * 2));
    }
}
