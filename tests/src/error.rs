//! What goes wrong in the harness, told so that a test's output is enough to see why.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// A part of the harness that could not do its work.
#[derive(thiserror::Error)]
pub enum Error {
    /// A program that is not on this machine.
    #[error("{program} is missing: {advice}")]
    Missing {
        /// The program.
        program: String,
        /// How to get it.
        advice: String,
    },
    /// A file or folder that could not be used.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was to be done: a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A process that could not be started, signalled or awaited.
    #[error("cannot {action} {program}: {source}")]
    Process {
        /// What was to be done: a verb.
        action: &'static str,
        /// The program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A process that ended although it was to stay.
    #[error("{program} ended ({status}); the end of its log {log}:\n{tail}")]
    Ended {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A command that ended with a failure.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// Something awaited that did not come.
    #[error("waited {seconds} s in vain: {what}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// A request that was not answered as it should have been.
    #[error("{request}: {problem}")]
    Http {
        /// Method and URL.
        request: String,
        /// What came instead of the answer.
        problem: String,
    },
    /// A port that somebody else uses.
    #[error("port {0} on 127.0.0.1 is in use by another program")]
    PortTaken(u16),
    /// Certificates, passwords, JSON: data that could not be made or read.
    #[error("{what}: {problem}")]
    Data {
        /// What was made or read.
        what: &'static str,
        /// Why that failed.
        problem: String,
    },
}

/// The result of everything that may fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// For `map_err` on anything whose error says enough by itself.
    pub(crate) fn data<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |problem| Self::Data { what, problem: problem.to_string() }
    }
}

/// `unwrap` prints the debug form: let it be the readable one, with real line breaks in log excerpts.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
