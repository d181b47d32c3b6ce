//! `cargo xtask fuzz`: libFuzzer on what reads other people's bytes. docs/proof/fuzzing.md says what is where.
//!
//! The targets are laid out as cargo-fuzz has them, and cargo-fuzz runs them. It is not needed: what it adds to cargo are
//! compiler flags, and those that count (coverage, not sanitizers, which find nothing where there is no unsafe code) are
//! stable.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, bail};
use larder_tests::tools::in_path;
use larder_tests::{Program, Scratch};

use crate::steps::{human, root, run_command, step};

/// All targets, in `fuzz/targets`.
const TARGETS: &[&str] =
    &["reference", "manifest", "archive", "hosts", "challenge", "format", "template", "logins"];
/// What cargo-fuzz passes, without the sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code -Ccodegen-units=1";
/// What an input may take: MiB, and seconds on a busy machine.
const LIMITS: [&str; 3] = ["-rss_limit_mb=1024", "-timeout=60", "-max_len=16384"];
/// What a target may take beyond its time: reading its corpus, and the last input.
const GRACE: Duration = Duration::from_secs(120);

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only this target; all by default
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    target: Option<String>,
    /// How long, for each target
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Targets at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    jobs: u16,
    /// Where the chance inputs begin; another one each time by default
    #[arg(long)]
    seed: Option<u32>,
    /// Run this input of the target, and nothing else
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

impl Options {
    /// All targets, for so long each, and from the same seed each time: a change is to be judged by what it changes.
    pub fn all(seconds: u64) -> Self {
        Self { target: None, seconds, jobs: 2, seed: Some(1), input: None }
    }
}

/// Why there can be no fuzzing here.
pub fn unavailable() -> Option<String> {
    let missing = ["c++", "g++", "clang++"].iter().all(|compiler| in_path(compiler).is_err());
    missing.then(|| "libFuzzer is C++, and there is no compiler for it; install g++".to_owned())
}

/// Builds the targets and runs them; what crashes, hangs or eats memory is an error.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(reason) = unavailable() {
        bail!(reason);
    }
    let targets: Vec<&str> = match &options.target {
        Some(target) => vec![target.as_str()],
        None => TARGETS.to_vec(),
    };
    let built = step("building the fuzz targets", || build(&targets))?;
    if let Some(input) = &options.input {
        let input = input.canonicalize().with_context(|| format!("cannot read {}", input.display()))?;
        let program = built.join(targets.first().copied().unwrap_or_default());
        return run_command(Command::new(program).args(LIMITS).arg(input));
    }
    let (queue, failed) = (Mutex::new(targets.into_iter()), Mutex::new(Vec::new()));
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(target) = lock() {
                    match fuzz(&built, target, options) {
                        Ok(line) => println!("  {target}: {line}"),
                        Err(error) => {
                            println!("  {target}: {error:#}");
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push(target);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("fuzzing found something in {} (see above)", failed.join(", "))
    }
}

/// The target that Rust's own tools are built for, which is where we run.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned);
    host.context("`rustc -vV` names no host")
}

/// Gives the folder of the programs.
fn build(targets: &[&str]) -> anyhow::Result<PathBuf> {
    let (host, folder) = (host()?, root().join("target/fuzz"));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root().join("fuzz"))
        // With a target named, the flags are not for what runs at build time.
        .args(["build", "--quiet", "--release", "--target", &host, "--target-dir"])
        .arg(&folder)
        .args(targets.iter().flat_map(|target| ["--bin", target]))
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    run_command(&mut command)?;
    Ok(folder.join(host).join("release"))
}

/// Runs one target, and says how far it came.
fn fuzz(built: &Path, target: &str, options: &Options) -> anyhow::Result<String> {
    let seconds = options.seconds;
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { Scratch::in_folder(memory, "fuzz") } else { Scratch::new("fuzz") }?;
    // What it found before, which it starts from; what it found wrong; and what we give it to begin with.
    let found = folder(&root().join("target/fuzz/corpus").join(target))?;
    let artifacts = folder(&root().join("target/fuzz/artifacts").join(target))?;
    let seeds = root().join("fuzz/corpus").join(target);
    let program = Program::new(target, &built.join(target), scratch.path())
        .args(LIMITS)
        .args([
            format!("-max_total_time={seconds}"),
            format!("-artifact_prefix={}/", artifacts.display()),
            "-print_final_stats=1".to_owned(),
            // libFuzzer takes 0 for none.
            format!("-seed={}", options.seed.unwrap_or(0)),
        ])
        .args([&found, &seeds])
        .env("TMPDIR", scratch.path());
    program.start()?;
    let status = program.wait(Duration::from_secs(seconds) + GRACE)?;
    let log = program.log()?;
    if !status.success() {
        let input =
            log.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path));
        let again = input.map(|input| format!("\nagain: cargo xtask fuzz {target} --input {input}"));
        bail!("{status}; the end of its log:\n{}{}", program.log_tail(), again.unwrap_or_default());
    }
    let stat = |name: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
        line.map_or("?", |rest| rest.trim_start_matches(':').trim()).to_owned()
    };
    let covered = log.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split(' ').next());
    Ok(format!(
        "{} inputs in {}, {} places reached, {} MiB",
        stat("number_of_executed_units"),
        human(Duration::from_secs(seconds)),
        covered.unwrap_or("?"),
        stat("peak_rss_mb")
    ))
}

fn folder(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path.to_owned())
}
