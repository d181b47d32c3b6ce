//! larder-agent: keeps on one node the images that its `NodeImageCache` asks for.

#![forbid(unsafe_code)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use larder_agent::{
    engine::{BackoffOptions, Engine, EngineOptions},
    logins::LoginsFile,
    node,
    secrets::ClusterSecrets,
};
use larder_daemon::LogFormat;
use larder_plan::refresh::Seed;
use larder_registry::{FirstOf, Registry, RegistryOptions};
use larder_runtime::{Choice, ConnectOptions};
use larder_store::Store;

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
    /// The folder that images' archives are loaded from; needed where an image is to come from one
    #[arg(long, env = "LARDER_IMPORT_DIR", default_value = "/var/lib/larder-import", value_name = "FOLDER")]
    import_dir: PathBuf,
    /// The folder that images' archives are saved to; needed where one is to be kept
    #[arg(long, env = "LARDER_EXPORT_DIR", default_value = "/var/lib/larder-export", value_name = "FOLDER")]
    export_dir: PathBuf,
    /// The container runtime that images are given to: auto, containerd, cri or none
    ///
    /// auto takes containerd's own API where it is served, else CRI, else none, and goes on looking where it finds none.
    /// While one that is named, or was found once, does not answer, images count as failed.
    #[arg(long, env = "LARDER_RUNTIME", default_value = "auto", value_name = "INTERFACE")]
    runtime: Choice,
    /// The runtime's socket; without it the usual places are tried
    #[arg(long, env = "LARDER_RUNTIME_ENDPOINT", value_name = "PATH")]
    runtime_endpoint: Option<PathBuf>,
    /// A folder on the disk where the runtime keeps images, to see how much of it is free
    ///
    /// Without it: in a container, the disk of the container's own root; else /var/lib/containerd or
    /// /var/lib/containers/storage, where there is one. Where it is not known, all is taken to be on the store's disk.
    #[arg(long, env = "LARDER_RUNTIME_ROOT", value_name = "FOLDER")]
    runtime_root: Option<PathBuf>,
    /// Logins for registries, a file of docker's config.json form such as a mounted secret; it may come, change and go at
    /// any time
    #[arg(
        long,
        env = "LARDER_LOGINS",
        default_value = "/etc/larder/logins/.dockerconfigjson",
        value_name = "FILE"
    )]
    logins: PathBuf,
    /// The namespace of the Secrets that ImageCaches name in pullSecrets: the operator's
    #[arg(long, env = "LARDER_SECRETS_NAMESPACE", default_value = "larder-system", value_name = "NAMESPACE")]
    secrets_namespace: String,
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
    /// How often, in seconds, store and runtime are checked for images that somebody else removed
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    check_interval: u64,
    /// How long, in seconds, an image that Larder did not bring must have been on the node, and unused, before a rule in
    /// spec.remove takes it away: kubelet pulls an image a while before it makes a container of it
    #[arg(long, env = "LARDER_REMOVAL_GRACE", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=86400))]
    removal_grace: u64,
    /// How long, in seconds, a registry may keep a pull waiting for bytes before the connection is given up and resumed
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    stall_timeout: u64,
    /// How logs are written
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

// More threads than these, and more memory for each of them, would serve nobody: what is heavy blocks, and has threads of
// its own.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.log_format.start("info");
    let stop = larder_daemon::shutdown_signal()?;
    let client = larder_daemon::client(args.kubeconfig.as_deref()).await?;
    let store = Store::open(&args.store)?;
    let secrets = Arc::new(ClusterSecrets::new(client.clone(), &args.secrets_namespace));
    let logins = FirstOf::new(vec![secrets.clone(), Arc::new(LoginsFile::new(&args.logins))]);
    let logins = Arc::new(logins);
    let registry = Registry::new(RegistryOptions {
        plain_http: args.insecure_registry,
        hosts_dir: Some(args.hosts_dir),
        credentials: logins.clone(),
        stall_timeout: Duration::from_secs(args.stall_timeout),
    })?;
    let options = EngineOptions {
        backoff: BackoffOptions { max: Duration::from_secs(args.max_backoff), ..BackoffOptions::default() },
        check_interval: Duration::from_secs(args.check_interval),
        removal_grace: Duration::from_secs(args.removal_grace),
        runtime_root: args.runtime_root,
        seed: Seed::of(&args.node_name),
        import_dir: Some(args.import_dir),
        export_dir: Some(args.export_dir),
        ..EngineOptions::default()
    };
    let runtime =
        ConnectOptions { choice: args.runtime, endpoint: args.runtime_endpoint, credentials: logins };
    tracing::info!(node = args.node_name, store = %args.store.display(), "starting");

    let engine = Engine::new(store, registry, options).with_runtime(runtime).with_pull_secrets(secrets);
    tokio::select! {
        ended = node::run(client, &args.node_name, engine) => Err(ended.into()),
        () = stop.cancelled() => {
            tracing::info!("stopping; what is under way goes on at the next start");
            Ok(())
        }
    }
}
