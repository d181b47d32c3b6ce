//! Running commands step by step, and saying what is done and how long it took.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;
use larder_tests::process::run_in_foreground;

/// The workspace's folder.
pub fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Runs `work`, having said what it is, and says how long it took.
pub fn step<T>(what: impl Display, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    println!("▸ {what}");
    let start = Instant::now();
    let result = work()?;
    println!("  took {}", human(start.elapsed()));
    Ok(result)
}

/// Runs cargo: the one that runs us, if one does.
pub fn cargo(args: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    // What cargo tells a program that it runs would have every build script that asks for it run again.
    let own = std::env::vars_os().filter(|(name, _)| {
        name.to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    });
    for (name, _) in own {
        command.env_remove(name);
    }
    run_command(command.args(args).current_dir(root()))
}

/// Runs a prepared command with our own standard streams; its failure is an error.
pub fn run_command(command: &mut Command) -> anyhow::Result<()> {
    let status = run_in_foreground(command)?;
    if !status.success() {
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let line = std::iter::once(program).chain(command.get_args()).map(|part| part.to_string_lossy());
        bail!("`{}` failed ({status})", line.collect::<Vec<_>>().join(" "));
    }
    Ok(())
}

/// A duration as a person would say it: `2.9 s`, `4 min 30 s`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

/// Bytes as a person would say it: `31.4 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
