//! Debian packages that benchmarks alone need.

use std::process::Command;

use anyhow::bail;
use larder_tests::tools::{in_path, is_root};

use crate::steps::{run_command, step};

/// GNU time, pigz (gzip on all cores), and a library that turns fsync into nothing. The packages are named as their
/// programs are.
const PACKAGES: [&str; 3] = ["eatmydata", "pigz", "time"];

/// Installs what is missing, those that tests need as well included, or says what it is where that can't be done.
pub fn ensure() -> anyhow::Result<()> {
    crate::debian::ensure(larder_tests::tools::DEBIAN_PROGRAMS)?;
    let missing: Vec<&str> = PACKAGES.into_iter().filter(|program| in_path(program).is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if in_path("apt-get").is_err() || !is_root() {
        bail!(
            "missing programs: {names}. Debian has packages of the same names: `sudo apt-get install {names}`"
        );
    }
    step(format!("installing Debian packages: {names}"), || {
        for args in [["update", "-qq"].as_slice(), &["install", "-qq", "-y", "--no-install-recommends"]] {
            let packages = if args.contains(&"install") { missing.as_slice() } else { &[] };
            let mut apt_get = Command::new("apt-get");
            run_command(apt_get.args(args).args(packages).env("DEBIAN_FRONTEND", "noninteractive"))?;
        }
        Ok(())
    })
}
