//! `cargo xtask cluster-faults`: control plane, operators and runtime fail in every way we know, from a seed, on real parts.
//! docs/proof/cluster-faults.md says how to read the result.

mod containerd;
mod keeper;
mod kills;
mod plane;
mod round;
mod scene;
mod stage;
mod table;
mod witness;
mod writes;

use std::collections::BTreeMap;
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
    /// For how many seconds the API server is away where it is away for long: a Lease holds for 15.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(16..=600))]
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
        stage.operate(scene.operators, scene.workers)?;
        // A row for each step at which it strikes, where there are several.
        let mut by_step: BTreeMap<Option<&str>, Row> = BTreeMap::new();
        for turn in 0..share {
            let number = place * 1_000 + turn;
            let mut random = Rng::with_seed(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let before = stage.keeper.restarts();
            // A short run meets other steps each time, and not the same with each fault.
            let turn = usize::try_from(seed % 1_000)? + place + turn;
            let played = one(&stage, scene, (number, turn), &witness, &mut random).with_context(|| {
                format!("round {number} of “{}”, seed {seed}\n{}", scene.name, stage.logs())
            })?;
            let name = || played.step.map_or(scene.name.to_owned(), |step| format!("{}: {step}", scene.name));
            let row = by_step.entry(played.step).or_insert_with(|| Row::new(&name()));
            row.round(played.times, played.until_well);
            row.restarts += stage.keeper.restarts() - before;
        }
        for row in by_step.into_values() {
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

/// What came of a round.
struct Played {
    /// At which step the fault came, where there are several.
    step: Option<&'static str>,
    /// How often it came about.
    times: u64,
    until_well: Duration,
}

fn one(
    stage: &Stage,
    scene: &Scene,
    (number, turn): (usize, usize),
    witness: &Witness,
    random: &mut Rng,
) -> anyhow::Result<Played> {
    let round = Round::new(stage, number, turn)?;
    witness.know(&round.images);
    let mut struck = (scene.strike)(stage, &round, random)?;
    let over = Instant::now();
    if scene.lasts {
        stage.ready()?;
    } else {
        stage.calm()?;
    }
    round.converge(stage, LIMIT)?;
    let converged = over.elapsed();
    stage.calm()?;
    let (deleted, waited) = (Instant::now(), struck.before_deletion(stage));
    round.remove(stage)?;
    let until_well = if waited { deleted.elapsed() } else { converged };
    stage.calm()?;
    stage.all_run()?;
    if let Some(lie) = witness.seen().lies.first() {
        bail!("a status said more than was true: {lie}");
    }
    Ok(Played { step: struck.step(), times: struck.count(), until_well })
}
