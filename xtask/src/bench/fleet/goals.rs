//! What the figures are held to. Counts and bytes alone: seconds depend on the machine.

use super::MEMORY_GOAL;
use super::course::{Course, Step};
use super::figures::Figures;

/// Prints each goal and whether it is met; gives how many are not.
pub(super) fn print(few: &Course, many: &Course) -> usize {
    println!("\ngoals");
    let mut goals = Goals::default();
    for course in [few, many] {
        writes(&mut goals, course);
        work(&mut goals, course);
        if course.nodes <= MEMORY_GOAL.0 {
            let peak = course.steps.iter().map(|(_, step)| step.peak).fold(0.0, f64::max);
            goals.check(
                &format!("{} nodes: the operator stays under {} MiB", course.nodes, MEMORY_GOAL.1),
                peak < MEMORY_GOAL.1,
                &format!("{peak:.1} MiB"),
            );
        }
    }
    // Five digits more in the two counters of each image, and some in the totals.
    let room = many.images * 10 + 100;
    goals.check(
        "the ImageCache is as large as with few nodes, but for the digits of its counters",
        many.sizes.cache <= few.sizes.cache + room,
        &format!("{} bytes, {} with {} nodes", many.sizes.cache, few.sizes.cache, few.nodes),
    );
    goals.missed
}

#[derive(Default)]
struct Goals {
    missed: usize,
}

impl Goals {
    fn check(&mut self, what: &str, is_met: bool, found: &str) {
        println!("{} {what}: {found}", if is_met { "✓" } else { "✗" });
        self.missed += usize::from(!is_met);
    }
}

/// How often each node's specification and status are written for each change.
fn writes(goals: &mut Goals, course: &Course) {
    for step in [Step::Start, Step::Apply, Step::Change, Step::Share, Step::Unshare, Step::Delete] {
        let Some(figures) = course.of(step) else { continue };
        let nodes = course.nodes + usize::from(step.is_after_join());
        let subject = format!("{}: {}", course.nodes, figures.name);
        goals.check(
            &format!("{subject}: 1 write of each specification"),
            figures.specs.all() == nodes && figures.specs.most() == 1,
            &format!("{}, {} of one", figures.specs.all(), figures.specs.most()),
        );
        let statuses = &figures.statuses;
        let limit = figures.limit.unwrap_or_default();
        goals.check(
            &format!("{subject}: at most {limit} of each status, but where a pull failed"),
            statuses.objects() == nodes && figures.hasty == 0,
            &format!(
                "{}, {} of one; {} nodes wrote more without",
                statuses.all(),
                statuses.most(),
                figures.hasty
            ),
        );
    }
    // Up to four are told one by one; of more, one event tells.
    for figures in [Step::Apply, Step::Change, Step::Delete].into_iter().filter_map(|step| course.of(step)) {
        goals.check(
            &format!("{}: {}: at most 4 events a node", course.nodes, figures.name),
            figures.agent_events <= 4 * (course.nodes + 1),
            &figures.agent_events.to_string(),
        );
    }
    if let Some(joined) = course.of(Step::Join) {
        goals.check(
            &format!("{}: {}: nobody is written but the node", course.nodes, joined.name),
            joined.specs.objects() == 1 && joined.specs.all() <= 2 && joined.statuses.objects() == 1,
            &format!("{} of {} specifications", joined.specs.all(), joined.specs.objects()),
        );
    }
    for figures in [Step::Restart, Step::Rest].into_iter().filter_map(|step| course.of(step)) {
        goals.check(
            &format!("{}: {}: no writes", course.nodes, figures.name),
            figures.writes() == 0,
            &figures.writes().to_string(),
        );
    }
    let restarts: usize = course.steps.iter().map(|(_, step)| step.restarts).sum();
    goals.check(
        &format!("{}: the operator lives", course.nodes),
        restarts == 0,
        &format!("{restarts} restarts"),
    );
    let refused: usize = course.steps.iter().map(|(_, step)| step.refused()).sum();
    goals.check(&format!("{}: no write is refused", course.nodes), refused == 0, &refused.to_string());
}

/// What the registry is asked for.
fn work(goals: &mut Goals, course: &Course) {
    let asked = |step, which: usize| course.of(step).map_or(0, |figures: &Figures| figures.registry[which]);
    let idle = [Step::Share, Step::Unshare, Step::Restart, Step::Rest, Step::Delete];
    let needless = asked(Step::Change, 1) + idle.into_iter().map(|step| asked(step, 1)).sum::<usize>();
    goals.check(
        &format!("{}: no request for an image that did not change", course.nodes),
        needless == 0,
        &needless.to_string(),
    );
    // The tag, the manifest, the configuration, the layer of its own.
    let most = course.nodes * 4;
    goals.check(
        &format!("{}: {}: at most 4 requests a node for it", course.nodes, Step::Change.name()),
        asked(Step::Change, 0) <= most,
        &asked(Step::Change, 0).to_string(),
    );
}
