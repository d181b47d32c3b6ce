//! Whether the process is well, and whether it can do its work: what the probes ask.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::watch::Kind;

/// A loop that has not come round for so long hangs. The longest that one rests is ten seconds; the longest that one
/// waits for an answer is thirty.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// The sign of life of one loop. It counts from the first beat: a loop that has not started cannot hang.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    pub fn beat(&self) {
        *lock(&self.0) = Some(Instant::now());
    }

    /// The loop has ended, as it should.
    pub fn rest(&self) {
        *lock(&self.0) = None;
    }

    fn silence(&self) -> Option<Duration> {
        lock(&self.0).map(|last| last.elapsed())
    }
}

/// What the process does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It lists all objects for the first time.
    Listing,
    /// It watches, and another replica leads.
    Standby,
    /// It does the work.
    Leading,
    /// It has been asked to end, and finishes what is under way.
    Stopping,
    /// It writes no more, and gives the Lease up.
    Released,
}

impl Standing {
    /// Whether it may write: a replica that stops still leads until its last write is done.
    pub fn leads(self) -> bool {
        matches!(self, Self::Leading | Self::Stopping)
    }
}

/// All that the probes need to know.
#[derive(Debug)]
pub(crate) struct Health {
    pub queue: Pulse,
    pub election: Pulse,
    standing: Mutex<Standing>,
    listed: Mutex<BTreeSet<Kind>>,
}

impl Health {
    pub fn new() -> Self {
        Self {
            queue: Pulse::default(),
            election: Pulse::default(),
            standing: Mutex::new(Standing::Listing),
            listed: Mutex::default(),
        }
    }

    /// The first list of this kind is complete.
    pub fn has_listed(&self, kind: Kind) {
        lock(&self.listed).insert(kind);
    }

    pub fn set(&self, standing: Standing) {
        *lock(&self.standing) = standing;
    }

    pub fn standing(&self) -> Standing {
        *lock(&self.standing)
    }

    /// Whether every loop makes progress; otherwise which does not. No fault of the API server's makes a process ill:
    /// to start it anew would mend nothing.
    pub fn alive(&self) -> Result<&'static str, String> {
        let loops = [("the work queue", &self.queue), ("the leader election", &self.election)];
        let hanging: Vec<String> = loops
            .iter()
            .filter_map(|(name, pulse)| {
                let silence = pulse.silence().filter(|silence| *silence > HANGS_AFTER)?;
                Some(format!("{name} has not made progress for {} s", silence.as_secs()))
            })
            .collect();
        if hanging.is_empty() { Ok("ok") } else { Err(hanging.join("; ")) }
    }

    /// Whether the process does its work, or would at once if it had to lead; otherwise what is missing.
    pub fn ready(&self) -> Result<&'static str, String> {
        match self.standing() {
            Standing::Leading => Ok("leading"),
            Standing::Standby => Ok("standby"),
            Standing::Stopping | Standing::Released => Err("stopping".to_owned()),
            Standing::Listing => {
                let listed = lock(&self.listed);
                let missing = Kind::ALL.into_iter().filter(|kind| !listed.contains(kind));
                let missing: Vec<&str> = missing.map(Kind::plural).collect();
                Err(format!("waiting for the first list of {}", missing.join(", ")))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_is_named() {
        let health = Health::new();
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(health.alive(), Ok("ok"), "what has not started does not hang");
        health.queue.beat();
        health.election.beat();
        tokio::time::advance(Duration::from_secs(40)).await;
        health.election.beat();
        assert_eq!(health.alive(), Ok("ok"));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(health.alive(), Err("the work queue has not made progress for 70 s".to_owned()));
        health.queue.rest();
        assert_eq!(health.alive(), Ok("ok"));
    }

    #[test]
    fn ready_means_that_all_is_listed() {
        let health = Health::new();
        health.has_listed(Kind::Node);
        assert_eq!(
            health.ready(),
            Err("waiting for the first list of ImageCaches, NodeImageCaches".to_owned())
        );
        health.set(Standing::Standby);
        assert_eq!(health.ready(), Ok("standby"));
        health.set(Standing::Leading);
        assert_eq!(health.ready(), Ok("leading"));
        for (standing, leads) in [(Standing::Stopping, true), (Standing::Released, false)] {
            health.set(standing);
            assert_eq!((health.ready(), health.standing().leads()), (Err("stopping".to_owned()), leads));
        }
    }
}
