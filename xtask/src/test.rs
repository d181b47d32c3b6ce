//! `cargo xtask test`: all checks and tests, in the order in which they fail soonest.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::fuzz;
use crate::generate;
use crate::steps::{cargo, human, root, step};
use crate::tools;

/// Runs everything; with `fast` without the tests against real parts.
pub fn run(fast: bool) -> anyhow::Result<()> {
    let start = Instant::now();
    step("formatting", || cargo(&["fmt", "--all", "--check"]))?;
    step("generated files", || generate::run(true))?;
    step("clippy", || {
        cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    })?;
    licences_and_advisories()?;
    // Before the unit tests, so that whatever runs last is a run of cargo test.
    let skipped = if fast { Some("--fast".to_owned()) } else { real_parts_missing() };
    // Built in one go with all features that any of it needs: separate selections of packages would build
    // dependencies anew for each.
    step("building", || cargo(&["build", "--quiet", "--workspace", "--all-targets"]))?;
    if let Some(reason) = skipped {
        println!("skipped: tests against the real API server and registry: {reason}");
        println!("▸ unit and property tests ({} so far)", human(start.elapsed()));
        unit_tests()?;
        return if fast { Ok(()) } else { fail_in_ci() };
    }
    fuzzing()?;
    step("unit and property tests", unit_tests)?;
    println!("▸ tests against the real API server and registry ({} so far)", human(start.elapsed()));
    let no_cluster = larder_tests::kubernetes::unavailable();
    let mut args = vec!["test".to_owned(), "--workspace".into()];
    let targets = test_targets(|package| package == "tests")?;
    let left_out = |name: &str| no_cluster.is_some() && name == "e2e";
    args.extend(targets.into_iter().filter(|name| !left_out(name)).flat_map(test_flag));
    cargo(&args.iter().map(String::as_str).collect::<Vec<_>>()).context("tests against real parts")?;
    if let Some(reason) = no_cluster {
        println!("skipped: tests on a real cluster: {reason}");
        fail_in_ci()?;
    }
    Ok(())
}

fn test_flag(name: String) -> [String; 2] {
    ["--test".to_owned(), name]
}

/// Thirty seconds a target, two targets at a time.
fn fuzzing() -> anyhow::Result<()> {
    if let Some(reason) = fuzz::unavailable() {
        println!("skipped: fuzzing: {reason}");
        return fail_in_ci();
    }
    step("fuzzing", || fuzz::run(&fuzz::Options::all(30)))
}

fn fail_in_ci() -> anyhow::Result<()> {
    if in_ci() {
        bail!("CI is set, and with it a test that is skipped is a failure (see above)");
    }
    Ok(())
}

fn unit_tests() -> anyhow::Result<()> {
    let mut args = ["test", "--quiet", "--workspace", "--lib", "--bins"].map(str::to_owned).to_vec();
    args.extend(test_targets(|package| package != "tests")?.into_iter().flat_map(test_flag));
    cargo(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Why the tests against real parts can't run here, if they can't.
fn real_parts_missing() -> Option<String> {
    step("programs that the tests need", tools::ensure).err().map(|error| format!("{error:#}"))
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// cargo-deny looks at licences, advisories and sources as `deny.toml` says. It is no test of ours: a machine
/// without it, or without the network that advisories come from, can do everything else.
fn licences_and_advisories() -> anyhow::Result<()> {
    if larder_tests::tools::in_path("cargo-deny").is_err() {
        println!("▸ licences and advisories: not looked at, cargo-deny is not installed");
        return Ok(());
    }
    step("licences and advisories", || cargo(&["deny", "--workspace", "check", "--hide-inclusion-graph"]))
}

/// The names of the integration tests of the packages whose folder `wanted` picks.
fn test_targets(wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = |folder: &Path| -> anyhow::Result<Vec<std::fs::DirEntry>> {
        let entries =
            std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        Ok(entries)
    };
    for package in entries(&root())? {
        let folder = package.path().join("tests");
        let is_package = package.path().join("Cargo.toml").is_file();
        if !is_package || !folder.is_dir() || !package.file_name().to_str().is_some_and(&wanted) {
            continue;
        }
        for entry in entries(&folder)? {
            let path = entry.path();
            // As cargo finds them: `tests/NAME.rs` and `tests/NAME/main.rs`.
            let is_target =
                path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
            if is_target && let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
                names.push(name.to_owned());
            }
        }
    }
    Ok(names)
}
