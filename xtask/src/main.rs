//! `cargo xtask`: Larder's development commands.

#![forbid(unsafe_code)]

mod bench;
mod cluster_faults;
mod debian;
mod demo;
mod e2e;
mod faults;
mod fuzz;
mod generate;
mod image;
mod steps;
mod test;
mod tools;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use larder_tests::cleanup;

/// Larder's development commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows Larder at work: a real control plane and registry, the operator, and three agents, on this machine.
    Demo {
        /// Stay when the images are there, and say how to look around, until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Runs all checks and tests, those against the real API server and registry last.
    Test {
        /// Leave out the tests against real parts.
        #[arg(long)]
        fast: bool,
    },
    /// Writes the files that are made from code, or from each other: definitions, parts of the chart, Argo CD's checks.
    Gen {
        /// Write nothing; fail when a file differs from what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Makes the OCI images of operator and agent, without docker: archives that `larder load` and others read.
    Image(image::Options),
    /// Runs the tests on a real cluster (kubelet, containerd), or starts one and stays. Needs root.
    E2e(e2e::Options),
    /// Pulls from a registry that misbehaves in every way we know: each pull must end right, or in one clear error.
    Faults(faults::Options),
    /// Has API server, etcd, watches, operators and containerd fail: all must be well again, and no status may lie.
    ClusterFaults(cluster_faults::Options),
    /// Fuzzes what reads other people's bytes: names, manifests, archives, configurations, templates.
    Fuzz(fuzz::Options),
    /// Measures Larder beside other programs, on this machine.
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
    /// Kills commands at random moments, and cuts a disk's power: no image that was reported is lost.
    Torture(torture::Torture),
    /// Has every command run out of space at random places: one clear error, and nothing lost.
    DiskFull(torture::DiskFull),
    /// Builds or installs the programs that demo and tests need, unless they are there.
    Tools,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = cleanup::on_signals().map_err(Into::into).and_then(|()| match arguments.command {
        Command::Demo { keep } => demo::run(keep),
        Command::Test { fast } => test::run(fast),
        Command::Gen { check } => generate::run(check),
        Command::Image(options) => image::run(&options),
        Command::E2e(options) => e2e::run(&options),
        Command::Faults(options) => faults::run(&options),
        Command::ClusterFaults(options) => cluster_faults::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Bench { what } => bench::run(&what),
        Command::Torture(options) => torture::torture(&options),
        Command::DiskFull(options) => torture::disk_full(&options),
        Command::Tools => tools::ensure(),
    });
    while cleanup::has_begun() {
        // A signal: its handler ends this process. What failed here meanwhile failed because of it.
        std::thread::park();
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
