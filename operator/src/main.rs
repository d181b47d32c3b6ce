//! The operator's program: arguments, logs, signals. What it does is in the library.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use larder_daemon::LogFormat;
use larder_operator::{ElectionOptions, Options};
use larder_plan::RegistryPattern;

/// Turns ImageCaches into one NodeImageCache a node, and what the nodes report back into the ImageCaches' statuses.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The kubeconfig file to use. Without it: $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Whether replicas elect one among them that works. Default: yes, where the namespace for the Lease is known.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    leader_elect: Option<bool>,
    /// The namespace of the Lease. Default: the pod's own, unless there is a --kubeconfig.
    #[arg(long, value_name = "NAMESPACE")]
    leader_election_namespace: Option<String>,
    /// Where /healthz, /readyz and /metrics are answered. Default: port 8080 in a pod, nowhere with a --kubeconfig.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// How many objects are written at a time.
    #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// The namespace of the Secrets that ImageCaches name in pullSecrets, and of the Role that lets agents read them; the
    /// agents have the same argument. Default: the pod's own namespace, larder-system outside of a pod.
    #[arg(long, env = "LARDER_SECRETS_NAMESPACE", value_name = "NAMESPACE")]
    secrets_namespace: Option<String>,
    /// Registries from which ImageCaches may name images: registry.corp, or a part such as registry.corp/team, or
    /// *.corp.example with * for one part of a host's name; may be given several times. Default: all.
    #[arg(
        long = "allow-registry",
        env = "LARDER_ALLOWED_REGISTRIES",
        value_name = "REGISTRY[/PATH]",
        value_delimiter = ','
    )]
    allowed_registries: Vec<RegistryPattern>,
    /// How logs are written, to standard error. The variable `RUST_LOG` says what is logged.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// What is logged where `RUST_LOG` does not say. The client's own lines repeat what the operator says in context.
const LOGS: &str = "info,kube_client=off,kube_runtime=off";

/// Where a pod finds the name of its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The operator's namespace in the manifests, for an operator that runs outside of the cluster.
const SECRETS_NAMESPACE: &str = "larder-system";

/// Where probes and metrics are answered in a pod: on all addresses of both families, or of the one there is.
const IN_A_POD: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8080),
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080),
];

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    arguments.log_format.start(LOGS);
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", larder_operator::explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let client = larder_daemon::client(arguments.kubeconfig.as_deref()).await?;
    let options = arguments.options()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), instance = options.instance, "starting");
    let shutdown = larder_daemon::shutdown_signal().context("handling signals")?;
    Ok(larder_operator::run(client, options, shutdown).await?)
}

impl Arguments {
    fn options(self) -> anyhow::Result<Options> {
        // What a pod has around it counts only for an operator that works on the pod's own cluster.
        let is_in_pod = self.kubeconfig.is_none() && Path::new(NAMESPACE_FILE).is_file();
        let instance = instance()?;
        let own_namespace = if is_in_pod { Some(own_namespace()?) } else { None };
        let secrets_namespace = self.secrets_namespace.or_else(|| own_namespace.clone());
        let namespace = self.leader_election_namespace.or(own_namespace);
        let election = match (self.leader_elect, namespace) {
            (Some(false), _) | (None, None) => None,
            (_, Some(namespace)) => Some(ElectionOptions { namespace, identity: identity(&instance) }),
            (Some(true), None) => anyhow::bail!(
                "--leader-elect needs a namespace for its Lease: give --leader-election-namespace, or --leader-elect=false \
                 where only one operator runs"
            ),
        };
        let listen = match self.listen {
            Some(address) => vec![address],
            None if is_in_pod => IN_A_POD.to_vec(),
            None => Vec::new(),
        };
        Ok(Options {
            workers: self.workers.into(),
            listen,
            election,
            instance,
            secrets_namespace: secrets_namespace.unwrap_or_else(|| SECRETS_NAMESPACE.to_owned()),
            allowed: self.allowed_registries.into(),
        })
    }
}

fn own_namespace() -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(NAMESPACE_FILE).with_context(|| format!("reading {NAMESPACE_FILE}"))?;
    Ok(text.trim().to_owned())
}

/// The host's name, which in a pod is the pod's.
fn instance() -> anyhow::Result<String> {
    let file = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    Ok(name.trim().to_owned())
}

/// A name that no other process has: a container that was started anew in the same pod is another candidate.
fn identity(instance: &str) -> String {
    format!("{instance}_{:016x}", fastrand::u64(..))
}
