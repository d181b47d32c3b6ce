//! Running a program and knowing what it cost.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use larder_tests::process::run;
use larder_tests::tools::in_path;

/// What one run cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of CPU, in the program and in the kernel for it.
    pub cpu: f64,
    /// The most memory it had, in MiB.
    pub peak: f64,
}

/// Runs a program to its end under GNU time, which alone can tell the peak.
pub fn cost(command: &[String], env: &[(&str, &OsStr)], scratch: &Path) -> anyhow::Result<Cost> {
    let time = in_path("time")?;
    let report = scratch.join("time");
    let options = ["--format=%U %S %M".to_owned(), format!("--output={}", report.display())];
    let args: Vec<&str> = options.iter().chain(command).map(String::as_str).collect();
    let start = Instant::now();
    let ran = run(&time, &args, env, b"")?;
    let wall = start.elapsed().as_secs_f64();
    ran.ok()?;
    let text = std::fs::read_to_string(&report)?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [user, system, kib] = numbers[..] else { bail!("time wrote {text:?}") };
    Ok(Cost { wall, cpu: user + system, peak: kib / 1024.0 })
}

/// The middle value of each figure.
pub fn median(costs: &[Cost]) -> Cost {
    let middle = |of: fn(&Cost) -> f64| middle(costs.iter().map(of));
    Cost { wall: middle(|cost| cost.wall), cpu: middle(|cost| cost.cpu), peak: middle(|cost| cost.peak) }
}

/// The middle one of some values.
pub fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
