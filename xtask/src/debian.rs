//! Programs that come as Debian packages.

use std::process::Command;

use anyhow::{Context, bail};
use larder_tests::tools::{DebianProgram, in_path, is_root};

use crate::steps::{run_command, step};

/// Installs the packages of these programs where they are missing, or says which they are where that can't be done.
pub fn ensure(programs: &[DebianProgram]) -> anyhow::Result<()> {
    // setpriv is essential in Debian; another distribution may lack it.
    in_path("setpriv").context("setpriv belongs to util-linux 2.33 or later")?;
    let missing: Vec<_> = programs.iter().filter(|program| program.path().is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
    let names = packages.join(" ");
    if in_path("apt-get").is_err() {
        bail!(
            "missing programs, by the names of Debian's packages: {names}. Install them by your system's means"
        );
    }
    if !is_root() {
        bail!("missing programs: {names}. Run `sudo apt-get install {names}`");
    }
    step(format!("installing Debian packages: {names}"), || {
        if packages.contains(&"docker-registry") {
            println!(
                "  (on a machine with systemd the package starts a registry on port 5000; it is not used here)"
            );
        }
        apt_get(&["update", "-qq"])?;
        apt_get(&[&["install", "-qq", "-y", "--no-install-recommends"], &packages[..]].concat())
    })?;
    for program in missing {
        program.path().context("apt-get has installed the package, but the program is not there")?;
    }
    Ok(())
}

fn apt_get(args: &[&str]) -> anyhow::Result<()> {
    run_command(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}
