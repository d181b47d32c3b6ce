//! Child processes that never outlive the test.

mod launcher;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cleanup::{self, SharedChild, lock};
use crate::wait::{PATIENCE, until};
use crate::{Error, Result};

/// A program that runs in the background, can be killed and started again, and ends with this value. It also ends,
/// by SIGKILL from the kernel, when the test process is killed.
#[derive(Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: PathBuf,
    stdout: Option<PathBuf>,
    launched: bool,
    child: Killer,
}

/// Kills a program from anywhere, such as from a callback of the [`Proxy`](crate::Proxy).
#[derive(Debug, Clone)]
pub struct Killer(Arc<Mutex<Option<SharedChild>>>);

impl Killer {
    /// Sends SIGKILL if the program runs. Does not wait for its end.
    pub fn kill(&self) {
        let child = lock(&self.0).clone();
        if let Some(child) = child {
            // Errs when it has ended already, which is what was wanted.
            lock(&child).kill().ok();
        }
    }
}

impl Program {
    /// A program that is not started yet. Its output goes to `<folder>/<name>.log`, appended at each start.
    #[must_use]
    pub fn new(name: &str, program: &Path, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            path: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            log: folder.join(format!("{name}.log")),
            stdout: None,
            launched: false,
            child: Killer(Arc::default()),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sends standard output to a file of its own; the log then holds standard error alone.
    #[must_use]
    pub fn stdout(mut self, file: &Path) -> Self {
        self.stdout = Some(file.to_owned());
        self
    }

    /// Says that what is started is a launcher (`nsenter --pid`, `unshare --fork`), and that the program is the one
    /// child it has and waits for: [`Program::id`] and signals are the program's.
    #[must_use]
    pub(crate) fn launched(mut self) -> Self {
        self.launched = true;
        self
    }

    /// Starts it. Whether it gets anywhere is for the caller to find out.
    pub fn start(&self) -> Result<()> {
        if self.is_running() {
            return Err(self.failed("start", std::io::Error::other("it runs already")));
        }
        let log = append(&self.log)?;
        let stdout = match &self.stdout {
            Some(file) => append(file)?,
            None => append(&self.log)?,
        };
        let mut command = with_parent(&self.path);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            // Ctrl-C reaches the whole foreground group. The order in which things stop is ours to decide.
            .process_group(0);
        let child = spawn_on_lasting_thread(command).map_err(|source| self.failed("start", source))?;
        *lock(&self.child.0) = Some(child);
        Ok(())
    }

    /// Starts it and waits until `ready` says so. Fails at once when the program ends.
    pub fn start_until(&self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        self.start()?;
        let outcome = until(what, PATIENCE, || match self.ensure_running() {
            Err(error) => Some(Err(error)),
            Ok(()) => ready().then_some(Ok(())),
        });
        outcome.map_err(|error| match error {
            Error::Timeout { what, seconds } => {
                Error::Timeout { what: format!("{what}; the end of its log:\n{}", self.log_tail()), seconds }
            }
            other => other,
        })?
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        let child = lock(&self.child.0).clone()?;
        let mut child = lock(&child);
        match child.try_wait() {
            Ok(None) if self.launched => launcher::child(child.id()).ok().map(|launched| launched.id),
            Ok(None) => Some(child.id()),
            _ => None,
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let child = lock(&self.child.0).clone();
        child.is_some_and(|child| matches!(lock(&child).try_wait(), Ok(None)))
    }

    /// How it ended. Nothing while it runs, and before it was started.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let child = lock(&self.child.0).clone()?;
        lock(&child).try_wait().ok().flatten()
    }

    /// An error with the end of the log, unless it runs.
    pub fn ensure_running(&self) -> Result<()> {
        match self.exit_status() {
            None => Ok(()),
            Some(status) => Err(Error::Ended {
                program: self.name.clone(),
                status,
                log: self.log.clone(),
                tail: self.log_tail(),
            }),
        }
    }

    /// Sends SIGKILL and waits for the end. Nothing happens when it does not run.
    pub fn kill(&self) {
        // A launcher ends once it has seen the program's end, and not before.
        if !(self.launched && self.signal(Signal::KILL).is_ok()) {
            self.child.kill();
        }
        let child = lock(&self.child.0).clone();
        if let Some(child) = child {
            lock(&child).wait().ok();
        }
    }

    /// Sends SIGTERM, waits for the end, and says how it ended. A program that does not end is killed, and that is
    /// an error.
    pub fn terminate(&self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(PATIENCE).inspect_err(|_| self.kill())
    }

    /// Waits until it ends by itself, and says how it ended.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        until(&format!("{} to end", self.name), limit, || self.exit_status())
    }

