//! Control groups of our own, for what kubelets put there.
//!
//! Tested where the controllers are version 1 hierarchies (with an empty version 2 beside them). On a machine with
//! version 2 alone there is one folder instead of many; the rest is the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait::{PATIENCE, until};
use crate::{Error, Result};

/// A control group of the same name in every hierarchy. Dropping it removes it, with all below it.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    folders: Vec<PathBuf>,
}

/// Which version the controllers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy a controller, or one for several.
    One,
    /// One hierarchy for all.
    Two,
}

impl Cgroup {
    /// Makes it at the top of each hierarchy.
    pub fn new(name: &str) -> Result<Self> {
        let tops = hierarchies()?;
        for top in &tops {
            enable_controllers(top);
        }
        let folders: Vec<_> = tops.into_iter().map(|top| top.join(name)).collect();
        if folders.is_empty() {
            return Err(Error::Data {
                what: "control groups",
                problem: "no cgroup file system is mounted".to_owned(),
            });
        }
        let this = Self { name: name.to_owned(), folders };
        this.make("")?;
        Ok(this)
    }

    /// Makes one below it, and gives its path from the top of the hierarchies: `/<name>/<child>`.
    pub fn child(&self, child: &str) -> Result<String> {
        self.make(child)?;
        Ok(format!("/{}/{child}", self.name))
    }

    /// The folders that stand for it.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    fn make(&self, child: &str) -> Result<()> {
        for folder in self.folders.iter().map(|folder| folder.join(child)) {
            std::fs::create_dir_all(&folder).map_err(Error::file("make the control group", &folder))?;
            enable_controllers(&folder);
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was just killed may still count as a member.
        let gone = until("control groups to be empty", PATIENCE.min(Duration::from_secs(30)), || {
            let left: Vec<_> = self.folders.iter().filter(|folder| remove(folder).is_err()).collect();
            left.is_empty().then_some(())
        });
        if gone.is_err() {
            eprintln!("harness: cannot remove the control group /{}: there are processes in it", self.name);
        }
    }
}

/// Where the hierarchies are mounted.
pub fn hierarchies() -> Result<Vec<PathBuf>> {
    let path = Path::new("/proc/self/mounts");
    let mounts = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (folder, kind) = (fields.next()?, fields.next()?);
            ["cgroup", "cgroup2"].contains(&kind).then(|| PathBuf::from(folder))
        })
        .filter(|folder| folder.starts_with("/sys/fs/cgroup"))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// The version that kubelet and runc see.
#[must_use]
pub fn version() -> Version {
    // Only the one hierarchy of version 2 has this file at the top.
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { Version::Two } else { Version::One }
}

/// In version 2, a group's children have the controllers that the group hands down. In version 1 there is no such file.
fn enable_controllers(folder: &Path) {
    let Ok(controllers) = std::fs::read_to_string(folder.join("cgroup.controllers")) else { return };
    let all: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    // What may not be handed down here, kubelet reports with its own words.
    std::fs::write(folder.join("cgroup.subtree_control"), all.join(" ")).ok();
}

/// Removes a group and those below it. Its files go with it: they are no files to remove.
pub(crate) fn remove(folder: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
