//! What a cluster leaves on this machine's disk and in its control groups, and how that goes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::machine::{self, Cgroup, Janitor};
use crate::{Error, Result, Scratch};

/// A folder and a control group of the same name. Both go when this is dropped, and when the process ends without that.
#[derive(Debug)]
pub(super) struct Ground {
    // Taken out by `drop` alone.
    cgroup: Option<Cgroup>,
    scratch: Option<Scratch>,
    janitor: Janitor,
    logs: PathBuf,
    keep: AtomicBool,
}

impl Ground {
    /// Clears what dead processes left, and makes it.
    pub fn new() -> Result<Self> {
        machine::sweep()?;
        let scratch = Scratch::new(&machine::label()?)?;
        let name = scratch.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let cgroup = Cgroup::new(&name)?;
        let janitor = Janitor::start(scratch.path(), cgroup.folders())?;
        let logs = scratch.folder("logs")?;
        Ok(Self { cgroup: Some(cgroup), scratch: Some(scratch), janitor, logs, keep: AtomicBool::new(false) })
    }

    pub fn logs(&self) -> &Path {
        &self.logs
    }

    pub fn cgroup(&self) -> Result<&Cgroup> {
        self.cgroup.as_ref().ok_or_else(gone)
    }

    pub fn scratch(&self) -> Result<&Scratch> {
        self.scratch.as_ref().ok_or_else(gone)
    }

    /// Has the logs kept, and says where they will be.
    pub fn keep_logs(&self) {
        if self.keep.swap(true, Ordering::SeqCst) {
            return;
        }
        let place = self.kept();
        match self.janitor.keep_logs(&place) {
            Ok(()) => eprintln!("harness: the cluster's logs will be in {}", place.display()),
            Err(error) => eprintln!("harness: {error}"),
        }
    }

    /// Beside the folder, with a name that no sweep takes.
    fn kept(&self) -> PathBuf {
        let name = self.logs.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        std::env::temp_dir().join(name.replace("larder-cluster-", "larder-logs-"))
    }
}

fn gone() -> Error {
    Error::Data { what: "cluster", problem: "it has ended".to_owned() }
}

impl Drop for Ground {
    fn drop(&mut self) {
        drop(self.cgroup.take());
        if std::thread::panicking() {
            self.keep_logs();
        }
        if *self.keep.get_mut()
            && let Err(error) = std::fs::rename(&self.logs, self.kept())
        {
            eprintln!("harness: cannot keep {}: {error}", self.logs.display());
        }
        if let Some(Err(error)) = self.scratch.take().map(Scratch::discard) {
            eprintln!("harness: {error}");
        }
        self.janitor.dismiss();
    }
}
