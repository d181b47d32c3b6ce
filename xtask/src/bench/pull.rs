//! `cargo xtask bench pull`: the same images pulled by each program in turn, from a registry on loopback into an
//! empty folder. docs/BENCHMARKS.md says how to read the result.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use larder_tests::proxy::Link;
use larder_tests::tools::{Tool, in_path};
use larder_tests::{Image, Layer, Registry, RegistryOptions, Scratch};

use super::measure::{Cost, cost, median};
use crate::steps::{cargo, root, step};

const MIB: usize = 1 << 20;
/// What stands for a network between two places: its round trip, and what one connection carries in a second.
const ROUND_TRIP: Duration = Duration::from_millis(30);
const CAP: u64 = 20 << 20;

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often each program runs; the medians count.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Only these; all by default.
    #[arg(long, value_enum)]
    only: Vec<Scenario>,
    /// Use this larder instead of building one.
    #[arg(long)]
    larder: Option<PathBuf>,
    /// Where to pull to: on the kind of disk that is meant. The system's folder for temporary files by default.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What is pulled, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// 590 MiB in six layers.
    SixLayers,
    /// One layer of 1 GB.
    OneLayer,
    /// 100 layers of 50 kB.
    SmallLayers,
    /// The six layers again, all of them there.
    NothingToDo,
    /// 276 MiB in six layers, 30 ms away, 20 MiB/s a connection.
    FarAway,
}

impl Scenario {
    fn title(self) -> &'static str {
        match self {
            Self::SixLayers => "590 MiB in six layers",
            Self::OneLayer => "one layer of 1 GB",
            Self::SmallLayers => "100 layers of 50 kB",
            Self::NothingToDo => "nothing to do (the six layers again)",
            Self::FarAway => "276 MiB in six layers, 30 ms round trip, 20 MiB/s a connection",
        }
    }

    fn sizes(self) -> Vec<usize> {
        match self {
            Self::SixLayers | Self::NothingToDo => {
                [250, 150, 100, 50, 30, 10].map(|size| size * MIB).to_vec()
            }
            Self::OneLayer => vec![1_000_000_000],
            Self::SmallLayers => vec![50_000; 100],
            Self::FarAway => [200, 40, 20, 10, 5, 1].map(|size| size * MIB).to_vec(),
        }
    }
}

/// A program that pulls.
struct Peer {
    name: &'static str,
    path: PathBuf,
}

/// Measures and prints.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let larder = if let Some(larder) = &options.larder {
        larder.clone()
    } else {
        step("building larder", || cargo(&["build", "--release", "--quiet", "-p", "larder-cli"]))?;
        root().join("target/release/larder")
    };
    let peers = [
        Peer { name: "larder", path: larder },
        Peer { name: "crane", path: Tool::Crane.path()? },
        Peer { name: "regctl", path: Tool::Regctl.path()? },
        Peer { name: "oras", path: Tool::Oras.path()? },
        Peer { name: "skopeo", path: in_path("skopeo")? },
    ];
    let scratch = match &options.folder {
        Some(folder) => Scratch::in_folder(folder, "bench")?,
        None => Scratch::new("bench")?,
    };
    let registry = Registry::start(RegistryOptions::default())?;
    let all = Scenario::value_variants();
    let chosen = if options.only.is_empty() { all } else { &options.only };
    for scenario in chosen {
        measure(*scenario, options.runs, &peers, &registry, &scratch)?;
    }
    Ok(())
}

fn measure(
    scenario: Scenario,
    runs: usize,
    peers: &[Peer],
    registry: &Registry,
    scratch: &Scratch,
) -> anyhow::Result<()> {
    push(scenario, registry)?;
    let link = match scenario {
        Scenario::FarAway => Some(Link::start(&registry.host(), ROUND_TRIP, CAP)?),
        _ => None,
    };
    let host = link.as_ref().map_or_else(|| registry.host(), Link::host);
    let mut costs: Vec<Vec<Cost>> = peers.iter().map(|_| Vec::new()).collect();
    // In turn, so that what the machine does meanwhile hits all alike. The first round only warms caches.
    for round in 0..=runs {
        for (peer, costs) in peers.iter().zip(&mut costs) {
            let cost = once(scenario, peer, &host, scratch)?;
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let medians: Vec<Cost> = costs.iter().map(|costs| median(costs)).collect();
    print(scenario, runs, peers, &medians);
    Ok(())
}

/// One pull into an empty folder, or where there is nothing to do a second one.
fn once(scenario: Scenario, peer: &Peer, host: &str, scratch: &Scratch) -> anyhow::Result<Cost> {
    let folder = scratch.folder("pulled")?;
    let home = scratch.folder("home")?;
    let env = [
        ("HOME", home.as_os_str()),
        ("DOCKER_CONFIG", home.as_os_str()),
        ("REGCTL_CONFIG", OsStr::new("/dev/null")),
    ];
    let command = command(peer, host, &folder);
    if scenario == Scenario::NothingToDo {
        cost(&command, &env, scratch.path())?;
    }
    // What the run before has left to be written is not this one's.
    larder_tests::process::run(&in_path("sync")?, &[], &env, b"")?.ok()?;
    let cost = cost(&command, &env, scratch.path())?;
    std::fs::remove_dir_all(&folder)?;
    Ok(cost)
}

fn command(peer: &Peer, host: &str, folder: &Path) -> Vec<String> {
    let (program, folder) = (peer.path.display().to_string(), folder.display().to_string());
    let name = format!("{host}/bench:v1");
    let args: Vec<String> = match peer.name {
        "crane" => ["pull", "--insecure", "--format=oci", &name, &folder].map(str::to_owned).to_vec(),
        "regctl" => {
            let plain = format!("reg={host},tls=disabled");
            ["image", "copy", "--host", &plain, &name, &format!("ocidir://{folder}:v1")]
                .map(str::to_owned)
                .to_vec()
        }
        "oras" => ["copy", "--from-plain-http", &name, "--to-oci-layout", &format!("{folder}:v1")]
            .map(str::to_owned)
            .to_vec(),
        "skopeo" => {
            let (from, to) = (format!("docker://{name}"), format!("oci:{folder}:v1"));
            ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", &from, &to]
                .map(str::to_owned)
                .to_vec()
        }
        _ => ["--store", &folder, "pull", "--quiet", &name].map(str::to_owned).to_vec(),
    };
    std::iter::once(program).chain(args).collect()
}

/// Pushes the image: random bytes, which no program can squeeze.
fn push(scenario: Scenario, registry: &Registry) -> anyhow::Result<()> {
    step("making and pushing the image", || {
        let mut builder = Image::builder();
        for (size, seed) in scenario.sizes().into_iter().zip(0..) {
            builder = builder.layer(&Layer::random(seed, size)?);
        }
        registry.push(&builder.build()?, "bench", "v1")?;
        Ok(())
    })
}

fn print(scenario: Scenario, runs: usize, peers: &[Peer], medians: &[Cost]) {
    println!("\n{}: medians of {runs}\n", scenario.title());
    println!("| program | wall s | CPU s | peak MiB | wall, larder = 1 | CPU, larder = 1 |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let Some(ours) = medians.first() else { return };
    for (peer, cost) in peers.iter().zip(medians) {
        println!(
            "| {} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} |",
            peer.name,
            cost.wall,
            cost.cpu,
            cost.peak,
            cost.wall / ours.wall,
            cost.cpu / ours.cpu.max(0.01),
        );
    }
}
