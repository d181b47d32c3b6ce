//! Waiting for something to become true, without a guess at how long it takes.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How long the harness waits for a part that works before it gives up. Generous: it is a bound, not a measure,
/// and a loaded machine must not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks `probe` again and again, until it gives something or `limit` has passed. `what` completes "waited for …".
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if start.elapsed() >= limit {
            return Err(Error::Timeout { what: what.to_owned(), seconds: limit.as_secs() });
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}
