//! `cargo xtask faults`: pulls through a proxy that makes registries misbehave, from a seed. docs/proof/registry-faults.md
//! says how to read the result.

mod answers;
mod case;
mod catalogue;
mod connections;
mod content;
mod pull;
mod raw;
mod table;
mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail};
use larder_tests::larder::binary;

use crate::steps::{cargo, human, step};
use catalogue::CATALOGUE;
use pull::Outcome;
use world::World;

/// How to try.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many pulls; each kind of fault gets its turn.
    #[arg(long, default_value_t = 1000)]
    pulls: usize,
    /// Where the random choices start; one is drawn and printed otherwise.
    #[arg(long)]
    seed: Option<u64>,
    /// Pulls at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Only the pull of this number, to look at it again.
    #[arg(long, value_name = "NUMBER")]
    case: Option<usize>,
    /// Only faults whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Show what the user was told, once for each fault.
    #[arg(long)]
    messages: bool,
    /// Use the larder that is built already.
    #[arg(long)]
    built: bool,
    /// Use this larder.
    #[arg(long, value_name = "FILE")]
    larder: Option<PathBuf>,
}

/// Pulls, judges, prints a table; an error when one pull ended as none may.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built && options.larder.is_none() {
        step("building larder", || cargo(&["build", "--quiet", "--package", "larder-cli"]))?;
    }
    let larder = options.larder.clone().map_or_else(|| binary("larder"), Ok)?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let world = World::new(larder).context("registries and images")?;
    let numbers = numbers(options)?;
    println!("▸ {} pulls, seed {seed}", numbers.len());
    let began = Instant::now();
    let outcomes = all(&world, seed, &numbers, usize::from(options.jobs));
    let mut outcomes = outcomes?;
    outcomes.sort_by_key(|outcome| outcome.number);
    println!("{}", table::of(&outcomes, options.messages));
    println!("{} pulls in {}", outcomes.len(), human(began.elapsed()));
    let wrong: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.wrong.is_some()).collect();
    for outcome in &wrong {
        println!("✗ {outcome}");
    }
    if let Some(first) = wrong.first() {
        let again = format!("cargo xtask faults --seed {seed} --case {}", first.number);
        bail!(
            "{} of {} pulls ended as none may; look at one again with `{again}`",
            wrong.len(),
            outcomes.len()
        );
    }
    Ok(())
}

/// The numbers of the pulls. A number alone says, with the seed, all that is chosen for it.
fn numbers(options: &Options) -> anyhow::Result<Vec<usize>> {
    if let Some(number) = options.case {
        return Ok(vec![number]);
    }
    let wanted = |number: &usize| {
        let name = catalogue::entry(*number).name;
        options.only.as_ref().is_none_or(|text| name.contains(text.as_str()))
    };
    if !(0..CATALOGUE.len()).any(|number| wanted(&number)) {
        let names = CATALOGUE.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        bail!("no fault has such a name; there are: {names}");
    }
    Ok((0..).filter(wanted).take(options.pulls).collect())
}

fn all(world: &World, seed: u64, numbers: &[usize], jobs: usize) -> anyhow::Result<Vec<Outcome>> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> anyhow::Result<()> {
        while let Some(&number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let entry = catalogue::entry(number);
            let outcome = pull::run(world, entry, seed, number)
                .with_context(|| format!("pull {number}, {}", entry.name))?;
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked (see above)")))
        })
    })?;
    Ok(outcomes.into_inner().unwrap_or_else(PoisonError::into_inner))
}
