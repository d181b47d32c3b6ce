//! What the user may write.

use std::path::PathBuf;

use clap::{
    Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use larder_runtime::Choice;

use crate::verbs::{
    archives::ArchiveVerb, images::ImageVerb, registries::RegistryVerb, stores::StoreVerb,
    transfers::TransferVerb,
};

/// Docker's image commands on a layer store, without a daemon
#[derive(Debug, Parser)]
#[command(name = "larder", version, max_term_width = 100, subcommand_required = true)]
pub struct Cli {
    /// Flags of all commands.
    #[command(flatten)]
    pub globals: Globals,
    /// The command.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags of all commands.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The folder of the layer store [default: /var/lib/larder as root, else ~/.local/share/larder]
    #[arg(long, env = "LARDER_STORE", value_name = "DIR", global = true, hide_env_values = true)]
    pub store: Option<PathBuf>,
    /// Where registries are configured, in containerd's certs.d form
    #[arg(
        long,
        env = "LARDER_HOSTS_DIR",
        value_name = "DIR",
        global = true,
        default_value = "/etc/containerd/certs.d",
        hide_env_values = true
    )]
    pub hosts_dir: PathBuf,
    /// A registry that speaks plain HTTP; those on loopback do without being named
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub insecure_registry: Vec<String>,
    /// How long, in seconds, a registry may keep us waiting for bytes before the connection is given up and resumed
    #[arg(
        long,
        env = "LARDER_STALL_TIMEOUT",
        value_name = "SECONDS",
        global = true,
        default_value_t = larder_registry::STALL_TIMEOUT.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=3600),
        hide_env_values = true
    )]
    pub stall_timeout: u64,
    /// The container runtime: auto, containerd, cri or none [default: auto for the store of a node, /var/lib/larder, and
    /// for stores that were used with a runtime; none for others]
    #[arg(
        long,
        env = "LARDER_RUNTIME",
        value_name = "KIND",
        global = true,
        value_parser = PossibleValuesParser::new(["auto", "containerd", "cri", "none"])
            .try_map(|text| text.parse::<Choice>()),
        hide_possible_values = true,
        hide_env_values = true
    )]
    pub runtime: Option<Choice>,
    /// The container runtime's socket [default: where containerd, k3s, CRI-O and others have it]
    #[arg(
        long,
        env = "LARDER_RUNTIME_ENDPOINT",
        value_name = "SOCKET",
        global = true,
        hide_env_values = true
    )]
    pub runtime_endpoint: Option<PathBuf>,
    /// Say on stderr what is being done
    #[arg(long, short = 'D', global = true)]
    pub debug: bool,
}

/// All commands. Those that docker has both as `docker image VERB` and as `docker VERB` are known by both here too.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Commands on images
    #[command(flatten)]
    Images(ImageVerb),
    /// Commands that move images to and from registries, and to the container runtime.
    #[command(flatten)]
    Transfers(TransferVerb),
    /// Commands that move images to and from files.
    #[command(flatten)]
    Archives(ArchiveVerb),
    /// The same commands, as docker groups them
    #[command(subcommand_required = true)]
    Image {
        /// The command.
        #[command(subcommand)]
        verb: GroupedVerb,
    },
    /// Logins, and images by configuration.
    #[command(flatten)]
    Registries(RegistryVerb),
    /// Commands on the store as a whole.
    #[command(flatten)]
    Stores(StoreVerb),
}

/// What may follow `larder image`.
#[derive(Debug, Subcommand)]
pub enum GroupedVerb {
    /// Commands on images.
    #[command(flatten)]
    Images(ImageVerb),
    /// Commands that move images to and from registries, and to the container runtime.
    #[command(flatten)]
    Transfers(TransferVerb),
    /// Commands that move images to and from files.
    #[command(flatten)]
    Archives(ArchiveVerb),
}

/// The form in which a command reports; a flag of every command that lists or reports (`#[command(flatten)]`).
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Report {
    /// The form of the output
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    pub output: Form,
}

/// Forms of output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people, as docker prints it.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

impl Report {
    /// Whether JSON is asked for.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.output == Form::Json
    }
}
