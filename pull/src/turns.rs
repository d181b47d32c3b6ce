//! Whose turn it is, among the large layers of an image that is on its way into a container runtime.
//!
//! A runtime unpacks an image's layers in their order, and each once all of it is there. Layers that share the connection all
//! come at the end, and until then the runtime has nothing to do; so the lowest is wanted first. That holds for as long as bytes
//! arrive fast. Where they don't, connections are what is short, and layers come side by side.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::{Progress, parts::FAST};

/// How often it is seen how fast bytes arrive.
const WATCHED: Duration = Duration::from_millis(250);

/// The large layers that have not arrived yet, each by its place.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: Mutex<BTreeSet<usize>>,
    passed: Notify,
}

/// A layer's place among the others. When it is dropped, the next one may begin.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    place: usize,
}

impl Turns {
    fn waiting(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place behind all the others.
    pub(crate) fn join(&self) -> Turn<'_> {
        let mut waiting = self.waiting();
        let place = waiting.last().map_or(0, |last| last + 1);
        waiting.insert(place);
        Turn { turns: self, place }
    }
}

impl Turn<'_> {
    /// Whether those before it have arrived.
    fn is_next(&self) -> bool {
        self.turns.waiting().first().is_none_or(|first| *first >= self.place)
    }

    /// Waits until the layers before this one have arrived, or the image arrives slowly.
    pub(crate) async fn wait(&self, progress: &Progress) {
        let mut before = progress.present();
        loop {
            let passed = self.turns.passed.notified();
            tokio::pin!(passed);
            // What passes from here on is told of.
            passed.as_mut().enable();
            if self.is_next() {
                return;
            }
            if timeout(WATCHED, passed).await.is_err() {
                let now = progress.present();
                if is_slow(now.saturating_sub(before)) {
                    return;
                }
                before = now;
            }
        }
    }
}

/// Whether so many bytes are few for the time for which the image was watched.
fn is_slow(bytes: u64) -> bool {
    (bytes as f64) < FAST * WATCHED.as_secs_f64()
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.waiting().remove(&self.place);
        self.turns.passed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_waits_for_those_below_it() {
        let turns = Turns::default();
        let [first, second, third] = [turns.join(), turns.join(), turns.join()];
        assert!(first.is_next() && !second.is_next() && !third.is_next());
        // One that is there already holds up nobody, and lets nobody pass those below it.
        drop(second);
        assert!(!third.is_next());
        drop(first);
        assert!(third.is_next());
        third.wait(&Progress::default()).await;
        let fourth = turns.join();
        assert!(!fourth.is_next());
        drop(third);
        assert!(fourth.is_next());
    }

    #[tokio::test]
    async fn where_bytes_arrive_slowly_nobody_waits() {
        let (turns, progress) = (Turns::default(), Progress::default());
        let first = turns.join();
        let second = turns.join();
        second.wait(&progress).await;
        assert!(!second.is_next());
        drop(first);
        assert!(is_slow(1 << 20) && !is_slow(100 << 20));
    }
}