    /// Kills it, however it stands, and starts it anew with the same arguments.
    pub fn restart(&self) -> Result<()> {
        self.kill();
        self.start()
    }

    /// Sends a signal, such as SIGSTOP.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let gone = || self.failed("signal", std::io::Error::other("it does not run"));
        let child = lock(&self.child.0).clone().ok_or_else(gone)?;
        let mut child = lock(&child);
        // Not reaped yet, and nobody reaps it while we hold the lock: the id cannot belong to another process.
        match child.try_wait() {
            Ok(None) if self.launched => {
                launcher::signal(child.id(), signal).map_err(|error| self.failed("signal", error))
            }
            Ok(None) => kill_process(Pid::from_child(&child), signal)
                .map_err(|error| self.failed("signal", error.into())),
            Ok(Some(_)) => Err(gone()),
            Err(error) => Err(self.failed("signal", error)),
        }
    }

    /// A handle that kills it, to give to somebody else.
    #[must_use]
    pub fn killer(&self) -> Killer {
        self.child.clone()
    }

    /// Its log file.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// All that it wrote to its log, over all its runs.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log).map_err(Error::file("read", &self.log))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log, 40)
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> Error {
        Error::Process { action, program: self.name.clone(), source }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let ended = self.exit_status().map(|status| format!(" ({status})")).unwrap_or_default();
        self.kill();
        if std::thread::panicking() {
            eprintln!("harness: {}{ended}, log {}:\n{}", self.name, self.log.display(), self.log_tail());
        }
    }
}

/// What a command printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command line.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// An error unless it ended with success.
    pub fn ok(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let output = format!("{}{}", self.stdout, self.stderr);
        Err(Error::Command { command: self.command, status: self.status, output })
    }

    /// Standard output, read as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).map_err(Error::data("JSON on standard output"))
    }
}

/// Runs a command to its end, with `input` on its standard input.
pub fn run(program: &Path, args: &[&str], env: &[(&str, &OsStr)], input: &[u8]) -> Result<Ran> {
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let failed = |action| {
        let program = name.clone();
        move |source| Error::Process { action, program, source }
    };
    let mut child = with_parent(program)
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("start"))?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that ends without reading all has its own reasons, and its own exit status.
            stdin.map(|mut stdin| stdin.write_all(input).ok());
        });
        child.wait_with_output()
    })
    .map_err(failed("wait for"))?;
    Ok(Ran {
        command: std::iter::once(name.as_str()).chain(args.iter().copied()).collect::<Vec<_>>().join(" "),
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command to its end with our own standard streams. [`cleanup::everything`] ends it.
pub fn run_in_foreground(command: &mut Command) -> Result<ExitStatus> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |action: &'static str| {
        let program = program.clone();
        move |source| Error::Process { action, program, source }
    };
    let child = cleanup::spawn(command).map_err(failed("start"))?;
    loop {
        // Not `wait`: that would hold the lock, and keep others from killing it.
        if let Some(status) = lock(&child).try_wait().map_err(failed("wait for"))? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last `lines` lines of a file; empty when it cannot be read.
fn tail(path: &Path, lines: usize) -> String {
    const WINDOW: u64 = 16 << 10;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn append(path: &Path) -> Result<File> {
    File::options().create(true).append(true).open(path).map_err(Error::file("open", path))
}

/// A command that the kernel kills when the thread that starts it ends: `PR_SET_PDEATHSIG`, which a Rust program
/// can set between fork and exec in unsafe code alone. setpriv (util-linux, essential in Debian) does it for us.
fn with_parent(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The kernel's "parent" in `PR_SET_PDEATHSIG` is a thread, not a process. Programs must not die with the thread of
/// a pool that happened to start them, so one thread that lasts as long as the process starts them all.
fn spawn_on_lasting_thread(command: Command) -> std::io::Result<SharedChild> {
    type Job = (Command, mpsc::Sender<std::io::Result<SharedChild>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in jobs {
                reply.send(cleanup::spawn(&mut command)).ok();
            }
        });
        sender
    });
    let (reply, result) = mpsc::channel();
    let ended = || std::io::Error::other("the thread that starts programs has ended");
    spawner.send((command, reply)).map_err(|_| ended())?;
    result.recv().map_err(|_| ended())?
}
