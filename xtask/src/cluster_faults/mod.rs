//! `cargo xtask cluster-faults`: control plane, operators and runtime fail in every way we know, from a seed, on real parts.
//! docs/proof/cluster-faults.md says how to read the result.

mod containerd;
mod keeper;
mod plane;
mod round;
mod scene;
mod stage;
mod table;
mod witness;
mod writes;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fastrand::Rng;

use crate::steps::{cargo, human, step};
use crate::tools;
use round::Round;
use scene::{SCENES, Scene};
use stage::{NODES, Stage};
use table::Row;
use witness::Witness;

/// How long it may take until all is well again. A bound, not a measure.
const LIMIT: Duration = Duration::from_secs(300);

/// How to try.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many rounds; each fault of control plane and operators gets its turn.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// How many deliveries during which containerd is killed: at each kind of call, before and after. Needs root.
    #[arg(long, default_value_t = 60)]
    deliveries: usize,
    /// For how many seconds the API server is away where it is away for long.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(11..=600))]
    away: u64,
    /// Where the random choices start; one is drawn and printed otherwise.
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Use the programs that are built already.
    #[arg(long)]
    built: bool,
}

/// Tries, prints a table; an error when something went as it never may.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built {
        step("programs that this needs", tools::ensure_control_plane)?;
        step("building larder-operator and larder-agent", || {
            cargo(&["build", "--quiet", "--package", "larder-operator", "--package", "larder-agent"])
        })?;
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("▸ {} rounds and {} deliveries, seed {seed}", options.rounds, options.deliveries);
    fastrand::seed(seed);
    let began = Instant::now();
    if options.rounds > 0 {
        rounds(options, seed)?;
    }
    if options.deliveries > 0 {
        match containerd::unavailable() {
            Some(reason) => println!("skipped: deliveries during which containerd is killed: {reason}"),
            None => containerd::run(options.deliveries, seed)?,
        }
    }
    println!("all in {}", human(began.elapsed()));
    Ok(())
}

fn rounds(options: &Options, seed: u64) -> anyhow::Result<()> {
    let wanted = |scene: &&Scene| options.only.as_ref().is_none_or(|text| scene.name.contains(text.as_str()));
    let scenes: Vec<&Scene> = SCENES.iter().filter(wanted).collect();
    if scenes.is_empty() {
        let names = SCENES.iter().map(|scene| scene.name).collect::<Vec<_>>().join("; ");
        bail!("no fault has such a name; there are: {names}");
    }
    let mut stage =
        Stage::set(Duration::from_secs(options.away)).context("control plane, registry, agents")?;
    let stores = NODES.iter().map(|node| ((*node).to_owned(), stage.store(node))).collect();
    let witness = Witness::start(stage.api.clone(), stores);
    let mut rows: Vec<Row> = Vec::new();
    // All rounds of a fault one after another, since some need operators of their own.
    for (place, scene) in scenes.iter().enumerate() {
        let share = options.rounds / scenes.len() + usize::from(place < options.rounds % scenes.len());
        stage.operate(scene.operators)?;
        let mut row = Row::new(scene.name);
        for turn in 0..share {
            let number = place * 1_000 + turn;
            let mut random = Rng::with_seed(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let before = stage.keeper.restarts();
            let played = one(&stage, scene, number, &witness, &mut random, &mut row);
            row.restarts += stage.keeper.restarts() - before;
            played.with_context(|| {
                format!("round {turn} of “{}”, seed {seed}\n{}", scene.name, stage.logs())
            })?;
        }
        if share > 0 {
            println!("  {row}");
            rows.push(row);
        }
    }
    println!("{}", table::of(&rows));
    let sights = witness.seen();
    println!(
        "statuses looked at {} times ({} times nobody answered); {} claims that something is ready, all checked on the node",
        sights.looks, sights.unanswered, sights.claims
    );
    Ok(())
}

fn one(
    stage: &Stage,
    scene: &Scene,
    number: usize,
    witness: &Witness,
    random: &mut Rng,
    row: &mut Row,
) -> anyhow::Result<()> {
    let round = Round::new(stage, number)?;
    witness.know(&round.images);
    let struck = (scene.strike)(stage, &round, random)?;
    let over = Instant::now();
    if scene.lasts {
        stage.ready()?;
    } else {
        stage.calm()?;
    }
    round.converge(stage, LIMIT)?;
    row.round(struck.count(), over.elapsed());
    stage.calm()?;
    round.remove(stage)?;
    if let Some(lie) = witness.seen().lies.first() {
        bail!("a status said more than was true: {lie}");
    }
    Ok(())
}
