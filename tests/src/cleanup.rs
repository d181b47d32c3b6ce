//! What this process has started and made, so that it can all be undone at any moment (Ctrl-C in `xtask demo`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::signal::unix::{SignalKind, signal};

use crate::runtime::{block_on, runtime};
use crate::{Error, Result};

/// A child process that several places may signal. It is reaped under the lock alone, so its id stays its own for
/// as long as the lock is held and `try_wait` says that it runs.
pub(crate) type SharedChild = Arc<Mutex<Child>>;

#[derive(Default)]
struct Live {
    children: Vec<Weak<Mutex<Child>>>,
    folders: BTreeSet<PathBuf>,
    closing: bool,
}

static LIVE: Mutex<Live> =
    Mutex::new(Live { children: Vec::new(), folders: BTreeSet::new(), closing: false });

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves nothing half done behind these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child that [`everything`] would end. Fails once that has begun.
pub(crate) fn spawn(command: &mut Command) -> std::io::Result<SharedChild> {
    let mut live = lock(&LIVE);
    if live.closing {
        return Err(std::io::Error::other("everything is being stopped"));
    }
    let child = Arc::new(Mutex::new(command.spawn()?));
    live.children.retain(|child| child.strong_count() > 0);
    live.children.push(Arc::downgrade(&child));
    Ok(child)
}

/// Has [`everything`] remove this folder.
pub fn register_folder(path: &Path) {
    lock(&LIVE).folders.insert(path.to_owned());
}

/// Undoes [`register_folder`].
pub fn forget_folder(path: &Path) {
    lock(&LIVE).folders.remove(path);
}

/// Ends all child processes of the harness, removes all its folders, and lets nothing be started any more. For a
/// program that is about to exit.
pub fn everything() {
    let (children, folders) = {
        let mut live = lock(&LIVE);
        live.closing = true;
        (std::mem::take(&mut live.children), std::mem::take(&mut live.folders))
    };
    for child in children.iter().filter_map(Weak::upgrade) {
        let mut child = lock(&child);
        child.kill().ok();
        child.wait().ok();
    }
    for folder in folders {
        // Whoever still writes there (a thread that has not noticed yet) may put a file into a folder that is
        // being removed.
        for _ in 0..10 {
            if std::fs::remove_dir_all(&folder).is_ok() || !folder.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// Whether [`everything`] has begun. Whoever sees an error then has seen its effect.
#[must_use]
pub fn has_begun() -> bool {
    lock(&LIVE).closing
}

/// From now on SIGINT (Ctrl-C), SIGTERM and SIGHUP undo [`everything`] and end this process with `128 + signal`.
pub fn on_signals() -> Result<()> {
    let (mut interrupt, mut terminate, mut hangup) = block_on(async {
        let listen = |kind| signal(kind).map_err(Error::data("signal handler"));
        Ok((
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ))
    })?;
    runtime()?.spawn(async move {
        let signal = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        };
        eprintln!("\nstopping: ending processes, removing files");
        everything();
        std::process::exit(128 + signal.as_raw_value());
    });
    Ok(())
}
