//! The programs that go into the images.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use flate2::Compression;
use larder_tests::Scratch;
use larder_tests::tools::in_path;

use super::Profile;
use super::elf::Elf;
use super::layer::{Files, Layer};

/// A program as it goes into an image.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    bytes: Vec<u8>,
    /// What its headers say.
    pub elf: Elf,
}

impl Program {
    /// Takes the one that cargo has built, without what only debuggers read: in development builds that is most of it.
    pub fn take(name: &'static str, profile: Profile, scratch: &Scratch) -> anyhow::Result<Self> {
        let path = built(name, profile)?;
        let bytes = read(&path)?;
        let elf = Elf::parse(&bytes).with_context(|| format!("cannot use {}", path.display()))?;
        let bytes = if elf.has_symbols { stripped(&path, &scratch.path().join(name))? } else { bytes };
        Ok(Self { name, bytes, elf })
    }

    /// A layer of it alone.
    pub fn pack(&self, compression: Compression) -> anyhow::Result<Layer> {
        let mut files = Files::default();
        files.program(&format!("/usr/bin/{}", self.name), self.bytes.as_slice());
        files
            .pack(format!("cargo xtask image: {}", self.name), compression)
            .with_context(|| format!("cannot pack {}", self.name))
    }
}

/// Where cargo has put it: beside this program, or in the neighbouring profile's folder.
fn built(name: &str, profile: Profile) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let target = own.ancestors().nth(2).context("this program is in no target folder of cargo's")?;
    let path = target.join(profile.folder()).join(name);
    if !path.is_file() {
        bail!("{} is not there: leave out --built, so that it is built", path.display());
    }
    Ok(path)
}

fn stripped(path: &Path, output: &Path) -> anyhow::Result<Vec<u8>> {
    let strip = in_path("strip").context("Debian's package is binutils")?;
    let ran = Command::new(strip).arg("-o").arg(output).arg(path).output().context("cannot run strip")?;
    if !ran.status.success() {
        bail!("strip failed on {}: {}", path.display(), String::from_utf8_lossy(&ran.stderr).trim());
    }
    read(output)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
