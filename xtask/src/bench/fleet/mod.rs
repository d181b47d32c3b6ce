//! `cargo xtask bench fleet`: what many nodes cost the control plane. A real API server, the real operator, and the agents'
//! own loops, many in one process, with stores of their own. docs/proof/fleet.md says how to read the result.

mod course;
mod figures;
mod goals;
mod recorder;
mod shop;
mod sizes;
mod table;
mod world;

use std::path::PathBuf;

use anyhow::bail;

use crate::steps::{cargo, root, step};
use course::Course;
use world::World;

/// How many nodes the small fleet has, beside which the large one is held.
const FEW: usize = 5;
/// Up to so many nodes both fleets run at the same time: nobody is interested in seconds then.
const SIDE_BY_SIDE: usize = 100;
/// For how many nodes the operator's goal is stated, and the goal in MiB.
const MEMORY_GOAL: (usize, f64) = (1000, 100.0);

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many nodes, each with an agent. Few nodes are for the counts alone: two fleets run at the same time then.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(6..=10_000))]
    nodes: u16,
    /// How many images the ImageCache asks for.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(5..=256))]
    images: u16,
    /// For how long it is watched that nothing happens when nothing changes, in seconds.
    #[arg(long, default_value_t = 60)]
    rest: u16,
    /// How often, in seconds, each agent looks at its store, besides whenever it has reason to.
    #[arg(long, default_value_t = 30)]
    check_interval: u16,
    /// Take larder-operator, larder-agent and larder-fleet from this folder, instead of building them for release.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Where the stores are made; in memory by default, where that is shared memory.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Measures, prints, and fails where a goal is missed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let programs = match &options.programs {
        Some(folder) => folder.clone(),
        None => build()?,
    };
    let (nodes, images) = (usize::from(options.nodes), usize::from(options.images));
    let course = |nodes| -> anyhow::Result<Course> {
        println!("\n▸ {nodes} nodes, {images} images");
        let world = step("control plane, registry, nodes", || World::start(nodes, options, &programs))?;
        course::run(world, images, options.rest)
    };
    let (few, many) = if nodes <= SIDE_BY_SIDE {
        std::thread::scope(|scope| {
            let few = scope.spawn(|| course(FEW));
            let many = course(nodes);
            let few = few.join().unwrap_or_else(|_| bail!("the small fleet's thread panicked (see above)"));
            anyhow::Ok((few?, many?))
        })?
    } else {
        (course(FEW)?, course(nodes)?)
    };
    table::print(&few);
    table::print(&many);
    table::print_sizes(&few, &many);
    let missed = goals::print(&few, &many);
    if missed > 0 {
        bail!("{missed} goals are missed (see above)");
    }
    Ok(())
}

fn build() -> anyhow::Result<PathBuf> {
    let packages = ["-p", "larder-operator", "-p", "larder-agent", "-p", "larder-fleet"];
    step("building larder-operator, larder-agent and larder-fleet for release", || {
        cargo(&[&["build", "--release", "--quiet"][..], &packages].concat())
    })?;
    Ok(root().join("target/release"))
}
