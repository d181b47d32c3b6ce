//! Many of Larder's agents in one process: the same loops as in `larder-agent`, each with a store, a client of the API
//! server and a registry client of its own, and without a container runtime. `cargo xtask bench fleet` starts it.

#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use larder_agent::{
    engine::{Engine, EngineOptions},
    node,
};
use larder_daemon::LogFormat;
use larder_registry::{Registry, RegistryOptions};
use larder_store::Store;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

/// Many of Larder's agents in one process, to measure what they cost the control plane.
#[derive(Debug, Parser)]
struct Arguments {
    /// The kubeconfig file that all agents use
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// The folder in which each agent has its store, named after its node
    #[arg(long)]
    folder: PathBuf,
    /// How many agents
    #[arg(long)]
    nodes: usize,
    /// The number of the first node; nodes are called node-00000, node-00001, …
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// How often, in seconds, each agent looks at its store, besides whenever it has reason to: as larder-agent has it
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    check_interval: u64,
    /// How many agents are started in a second, as nodes do not all come up in one moment
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    starts: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    LogFormat::default().start("warn,larder_fleet=info");
    let stop = larder_daemon::shutdown_signal()?;
    let mut agents = JoinSet::new();
    let ended = tokio::select! {
        ended = start(&arguments, &mut agents) => ended,
        () = stop.cancelled() => Ok(()),
    };
    tracing::info!(agents = agents.len(), "started");
    ended?;
    run(agents, &stop).await
}

async fn start(arguments: &Arguments, agents: &mut JoinSet<(String, node::Ended)>) -> anyhow::Result<()> {
    let pause = Duration::from_secs(1) / u32::try_from(arguments.starts)?;
    for number in arguments.first..arguments.first + arguments.nodes {
        let node = format!("node-{number:05}");
        let engine = engine(&arguments.folder.join(&node), arguments.check_interval)?;
        let client = larder_daemon::client(Some(&arguments.kubeconfig)).await?;
        agents.spawn(async move {
            let ended = Box::pin(node::run(client, &node, engine)).await;
            (node, ended)
        });
        sleep(pause).await;
    }
    Ok(())
}

fn engine(folder: &Path, check_interval: u64) -> anyhow::Result<Engine> {
    let store = Store::open(folder).with_context(|| format!("the store in {}", folder.display()))?;
    let registry = Registry::new(RegistryOptions::default())?;
    let check_interval = Duration::from_secs(check_interval);
    Ok(Engine::new(store, registry, EngineOptions { check_interval, ..EngineOptions::default() }))
}

/// Until the signal comes. No agent ends before.
async fn run(mut agents: JoinSet<(String, node::Ended)>, stop: &CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        Some(ended) = agents.join_next() => {
            let (node, why) = ended.context("an agent panicked")?;
            Err(why).with_context(|| format!("the agent of {node}"))
        }
    }
}
