//! What happens to a fleet, step by step.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::figures::{Figures, Writes};
use super::recorder::Recorder;
use super::shop;
use super::sizes::Sizes;
use super::world::World;
use crate::bench::measure;
use crate::steps::step;

/// The image that gets another version.
const CHANGED: usize = 2;
/// How many of the images a second `ImageCache` asks for too.
const SHARED: usize = 5;
/// What `kubectl wait` waits for.
const READY: &str = "--for=condition=Ready";

/// The steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Start,
    Apply,
    Change,
    Join,
    Share,
    Unshare,
    Restart,
    Rest,
    Delete,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "operator and agents start",
            Self::Apply => "an ImageCache applied",
            Self::Change => "one image changed",
            Self::Join => "one node joined",
            Self::Share => "a second ImageCache, of images that are there",
            Self::Unshare => "that one deleted",
            Self::Restart => "operator killed and started",
            Self::Rest => "nothing",
            Self::Delete => "the ImageCache deleted",
        }
    }

    /// How often a node may write its status in this step, if it took so many seconds; nothing where it is not told.
    fn most_statuses(self, seconds: f64) -> Option<usize> {
        match self {
            Self::Apply | Self::Change => Some(most_statuses(seconds)),
            // What is told needs no work, or none that a status would tell of.
            Self::Start | Self::Share | Self::Unshare | Self::Delete => Some(1),
            Self::Join | Self::Restart | Self::Rest => None,
        }
    }

    /// Whether it comes after one more node has joined.
    pub(super) fn is_after_join(self) -> bool {
        matches!(self, Self::Share | Self::Unshare | Self::Restart | Self::Rest | Self::Delete)
    }
}

/// The most writes of a node's status in work of so many seconds: one when it begins, one when it is over, and progress at
/// growing intervals between (`agent/src/cluster.rs`: at least 2, 3, 6, 12, then 22.5 seconds, and what a write takes).
fn most_statuses(seconds: f64) -> usize {
    let (mut writes, mut pause, mut at) = (2, 2.0, 0.0);
    loop {
        at += pause;
        if at > seconds {
            return writes;
        }
        writes += 1;
        pause = (pause * 2.0_f64).min(22.5);
        pause = if writes == 3 { 3.0 } else { pause };
    }
}

/// How many nodes wrote more than so many statuses, although no pull of theirs has failed since their agent came: a failure
/// is told of at once, and what follows it more often again.
fn hasty(world: &World, statuses: &Writes, limit: usize) -> anyhow::Result<usize> {
    let mut hasty = 0;
    for node in statuses.above(limit) {
        hasty += usize::from(world.failed_pulls(node)? == 0);
    }
    Ok(hasty)
}

/// What a fleet cost.
pub(super) struct Course {
    /// Its nodes, before one more joined.
    pub(super) nodes: usize,
    pub(super) images: usize,
    pub(super) steps: Vec<(Step, Figures)>,
    pub(super) sizes: Sizes,
    /// Seconds that an answer of the operator's `/metrics` takes; the middle one of some.
    pub(super) metrics: f64,
    /// Pulls that failed until all images were there, as the operator's `/metrics` has it.
    pub(super) failed_pulls: String,
    /// Blobs in all stores, when all images are there.
    pub(super) blobs: usize,
}

impl Course {
    pub(super) fn of(&self, step: Step) -> Option<&Figures> {
        self.steps.iter().find(|(other, _)| *other == step).map(|(_, figures)| figures)
    }
}

