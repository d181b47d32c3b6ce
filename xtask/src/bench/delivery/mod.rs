//! `cargo xtask bench delivery`: how long after `kubectl apply` of an `ImageCache` pods can use its image, beside kubelet's
//! own pull of the same image from the same registry, each in turn, on a real node. docs/BENCHMARKS.md says how to read
//! the result.

mod ground;
pub(super) mod process;
mod shape;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use larder_tests::{ContainerdVersion, Pod, PodOptions, Pushed};

use super::measure;
use crate::steps::step;
use ground::Ground;
use process::Process;
use shape::Shape;

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often each image is brought to the node in each way; the medians count.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only these images; all by default.
    #[arg(long, value_enum)]
    only: Vec<Shape>,
    /// The node's containerd.
    #[arg(long, value_enum, default_value = "2")]
    containerd: Version,
    /// Take the programs as cargo has built them before, for release.
    #[arg(long)]
    built: bool,
    /// How long the agent is watched at rest, in seconds.
    #[arg(long, default_value_t = 60)]
    rest: u64,
}

/// containerd's release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Version {
    /// 1.7
    #[value(name = "1.7")]
    V17,
    /// 2.x
    #[value(name = "2")]
    V2,
}

/// How an image comes to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `kubectl apply` of an `ImageCache`.
    Larder,
    /// What kubelet asks for: CRI's `PullImage`.
    Kubelet,
}

impl Way {
    const ALL: [Self; 2] = [Self::Larder, Self::Kubelet];

    fn name(self) -> &'static str {
        match self {
            Self::Larder => "ImageCache",
            Self::Kubelet => "kubelet's pull",
        }
    }
}

/// What one run cost.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// Seconds until CRI has the image.
    usable: f64,
    /// Seconds until the `ImageCache` is Ready; no more than `usable` where there is none.
    told: f64,
    /// Seconds of CPU of agent and containerd.
    cpu: [f64; 2],
    /// The most memory that agent and containerd had, in MiB.
    peak: [f64; 2],
}

/// Measures and prints.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let version = match options.containerd {
        Version::V17 => ContainerdVersion::V17,
        Version::V2 => ContainerdVersion::V2,
    };
    let ground = Ground::prepare(version, options.built)?;
    let all = Shape::value_variants();
    for shape in if options.only.is_empty() { all } else { &options.only } {
        measure(*shape, options.runs, &ground)?;
    }
    at_rest(&ground, Duration::from_secs(options.rest))
}

fn measure(shape: Shape, runs: usize, ground: &Ground) -> anyhow::Result<()> {
    let pushed = step(format!("making and pushing {}", shape.title()), || shape.push(&ground.registry))?;
    let mut costs = Way::ALL.map(|_| Vec::new());
    let mut starts = Way::ALL.map(|_| Vec::new());
    // In turn, so that what the machine does meanwhile hits both alike. The first round only warms caches.
    for round in 0..=runs {
        for (way, (costs, starts)) in Way::ALL.into_iter().zip(costs.iter_mut().zip(&mut starts)) {
            let cost = bring(way, &pushed, ground)?;
            ground.remove(way, &pushed)?;
            let start = start_pod(way, &pushed, ground)?;
            ground.remove(way, &pushed)?;
            if round > 0 {
                costs.push(cost);
                starts.push(start);
            }
        }
    }
    print(shape, runs, &costs, &starts);
    Ok(())
}

