//! Until when this process may write.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

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
    ///
    /// It looks at the clock whenever it is polled. A timer fires when the runtime gets round to it: in a process that was
    /// frozen, whatever else has become ready may be polled before.
    pub async fn wait_closed(&self) {
        let timer = tokio::time::sleep_until(Instant::now());
        tokio::pin!(timer);
        std::future::poll_fn(|context| {
            loop {
                let until = match self.get() {
                    Until::Always => return Poll::Pending,
                    Until::Moment(until) if Instant::now() < until => until,
                    // Not closed for ever: who waits gives up here and now, and a later term opens it anew.
                    Until::Moment(_) | Until::Closed => return Poll::Ready(()),
                };
                if timer.deadline() != until {
                    timer.as_mut().reset(until);
                }
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
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

    /// The clock has moved on, and no timer has fired yet: as in a process that was frozen.
    #[tokio::test(start_paused = true)]
    async fn it_closes_by_the_clock_before_any_timer_fires() {
        let fence = Fence::closed();
        fence.extend(Instant::now() + Duration::from_secs(10));
        let waits = std::pin::pin!(fence.wait_closed());
        let moves = std::pin::pin!(tokio::time::advance(Duration::from_secs(20)));
        let (mut waits, mut moves) = (waits, moves);
        let is_closed = std::future::poll_fn(|context| {
            assert!(waits.as_mut().poll(context).is_pending());
            // One poll moves the clock; timers fire only once we have given way to the runtime.
            assert!(moves.as_mut().poll(context).is_pending());
            Poll::Ready(waits.as_mut().poll(context).is_ready())
        });
        assert!(is_closed.await);
    }
}
