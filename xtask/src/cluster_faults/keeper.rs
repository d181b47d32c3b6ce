//! What starts a program that has ended again, as kubelet does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use larder_tests::Program;

/// How long a program that has ended stays away.
const PAUSE: Duration = Duration::from_millis(100);

/// Keeps programs running. Once it is dropped, it starts nothing any more.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    kept: Mutex<Vec<Arc<Program>>>,
    ends: AtomicBool,
    restarts: AtomicU64,
}

impl Keeper {
    pub fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !own.ends.load(Ordering::SeqCst) {
                own.look();
                std::thread::sleep(PAUSE);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Keeps a program running from now on.
    pub fn keep(&self, program: &Arc<Program>) {
        self.shared.kept().push(Arc::clone(program));
    }

    /// Lets go of a program, and ends it.
    pub fn end(&self, program: &Arc<Program>) {
        self.shared.kept().retain(|kept| !Arc::ptr_eq(kept, program));
        program.kill();
    }

    /// Whether all programs run.
    pub fn all_run(&self) -> bool {
        self.shared.kept().iter().all(|program| program.exit_status().is_none())
    }

    /// How many programs had to be started again so far.
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Program>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock: who has been let go of is not started again.
    fn look(&self) {
        for program in self.kept().iter() {
            if program.exit_status().is_some() && program.start().is_ok() {
                self.restarts.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
