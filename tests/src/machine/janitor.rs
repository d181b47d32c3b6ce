//! What the kernel does not take away with the processes: files and control groups.
//!
//! `Drop` removes them where it runs. It does not run for what a `static` holds, nor in a process that gets SIGKILL. So a
//! small shell process watches for the end of ours, whatever that is, and then does the same. Should that one be killed
//! too, the next start finds by name what nobody owns any more.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::cgroup;
use crate::{Error, Result};

/// What names of folders and control groups begin with.
const PREFIX: &str = "larder-cluster-";

/// Waits for the end of its standard input, which only our process holds open. A line there tells it that nothing is
/// left to do.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
if read -r done; then exit 0; fi
folder=$1
shift
if kept=$(cat "$folder/keep-logs"); then mv "$folder/logs" "$kept"; fi
for try in $(seq 600); do
    for group in "$@"; do
        [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} +
    done
    rm -rf -- "$folder"
    left=
    for place in "$folder" "$@"; do [ ! -e "$place" ] || left=$place; done
    [ -n "$left" ] || exit 0
    sleep 0.1
done
"#;

/// Removes a folder and control groups when this process has ended.
#[derive(Debug)]
pub struct Janitor {
    process: Child,
    orders: Option<ChildStdin>,
    folder: PathBuf,
}

impl Janitor {
    /// Starts it.
    pub fn start(folder: &Path, groups: &[PathBuf]) -> Result<Self> {
        let failed =
            |source| Error::Process { action: "start", program: "the janitor's shell".to_owned(), source };
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT, "larder-janitor"])
            .arg(folder)
            .args(groups)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for us. That we end because of it, it will see.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let orders = process.stdin.take();
        Ok(Self { process, orders, folder: folder.to_owned() })
    }

    /// Has it move the folder's `logs` here first.
    pub fn keep_logs(&self, place: &Path) -> Result<()> {
        let path = self.folder.join("keep-logs");
        std::fs::write(&path, place.as_os_str().as_encoded_bytes()).map_err(Error::file("write", &path))
    }

    /// Dismisses it: all has been removed.
    pub fn dismiss(&mut self) {
        if let Some(mut orders) = self.orders.take() {
            orders.write_all(b"done\n").ok();
        }
        self.process.wait().ok();
    }
}

/// A label, for [`Scratch`](crate::Scratch), from which [`sweep`] can tell whether its owner, this process, still lives.
pub fn label() -> Result<String> {
    let id = std::process::id();
    let start = start_time(id)
        .ok_or_else(|| Error::Data { what: "/proc", problem: format!("no start time of process {id}") })?;
    Ok(format!("cluster-{}-{id}-{start}", pid_namespace()?))
}

/// Removes folders and control groups whose owners ended without doing so, and whose janitor did too.
pub fn sweep() -> Result<()> {
    let namespace = pid_namespace()?;
    let places = cgroup::hierarchies()?.into_iter().map(|top| (top, true));
    for (place, is_cgroup) in places.chain([(std::env::temp_dir(), false)]) {
        let Ok(entries) = std::fs::read_dir(&place) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| owner(name, &namespace));
            if owner.is_some_and(|(id, start)| start_time(id) != Some(start)) {
                let path = entry.path();
                // Its janitor may be at it at this very moment; what neither can remove, the next start tries again.
                if is_cgroup { cgroup::remove(&path) } else { std::fs::remove_dir_all(&path) }.ok();
            }
        }
    }
    Ok(())
}

/// The process that made a folder or control group of this name: its id, and when it started.
fn owner(name: &str, namespace: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    // Process ids of another namespace say nothing here.
    parts.next().filter(|found| *found == namespace)?;
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn pid_namespace() -> Result<String> {
    let path = Path::new("/proc/self/ns/pid");
    let link = std::fs::read_link(path).map_err(Error::file("read", path))?;
    // `pid:[4026531836]`
    Ok(link.to_string_lossy().chars().filter(char::is_ascii_digit).collect())
}

/// In clock ticks since boot: field 22 of `/proc/PID/stat`, see proc(5). Nothing when the process is gone.
fn start_time(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field, the name in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;
    use crate::wait::{PATIENCE, until};

    #[test]
    fn names_tell_whose_they_are() {
        let scratch = Scratch::new(&label().unwrap()).unwrap();
        let name = scratch.path().file_name().unwrap().to_str().unwrap().to_owned();
        let namespace = pid_namespace().unwrap();
        let (id, start) = owner(&name, &namespace).unwrap();
        assert_eq!((id, Some(start)), (std::process::id(), start_time(id)));
        assert_eq!(owner(&name, "1"), None);
        for other in ["larder-cluster-abc", "larder-store-xyz", "larder-cluster-1-2", ""] {
            assert_eq!(owner(other, &namespace), None, "{other}");
        }
    }

    #[test]
    fn a_sweep_takes_what_is_nobodys_alone() {
        let own = Scratch::new(&label().unwrap()).unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let label = format!(
            "cluster-{}-{}-{}",
            pid_namespace().unwrap(),
            child.id(),
            start_time(child.id()).unwrap()
        );
        let theirs = Scratch::new(&label).unwrap();
        sweep().unwrap();
        assert!(own.path().exists() && theirs.path().exists());
        child.kill().unwrap();
        child.wait().unwrap();
        sweep().unwrap();
        assert!(own.path().exists() && !theirs.path().exists());
        // For its own end.
        std::fs::create_dir(theirs.path()).unwrap();
    }

    #[test]
    fn a_janitor_cleans_up_unless_it_was_dismissed() {
        let scratch = Scratch::new("janitor").unwrap();
        let (first, second, kept) = (
            scratch.folder("first").unwrap(),
            scratch.folder("second").unwrap(),
            scratch.path().join("kept"),
        );
        std::fs::create_dir(first.join("logs")).unwrap();
        std::fs::write(first.join("logs/kubelet.log"), "why").unwrap();
        let mut janitor = Janitor::start(&first, &[]).unwrap();
        janitor.keep_logs(&kept).unwrap();
        // As the end of the process that holds it would.
        drop(janitor.orders.take());
        until("the janitor", PATIENCE, || (!first.exists()).then_some(())).unwrap();
        janitor.process.wait().unwrap();
        assert_eq!(std::fs::read_to_string(kept.join("kubelet.log")).unwrap(), "why");
        let mut janitor = Janitor::start(&second, &[]).unwrap();
        janitor.dismiss();
        assert!(second.exists());
    }
}
