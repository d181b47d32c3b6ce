//! The operator's program: arguments, logs, signals. What it does is in the library.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Turns ImageCaches into one NodeImageCache a node, and what the nodes report back into the ImageCaches' statuses.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The kubeconfig file to use. Without it: $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// What is logged where `RUST_LOG` does not say. The client's own lines repeat what the operator says in context.
const LOGS: &str = "info,kube_client=off,kube_runtime=off";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGS));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.json().init();
    }
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", larder_operator::explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Before anything can want TLS. It fails only where a provider is installed already, and that will do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = match arguments.kubeconfig {
        Some(file) => {
            let kubeconfig =
                Kubeconfig::read_from(&file).with_context(|| format!("reading {}", file.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("finding the API server; --kubeconfig FILE names one")?,
    };
    let client = Client::try_from(config).context("setting up the client for the API server")?;
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        stop.cancel();
    });
    Ok(larder_operator::run(client, shutdown).await?)
}
