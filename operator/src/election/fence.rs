//! Until when this process may write.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// Holds back every write of a process that does not lead, or no longer leads for certain.
///
/// **Invariant:** two replicas never write at the same time. All writes pass a fence; the fence of a leader closes by
/// itself, whatever hangs, before anybody else may take its Lease (`a_leader_that_wakes_up_after_its_term_writes_nothing`).
#[derive(Debug, Clone)]
pub(crate) struct Fence(Arc<Mutex<Until>>);

#[derive(Debug, Clone, Copy)]
enum Until {
    Always,
    Moment(Instant),
    Closed,
}

impl Fence {
    /// A fence that is never closed: for an operator that is alone.
    pub fn open() -> Self {
        Self(Arc::new(Mutex::new(Until::Always)))
    }

    /// A fence that is closed until the first [`Fence::extend`].
    pub fn closed() -> Self {
        Self(Arc::new(Mutex::new(Until::Closed)))
    }

    /// Opens it until this moment.
    pub fn extend(&self, until: Instant) {
        self.set(Until::Moment(until));
    }

    /// Closes it.
    pub fn close(&self) {
        self.set(Until::Closed);
    }

    /// Returns once it is closed, which may be at once.
    pub async fn wait_closed(&self) {
        loop {
            match self.get() {
                Until::Always => std::future::pending().await,
                Until::Moment(until) if Instant::now() < until => tokio::time::sleep_until(until).await,
                // Not closed for ever: who waits gives up here and now, and a later term opens it anew.
                Until::Moment(_) | Until::Closed => return,
            }
        }
    }

    fn get(&self) -> Until {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Until) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_closes_when_nobody_extends_it_and_not_before() {
        let fence = Fence::closed();
        assert!(fence.wait_closed().now_or_never().is_some());
        let start = Instant::now();
        fence.extend(start + Duration::from_secs(10));
        let extended = fence.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(8)).await;
            extended.extend(start + Duration::from_secs(18));
        });
        assert!(fence.wait_closed().now_or_never().is_none());
        fence.wait_closed().await;
        assert_eq!(start.elapsed().as_secs(), 18);
        fence.extend(Instant::now() + Duration::from_secs(10));
        fence.close();
        assert!(fence.wait_closed().now_or_never().is_some());
        assert!(Fence::open().wait_closed().now_or_never().is_none());
    }
}