/// Takes a fleet through all steps, and ends it.
pub(super) fn run(world: World, images: usize, rest: u16) -> anyhow::Result<Course> {
    let nodes = world.nodes;
    let mut names = step("images, pushed", || {
        (0..images).map(|number| shop::push(&world.registry, number, 1)).collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut walk = Walk { recorder: Recorder::new(&world), world, steps: Vec::new() };
    walk.come(&names)?;
    let sizes = step("the objects' sizes", || Sizes::look(&walk.world.plane, "web"))?;
    let blobs = walk.world.blobs()?;
    let seconds = (0..5).map(|_| Ok(walk.world.metrics()?.1)).collect::<anyhow::Result<Vec<_>>>()?;
    let failed_pulls = failed_pulls(&walk.world.metrics()?.0)?;
    names[CHANGED] = shop::push(&walk.world.registry, CHANGED, 2)?;
    walk.change(&names)?;
    walk.rest(rest)?;
    walk.go()?;
    walk.world.end()?;
    let metrics = measure::middle(seconds.into_iter());
    Ok(Course { nodes, images, steps: walk.steps, sizes, metrics, failed_pulls, blobs })
}

/// The counter of pulls that failed.
fn failed_pulls(metrics: &str) -> anyhow::Result<String> {
    let series = "larder_node_pulls_total{result=\"failed\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    value.map(str::to_owned).with_context(|| format!("/metrics has no {series}"))
}

/// A fleet on its way.
struct Walk {
    recorder: Recorder,
    world: World,
    steps: Vec<(Step, Figures)>,
}

impl Walk {
    /// Does something, waits until it is done, and notes what it cost.
    fn take(
        &mut self,
        step: Step,
        act: impl FnOnce(&mut World) -> anyhow::Result<()>,
        wait: impl FnOnce(&mut Recorder, &World) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let changed = (step == Step::Change).then(|| shop::repository(CHANGED));
        let mut figures =
            self.recorder.record(&mut self.world, step.name(), changed.as_deref(), act, wait)?;
        if let Some(limit) = step.most_statuses(figures.seconds) {
            figures.limit = Some(limit);
            figures.hasty = hasty(&self.world, &figures.statuses, limit)?;
        }
        self.steps.push((step, figures));
        Ok(())
    }

    /// Operator and agents come; then what they are there for.
    fn come(&mut self, images: &[String]) -> anyhow::Result<()> {
        let nodes = self.world.nodes;
        self.take(Step::Start, World::start_programs, |recorder, world| {
            recorder.wait_for_agents(world, nodes)
        })?;
        self.take(
            Step::Apply,
            |world| apply(world, "web", images),
            |recorder, world| recorder.wait_for(world, "web", READY),
        )
    }

    /// Small changes.
    fn change(&mut self, images: &[String]) -> anyhow::Result<()> {
        self.take(
            Step::Change,
            |world| apply(world, "web", images),
            |recorder, world| recorder.wait_for(world, "web", READY),
        )?;
        self.take(Step::Join, World::join, |recorder, world| {
            let ready = format!("--for=jsonpath={{.status.nodes.ready}}={}", world.nodes);
            recorder.wait_for(world, "web", &ready)
        })?;
        let nodes = self.world.nodes;
        self.take(
            Step::Share,
            |world| apply(world, "shared", &images[..SHARED]),
            |recorder, world| {
                recorder.wait_for(world, "shared", READY)?;
                recorder.wait_for_agents(world, nodes)
            },
        )?;
        self.take(
            Step::Unshare,
            |world| delete(world, "shared"),
            |recorder, world| recorder.wait_for_agents(world, nodes),
        )
    }

    /// Nothing changes.
    fn rest(&mut self, seconds: u16) -> anyhow::Result<()> {
        self.take(Step::Restart, |world| world.restart_operator(), |_, _| Ok(()))?;
        self.take(
            Step::Rest,
            |_| Ok(()),
            |_, _| {
                sleep(Duration::from_secs(seconds.into()));
                Ok(())
            },
        )
    }

    /// All images go.
    fn go(&mut self) -> anyhow::Result<()> {
        self.take(Step::Delete, |world| delete(world, "web"), Recorder::wait_for_empty_stores)
    }
}

fn apply(world: &World, name: &str, images: &[String]) -> anyhow::Result<()> {
    let images: Vec<_> = images.iter().map(|image| json!({"image": image})).collect();
    let cache = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": name},
        "spec": {"nodeSelector": {"matchLabels": {"pool": "fleet"}}, "images": images},
    });
    world.plane.try_kubectl(&["apply", "--server-side", "-f", "-"], &cache.to_string())?.ok()?;
    Ok(())
}

fn delete(world: &World, name: &str) -> anyhow::Result<()> {
    world.plane.kubectl(&["delete", "imagecache", name])?;
    Ok(())
}
