//! An operator that is killed at each write that an `ImageCache` takes, from its `apply` to its deletion.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_tests::proxy::Hits;
use larder_tests::{Fault, Hook, Moment, Rule};

use super::round::Round;
use super::scene::Struck;
use super::stage::Stage;

/// A write that comes in every round.
pub struct Step {
    name: &'static str,
    when: When,
    target: Target,
    /// Which of the writes of this kind, from zero.
    number: u64,
}

/// What the operator writes for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Created,
    Edited,
    Deleted,
}

/// What it writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    NodeImageCache,
    Status,
    Event,
}

const fn step(name: &'static str, when: When, target: Target, number: u64) -> Step {
    Step { name, when, target, number }
}

/// In the order in which they have their turns. There are three nodes, so as many specifications for each change.
const STEPS: &[Step] = &[
    step("the first write to a node, new ImageCache", When::Created, Target::NodeImageCache, 0),
    step("the third write to a node, deleted ImageCache", When::Deleted, Target::NodeImageCache, 2),
    step("the first status, new ImageCache", When::Created, Target::Status, 0),
    step("the first write to a node, edited ImageCache", When::Edited, Target::NodeImageCache, 0),
    step("an event, new ImageCache", When::Created, Target::Event, 0),
    step("the second write to a node, deleted ImageCache", When::Deleted, Target::NodeImageCache, 1),
    step("the third write to a node, new ImageCache", When::Created, Target::NodeImageCache, 2),
    step("a status, edited ImageCache", When::Edited, Target::Status, 0),
    step("the second write to a node, new ImageCache", When::Created, Target::NodeImageCache, 1),
    step("the first write to a node, deleted ImageCache", When::Deleted, Target::NodeImageCache, 0),
    step("the second status, new ImageCache", When::Created, Target::Status, 1),
    step("the third write to a node, edited ImageCache", When::Edited, Target::NodeImageCache, 2),
];

impl Target {
    fn is(self, method: &str, path: &str) -> bool {
        let found = match self {
            Self::NodeImageCache => path.contains("/nodeimagecaches/"),
            Self::Status => path.contains("/imagecaches/") && path.ends_with("/status"),
            Self::Event => path.contains("/events"),
        };
        found && method != "GET"
    }
}

/// The operator that writes is killed at a write, before it has arrived.
pub fn before(stage: &Stage, round: &Round) -> anyhow::Result<Struck> {
    strike(stage, round, Moment::Before)
}

/// The operator that writes is killed at a write that has arrived, and has not been answered.
pub fn after(stage: &Stage, round: &Round) -> anyhow::Result<Struck> {
    strike(stage, round, Moment::After)
}

fn strike(stage: &Stage, round: &Round, moment: Moment) -> anyhow::Result<Struck> {
    let step = &STEPS[round.turn % STEPS.len()];
    let mut hits = Vec::new();
    if step.when == When::Created {
        hits = arm(stage, step, moment);
    }
    round.ask_for_one(stage)?;
    if step.when == When::Edited {
        round.one_is_ready(stage)?;
        hits = arm(stage, step, moment);
    }
    round.ask_for_all(stage)?;
    // Taken away by the end of the round, in which the last writes come.
    let struck = Struck::later(hits).at(step.name);
    Ok(if step.when == When::Deleted { struck.with_deletion(Waiting { step, moment }) } else { struck })
}

/// A kill that waits until the `ImageCache` is deleted.
pub struct Waiting {
    step: &'static Step,
    moment: Moment,
}

impl Waiting {
    /// From now on.
    pub fn arm(&self, stage: &Stage) -> Vec<Hits> {
        arm(stage, self.step, self.moment)
    }
}

/// Whichever operator comes to this write is killed at it, once.
fn arm(stage: &Stage, step: &'static Step, moment: Moment) -> Vec<Hits> {
    let writes = Arc::new(AtomicU64::new(0));
    let mut hits = Vec::new();
    for (place, operator) in stage.operators.iter().enumerate() {
        let Some(killer) = stage.killer(place) else { continue };
        let writes = Arc::clone(&writes);
        let rule = Rule::any("").when(move |request| {
            step.target.is(request.method.as_str(), request.uri.path())
                && writes.fetch_add(1, Ordering::SeqCst) == step.number
        });
        let kill = Hook::new(move || killer.kill());
        let rule = match moment {
            Moment::Before => rule.then(Fault::Call(kill)).then(Fault::HangUp),
            Moment::After => rule.then(Fault::CallAfter(kill)).then(Fault::HangUpAfter),
        };
        hits.push(operator.proxy.add(rule));
    }
    hits
}
