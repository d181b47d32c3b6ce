//! `cargo xtask torture` and `cargo xtask disk-full`: the tests of these names at length. docs/proof says how to read them.

use crate::steps::{cargo, step};

/// What is asked for.
#[derive(Debug, clap::Args)]
pub struct Torture {
    /// How many commands are killed.
    #[arg(long, default_value_t = 1000)]
    kills: u64,
    /// How often the disk loses power.
    #[arg(long, default_value_t = 300)]
    cuts: u64,
    /// Where chance comes from; another at each run otherwise, and printed.
    #[arg(long)]
    seed: Option<u64>,
}

/// What is asked for.
#[derive(Debug, clap::Args)]
pub struct DiskFull {
    /// At how many places by chance each command runs out of space.
    #[arg(long, default_value_t = 50)]
    places: u64,
    /// Where chance comes from; another at each run otherwise, and printed.
    #[arg(long)]
    seed: Option<u64>,
}

/// Commands that are killed, and a disk that loses power.
pub fn torture(options: &Torture) -> anyhow::Result<()> {
    let figures = [("LARDER_TORTURE_KILLS", options.kills), ("LARDER_TORTURE_CUTS", options.cuts)];
    run(&figures, options.seed, &["kills::", "power::"])
}

/// A disk that is full.
pub fn disk_full(options: &DiskFull) -> anyhow::Result<()> {
    run(&[("LARDER_DISK_FULL_PLACES", options.places)], options.seed, &["full::", "full_node::"])
}

fn run(figures: &[(&str, u64)], seed: Option<u64>, tests: &[&str]) -> anyhow::Result<()> {
    step("building", || {
        cargo(&["build", "--quiet", "-p", "larder-cli", "-p", "larder-agent", "-p", "larder-operator"])
    })?;
    let seed = seed.map(|seed| ("LARDER_TORTURE_SEED", seed));
    let settings: Vec<String> =
        figures.iter().copied().chain(seed).map(|(name, value)| format!("env.{name}='{value}'")).collect();
    let mut args: Vec<&str> = settings.iter().flat_map(|setting| ["--config", setting]).collect();
    args.extend(["test", "--package", "larder-tests", "--test", "torture", "--"]);
    args.extend(["--nocapture", "--test-threads=1"]);
    args.extend(tests);
    cargo(&args)
}
