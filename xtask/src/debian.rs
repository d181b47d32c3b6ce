//! Programs that come as Debian packages.

use std::process::Command;

use anyhow::{Context, bail};
use larder_tests::tools::{DEBIAN_PACKAGES, in_path, is_root};

use crate::steps::{run_command, step};

/// Installs the packages that are missing, or says which they are where that can't be done.
pub fn ensure() -> anyhow::Result<()> {
    // setpriv is essential in Debian; another distribution may lack it.
    in_path("setpriv").context("setpriv belongs to util-linux 2.33 or later")?;
    let missing: Vec<&str> =
        DEBIAN_PACKAGES.iter().copied().filter(|program| in_path(program).is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if in_path("apt-get").is_err() {
        bail!(
            "missing programs: {names}. Debian has packages of the same names; install them by your system's means"
        );
    }
    if !is_root() {
        bail!("missing programs: {names}. Run `sudo apt-get install {names}`");
    }
    step(format!("installing Debian packages: {names}"), || {
        if missing.contains(&"docker-registry") {
            println!(
                "  (on a machine with systemd the package starts a registry on port 5000; it is not used here)"
            );
        }
        apt_get(&["update", "-qq"])?;
        apt_get(&[&["install", "-qq", "-y", "--no-install-recommends"], &missing[..]].concat())
    })?;
    for program in missing {
        in_path(program).context("apt-get has installed the package, but the program is not there")?;
    }
    Ok(())
}

fn apt_get(args: &[&str]) -> anyhow::Result<()> {
    run_command(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}
