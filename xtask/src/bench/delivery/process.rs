//! What a process that runs costs, from what the kernel tells.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use larder_tests::machine::{CgroupVersion, cgroup_version};

/// The kernel's unit of CPU time in `/proc/ID/stat` (`USER_HZ`), the same on all machines that Kubernetes runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// A process.
#[derive(Debug)]
pub(in crate::bench) struct Process {
    /// Its folder in a `/proc`.
    folder: PathBuf,
}

impl Process {
    /// The process of this folder in a `/proc`.
    pub(in crate::bench) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether it is the same process.
    pub(in crate::bench) fn is(&self, other: &Self) -> bool {
        self.folder == other.folder
    }

    /// Seconds of CPU, in the process and in the kernel for it; those of children that have ended included.
    pub(in crate::bench) fn cpu(&self) -> anyhow::Result<f64> {
        let text = self.read("stat")?;
        // The name, in parentheses, may hold anything.
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: u32 = fields.skip(11).take(4).filter_map(|field| field.parse::<u32>().ok()).sum();
        Ok(f64::from(ticks) / TICKS_A_SECOND)
    }

    /// Seconds of CPU of its control group, to the nanosecond: for a container, which has one of its own.
    pub(in crate::bench) fn group_cpu(&self) -> anyhow::Result<f64> {
        let groups = self.read("cgroup")?;
        let of = |wanted: &str| {
            groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|name| name == wanted).then(|| path.trim_start_matches('/'))
            })
        };
        match cgroup_version() {
            CgroupVersion::One => {
                let path = of("cpuacct").context("the process is in no group of the controller cpuacct")?;
                let file = Path::new("/sys/fs/cgroup/cpuacct").join(path).join("cpuacct.usage");
                Ok(read(&file)?.trim().parse::<f64>()? / 1e9)
            }
            CgroupVersion::Two => {
                let path = of("").context("the process is in no control group")?;
                let text = read(&Path::new("/sys/fs/cgroup").join(path).join("cpu.stat"))?;
                let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
                Ok(usage.context("cpu.stat has no usage_usec")?.trim().parse::<f64>()? / 1e6)
            }
        }
    }

    /// The most memory that it had since [`Process::forget_peak`], in MiB.
    pub(in crate::bench) fn peak(&self) -> anyhow::Result<f64> {
        self.field("VmHWM")
    }

    /// Begins to look for the most memory anew.
    pub(in crate::bench) fn forget_peak(&self) -> anyhow::Result<()> {
        let file = self.folder.join("clear_refs");
        fs::write(&file, "5").with_context(|| format!("cannot write {}", file.display()))
    }

    /// Its memory in MiB: all that is resident, and what of that is its own rather than a file's.
    pub(in crate::bench) fn memory(&self) -> anyhow::Result<(f64, f64)> {
        Ok((self.field("VmRSS")?, self.field("RssAnon")?))
    }

    fn field(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.read("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no such field")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        read(&self.folder.join(file))
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
