//! The faults, and in which order they have their turns.

use std::time::Duration;

use fastrand::Rng;
use larder_tests::proxy::Hits;

use super::kills::Waiting;
use super::round::Round;
use super::stage::{Operators, Stage, WORKERS};
use super::{kills, plane, writes};

/// A fault, from the first `apply` of a round to the last.
#[derive(Clone, Copy)]
pub struct Scene {
    pub name: &'static str,
    pub operators: Operators,
    /// How many objects an operator writes at a time.
    pub workers: u16,
    /// Whether the fault lasts until the round has converged.
    pub lasts: bool,
    pub strike: fn(&Stage, &Round, &mut Rng) -> anyhow::Result<Struck>,
}

/// How often a fault came about.
pub struct Struck {
    known: u64,
    later: Vec<Hits>,
    /// At which step, where there is a choice.
    at: Option<&'static str>,
    deletion: Option<Waiting>,
}

impl Struck {
    pub fn yes() -> Self {
        Self::times(1)
    }

    pub fn times(known: u64) -> Self {
        Self { known, later: Vec::new(), at: None, deletion: None }
    }

    /// What these rules have done by the time at which somebody asks.
    pub fn later(later: Vec<Hits>) -> Self {
        Self { later, ..Self::times(0) }
    }

    /// At this step.
    pub fn at(self, step: &'static str) -> Self {
        Self { at: Some(step), ..self }
    }

    /// Once the `ImageCache` is deleted, and not before.
    pub fn with_deletion(self, waiting: Waiting) -> Self {
        Self { deletion: Some(waiting), ..self }
    }

    /// The `ImageCache` is about to be deleted. Gives whether the fault waited for that.
    pub fn before_deletion(&mut self, stage: &Stage) -> bool {
        let Some(waiting) = self.deletion.take() else { return false };
        self.later.extend(waiting.arm(stage));
        true
    }

    pub fn step(&self) -> Option<&'static str> {
        self.at
    }

    pub fn count(&self) -> u64 {
        self.known + self.later.iter().map(Hits::count).sum::<u64>()
    }
}

const fn scene(
    name: &'static str,
    operators: Operators,
    strike: fn(&Stage, &Round, &mut Rng) -> anyhow::Result<Struck>,
) -> Scene {
    Scene { name, operators, workers: WORKERS, lasts: false, strike }
}

/// At one of the writes, of which the operators do one after another: what comes after it has not been begun.
const fn at_a_write(scene: Scene) -> Scene {
    Scene { workers: 1, lasts: true, ..scene }
}

/// Scenes with the same operators stand together: it takes a while until others lead.
pub const SCENES: &[Scene] = &[
    scene("API server away for seconds", Operators::Alone, plane::away_shortly),
    scene("API server hangs", Operators::Alone, plane::hangs),
    scene("etcd restarted", Operators::Alone, plane::etcd_restarts),
    scene("connections cut", Operators::Alone, plane::connections_cut),
    scene("watch compacted", Operators::Alone, plane::compacted),
    scene("others write the same objects", Operators::Alone, writes::others_write),
    scene("writes and answers lost", Operators::Alone, writes::answers_lost),
    at_a_write(scene("operator killed before a write", Operators::Alone, |stage, round, _| {
        kills::before(stage, round)
    })),
    at_a_write(scene("operator killed after a write", Operators::Alone, |stage, round, _| {
        kills::after(stage, round)
    })),
    scene("two operators, unaware of each other", Operators::Rivals, writes::rivals),
    at_a_write(scene("leader killed after a write", Operators::Elected, |stage, round, _| {
        kills::after(stage, round)
    })),
    scene("API server away longer than a Lease", Operators::Elected, plane::away_long),
    scene("API server hangs longer than a Lease", Operators::Elected, plane::hangs_long),
];

/// A moment by chance.
pub fn nap(random: &mut Rng, up_to_ms: u64) {
    std::thread::sleep(Duration::from_millis(random.u64(..up_to_ms)));
}
