//! Answers that stand still, or nearly: one byte a second is as good as none, and would keep a pull for years.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use reqwest::Response;
use tokio::time::timeout;

use crate::RegistryError;

/// Bytes a second below which a body counts as standing still. Six connections that share a line of 9600 baud are faster.
const LEAST_RATE: f64 = 128.0;

/// A body whose bytes must come.
///
/// What is measured is the time that is spent waiting for bytes, so that a slow disk on our side, which stops the body by
/// not reading on, is not held against the registry.
pub(crate) struct Body {
    stream: BoxStream<'static, reqwest::Result<Bytes>>,
    limit: Duration,
    /// So many bytes must come in that time.
    least: u64,
    bytes: u64,
    waited: Duration,
}

impl Body {
    /// An answer's body, in which the registry may stand still so long.
    pub fn of(response: Response, limit: Duration) -> Self {
        Self::new(response.bytes_stream().boxed(), limit)
    }

    fn new(stream: BoxStream<'static, reqwest::Result<Bytes>>, limit: Duration) -> Self {
        Self { stream, limit, least: least(limit), bytes: 0, waited: Duration::ZERO }
    }

    /// The next bytes. `registry` is for the error: [`RegistryError::Unreachable`].
    pub async fn next(&mut self, registry: &str) -> Option<Result<Bytes, RegistryError>> {
        let began = Instant::now();
        let next = timeout(self.limit.saturating_sub(self.waited), self.stream.next()).await;
        self.waited += began.elapsed();
        match next {
            Ok(Some(Ok(chunk))) => {
                self.bytes += chunk.len() as u64;
                if self.bytes >= self.least {
                    (self.bytes, self.waited) = (0, Duration::ZERO);
                }
                Some(Ok(chunk))
            }
            Ok(Some(Err(error))) => Some(Err(RegistryError::unreachable(registry, error))),
            Ok(None) => None,
            Err(_) => Some(Err(RegistryError::Unreachable {
                registry: registry.to_owned(),
                cause: format!("only {} bytes came in {} s", self.bytes, self.limit.as_secs_f64()),
            })),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a duration is no negative number"
)]
fn least(limit: Duration) -> u64 {
    ((limit.as_secs_f64() * LEAST_RATE) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// Bytes, each piece after its pause, on a clock that stands still while nobody waits.
    fn body(limit: Duration, pieces: &[(Duration, usize)]) -> Body {
        let pieces = pieces.to_vec();
        let stream = stream::iter(pieces).then(|(pause, length)| async move {
            tokio::time::sleep(pause).await;
            Ok(Bytes::from(vec![0; length]))
        });
        Body::new(stream.boxed(), limit)
    }

    async fn read(mut body: Body) -> Result<usize, String> {
        let mut length = 0;
        while let Some(chunk) = body.next("a.corp").await {
            length += chunk.map_err(|error| error.to_string())?.len();
        }
        Ok(length)
    }

    #[tokio::test]
    async fn silence_and_dribble_end_and_what_comes_steadily_does_not() {
        let (limit, tick) = (Duration::from_millis(200), Duration::from_millis(20));
        // 25 bytes in 200 ms are the least.
        assert_eq!(read(body(limit, &[(tick, 10)])).await, Ok(10));
        assert_eq!(read(body(limit, &[(tick, 26); 30])).await, Ok(780));
        let error = read(body(limit, &vec![(tick, 1); 1000])).await.unwrap_err();
        assert!(error.contains("bytes came in 0.2 s"), "{error}");
        let error = read(body(limit, &[(tick, 100), (Duration::from_secs(3600), 100)])).await.unwrap_err();
        assert!(error.contains("only 0 bytes"), "{error}");
    }

    #[tokio::test]
    async fn time_in_which_nobody_asks_does_not_count() {
        let limit = Duration::from_millis(200);
        let mut body = body(limit, &[(Duration::ZERO, 1); 3]);
        while let Some(chunk) = body.next("a.corp").await {
            assert_eq!(chunk.unwrap().len(), 1);
            tokio::time::sleep(limit).await;
        }
    }
}