/// Brings the image to the node, and says what that cost.
fn bring(way: Way, pushed: &Pushed, ground: &Ground) -> anyhow::Result<Cost> {
    let processes = [ground.agent()?, ground.containerd()?];
    for process in &processes {
        process.forget_peak()?;
    }
    let before = cpu(&processes)?;
    let start = Instant::now();
    let mut cost = Cost::default();
    match way {
        Way::Larder => {
            ground.apply(pushed)?;
            ground.wait_usable(pushed)?;
            cost.usable = start.elapsed().as_secs_f64();
            ground.wait_ready()?;
        }
        Way::Kubelet => {
            ground.node.crictl(&["pull", &pushed.name])?.ok()?;
            cost.usable = start.elapsed().as_secs_f64();
        }
    }
    cost.told = start.elapsed().as_secs_f64();
    let after = cpu(&processes)?;
    cost.cpu = [after[0] - before[0], after[1] - before[1]];
    cost.peak = [processes[0].peak()?, processes[1].peak()?];
    Ok(cost)
}

fn cpu(processes: &[Process; 2]) -> anyhow::Result<[f64; 2]> {
    Ok([processes[0].cpu()?, processes[1].cpu()?])
}

/// Seconds from `kubectl create` of a pod until it runs. With an `ImageCache` the image is there, and must be; else kubelet
/// pulls it.
fn start_pod(way: Way, pushed: &Pushed, ground: &Ground) -> anyhow::Result<f64> {
    let policy = match way {
        Way::Larder => {
            ground.apply(pushed)?;
            ground.wait_ready()?;
            "Never"
        }
        Way::Kubelet => "IfNotPresent",
    };
    let options = PodOptions::new("bench").image(&pushed.name).pull_policy(policy);
    let start = Instant::now();
    let pod = Pod::start(&ground.cluster, &options)?;
    let seconds = start.elapsed().as_secs_f64();
    pod.delete()?;
    Ok(seconds)
}

fn print(shape: Shape, runs: usize, costs: &[Vec<Cost>; 2], starts: &[Vec<f64>; 2]) {
    println!("\n{}: medians of {runs}\n", shape.title());
    println!(
        "| way | usable s | first = 1 | agent CPU s | containerd CPU s | agent peak MiB | containerd peak MiB | \
         told s | pod starts s |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let middle = |costs: &[Cost], of: fn(&Cost) -> f64| measure::middle(costs.iter().map(of));
    let first = middle(&costs[0], |cost| cost.usable);
    for ((way, costs), starts) in Way::ALL.into_iter().zip(costs).zip(starts) {
        let usable = middle(costs, |cost| cost.usable);
        let told = middle(costs, |cost| cost.told);
        println!(
            "| {} | {usable:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {} | {:.2} |",
            way.name(),
            usable / first,
            middle(costs, |cost| cost.cpu[0]),
            middle(costs, |cost| cost.cpu[1]),
            middle(costs, |cost| cost.peak[0]),
            middle(costs, |cost| cost.peak[1]),
            if way == Way::Larder { format!("{told:.2}") } else { "-".to_owned() },
            measure::middle(starts.iter().copied()),
        );
    }
}

/// What agent and operator need while nothing happens, with one image Ready.
fn at_rest(ground: &Ground, span: Duration) -> anyhow::Result<()> {
    let pushed = Shape::SmallLayers.push(&ground.registry)?;
    ground.apply(&pushed)?;
    ground.wait_ready()?;
    let processes = [("agent", ground.agent()?), ("operator", ground.operator()?)];
    // Whatever follows a change, such as the last write of a status, is over by then.
    std::thread::sleep(Duration::from_secs(15));
    let before = processes.each_ref().map(|(_, process)| process.group_cpu());
    step(format!("nothing, for {} s", span.as_secs()), || {
        std::thread::sleep(span);
        Ok(())
    })?;
    println!("\nat rest, one image of 101 layers Ready\n");
    println!("| program | memory MiB (RSS) | of it its own | CPU ms in {} s |", span.as_secs());
    println!("| --- | ---: | ---: | ---: |");
    for ((name, process), before) in processes.into_iter().zip(before) {
        let spent = (process.group_cpu()? - before?) * 1e3;
        let (all, own) = process.memory()?;
        println!("| {name} | {all:.1} | {own:.1} | {spent:.0} |");
    }
    ground.remove(Way::Larder, &pushed)
}
