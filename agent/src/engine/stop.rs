//! Ending work that blocks.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::{JoinError, spawn_blocking};

/// Asks work to stop when it is dropped.
#[derive(Debug, Default)]
pub(super) struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    /// What the work asks now and then.
    pub(super) fn asked(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let asked = self.0.clone();
        move || asked.load(Ordering::Relaxed)
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs work that blocks off the async threads, and asks it to stop when nobody waits for it any more.
pub(super) async fn stoppable<T: Send + 'static>(
    work: impl FnOnce(&(dyn Fn() -> bool + Sync)) -> T + Send + 'static,
) -> Result<T, JoinError> {
    let stop = StopOnDrop::default();
    let asked = stop.asked();
    spawn_blocking(move || work(&asked)).await
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_stops() {
        let (begun, seen) = (mpsc::channel(), mpsc::channel());
        let work = tokio::spawn(stoppable(move |stop| {
            begun.0.send(()).unwrap();
            while !stop() {
                std::thread::sleep(Duration::from_millis(1));
            }
            seen.0.send(()).unwrap();
        }));
        spawn_blocking(move || begun.1.recv().unwrap()).await.unwrap();
        work.abort();
        spawn_blocking(move || seen.1.recv().unwrap()).await.unwrap();
        assert!(!stoppable(|stop| stop()).await.unwrap());
    }
}
