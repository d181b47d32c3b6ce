//! What every command works with.

use std::{
    fmt,
    io::{self, BufRead, IsTerminal, Read, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use larder_registry::{DockerConfig, Registry, RegistryOptions};
use larder_store::Store;

use crate::{
    Failure, InUse, Status,
    args::Globals,
    node::{NODE_STORE, Node},
};

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 256;

/// What every command works with: the flags that all have, the store, and where output goes. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The flags that all commands have.
    pub globals: Globals,
    /// Who knows which images are in use.
    pub in_use: Arc<dyn InUse>,
    /// The node's container runtime.
    pub node: Node,
    interrupted: Arc<AtomicBool>,
    stdout: Arc<Mutex<Box<dyn Write + Send>>>,
    stderr: Arc<Mutex<Box<dyn Write + Send>>>,
    terminal: bool,
}

impl Context {
    /// A context that prints to the standard streams.
    #[must_use]
    pub fn new(globals: Globals) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { terminal, ..Self::with_output(globals, Box::new(io::stdout()), Box::new(io::stderr())) }
    }

    /// A context that prints elsewhere, where no terminal is.
    #[must_use]
    pub fn with_output(
        globals: Globals,
        stdout: Box<dyn Write + Send>,
        stderr: Box<dyn Write + Send>,
    ) -> Self {
        let node = Node::new(&globals);
        Self {
            globals,
            in_use: Arc::new(node.clone()),
            node,
            interrupted: Arc::default(),
            stdout: Arc::new(Mutex::new(stdout)),
            stderr: Arc::new(Mutex::new(stderr)),
            terminal: false,
        }
    }

    /// Whether stdout is a terminal: bars and colours there, plain lines elsewhere.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The store's folder.
    pub fn store_dir(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = &self.globals.store {
            return Ok(folder.clone());
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from(NODE_STORE));
        }
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        set("XDG_DATA_HOME")
            .or_else(|| set("HOME").map(|home| home.join(".local/share")))
            .map(|data| data.join("larder"))
            .ok_or_else(|| {
                Failure::new("no place for the layer store: set HOME, or name a folder with --store")
            })
    }

    /// The store, with a way to the layers that the container runtime has; made if it is not there. Its calls block: make
    /// them within [`Context::blocking`].
    pub fn store(&self) -> Result<Store, Failure> {
        let store = Store::open(&self.store_dir()?)?;
        Ok(match self.node.annex(&store) {
            Some(annex) => store.with_annex(annex),
            None => store,
        })
    }

    /// Runs work on the store where blocking is allowed.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let context = self.clone();
        let work = tokio::task::spawn_blocking(move || work(&context.store()?));
        work.await.map_err(|_| Failure::new("interrupted"))?
    }

    /// docker's `config.json`, where logins are.
    pub fn logins(&self) -> Result<DockerConfig, Failure> {
        Ok(DockerConfig::from_env()?)
    }

    /// A client for all registries, with the user's logins.
    pub fn registry(&self) -> Result<Registry, Failure> {
        let mut options = RegistryOptions {
            plain_http: self.globals.insecure_registry.clone(),
            hosts_dir: Some(self.globals.hosts_dir.clone()),
            stall_timeout: Duration::from_secs(self.globals.stall_timeout),
            ..RegistryOptions::default()
        };
        // Without a home there are no logins, and public images can be had all the same.
        if let Ok(logins) = DockerConfig::from_env() {
            options.credentials = Arc::new(logins);
        }
        Ok(Registry::new(options)?)
    }

    /// Prints to stdout, and nothing after the text.
    pub fn print(&self, text: impl fmt::Display) -> Result<(), Failure> {
        write(&self.stdout, format_args!("{text}"))
    }

    /// Prints a line to stdout.
    pub fn line(&self, text: impl fmt::Display) -> Result<(), Failure> {
        write(&self.stdout, format_args!("{text}\n"))
    }

    /// Prints a line to stderr: a warning, a note, an error that does not end the command. Never fails: there is
    /// nobody left to tell.
    pub fn note(&self, text: impl fmt::Display) {
        let _ = write(&self.stderr, format_args!("{text}\n"));
    }

    /// Writes bytes to stdout.
    pub fn write_all(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stream = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(bytes).map_err(|error| unwritable(&error))
    }

    /// Whether a signal has asked the program to end. Long work that blocks looks at it, cleans up and returns.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Says that a signal has asked the program to end.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// Asks a question that `y` answers with yes, in docker's words and on stdin; anything else, the end of the input
    /// included, is no.
    pub async fn confirm(&self, question: &str) -> Result<bool, Failure> {
        self.print(format_args!("{question} [y/N] "))?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A thread that nobody waits for: a signal must end the program though it is still reading.
        std::thread::spawn(move || {
            let mut answer = String::new();
            // A yes is short; more than that is none.
            let read = io::stdin().lock().take(MAX_ANSWER).read_line(&mut answer);
            let _ = sender.send(read.map(|_| answer));
        });
        let answer = receiver.await.map_err(|_| Failure::new("interrupted"))?;
        let answer = answer.map_err(|error| Failure::new(format_args!("cannot read the answer: {error}")))?;
        Ok(answer.trim().eq_ignore_ascii_case("y"))
    }
}

fn write(stream: &Mutex<Box<dyn Write + Send>>, text: fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
    stream.write_fmt(text).and_then(|()| stream.flush()).map_err(|error| unwritable(&error))
}

fn unwritable(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(Status::PIPE),
        _ => Failure::new(format_args!("cannot write the output: {error}")),
    }
}
