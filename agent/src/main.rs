//! larder-agent: keeps on one node the images that its `NodeImageCache` asks for.

#![forbid(unsafe_code)]

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Parser;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use larder_agent::{
    cluster,
    engine::{BackoffOptions, Engine, EngineOptions, Report},
};
use larder_registry::{Registry, RegistryOptions};
use larder_store::Store;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

/// Keeps on this node the container images that its NodeImageCache asks for.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// The node's name, which is also the NodeImageCache's
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// The folder of the layer store
    #[arg(long, env = "LARDER_STORE", default_value = "/var/lib/larder")]
    store: PathBuf,
    /// A kubeconfig file; without it $KUBECONFIG, ~/.kube/config or the pod's service account
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// A registry (host:port) that speaks plain HTTP; those on loopback do without being named
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// Mirrors, authorities and client certificates of registries, in containerd's certs.d form
    #[arg(long, env = "LARDER_HOSTS_DIR", default_value = "/etc/containerd/certs.d")]
    hosts_dir: PathBuf,
    /// The longest wait, in seconds, before an image that failed is tried again
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=3600))]
    max_backoff: u64,
    /// How often, in seconds, the store is checked for images that somebody else removed
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    check_interval: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    start_logging();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed"))?;
    let store = Store::open(&args.store)?;
    let client = client(args.kubeconfig).await?;
    let registry = Registry::new(RegistryOptions {
        plain_http: args.insecure_registry,
        hosts_dir: Some(args.hosts_dir),
        ..RegistryOptions::default()
    })?;
    let options = EngineOptions {
        backoff: BackoffOptions { max: Duration::from_secs(args.max_backoff), ..BackoffOptions::default() },
        check_interval: Duration::from_secs(args.check_interval),
        ..EngineOptions::default()
    };
    tracing::info!(node = args.node_name, store = %args.store.display(), "starting");

    let (desired, desired_images) = watch::channel(None);
    let (reporter, reports) = watch::channel(Report::default());
    let (object, latest) = watch::channel(None);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = cluster::follow(client.clone(), &args.node_name, desired, object) => ended?,
        () = Engine::new(store, registry, options).run(desired_images, reporter) => {}
        () = cluster::write_status(client, &args.node_name, reports, latest) => {}
        _ = terminate.recv() => return stopped(),
        _ = tokio::signal::ctrl_c() => return stopped(),
    }
    anyhow::bail!("a task that runs for ever ended")
}

#[allow(clippy::unnecessary_wraps, reason = "what main returns")]
fn stopped() -> anyhow::Result<()> {
    tracing::info!("stopping; downloads resume at the next start");
    Ok(())
}

async fn client(kubeconfig: Option<PathBuf>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(&path).with_context(|| format!("reading {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("finding the cluster: pass --kubeconfig")?,
    };
    Ok(Client::try_from(config)?)
}

/// Human lines on a terminal, JSON elsewhere; `RUST_LOG` filters, `info` by default.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        logs.init();
    } else {
        logs.json().init();
    }
}
