//! What runs: a control plane, a registry, operators and three agents, each behind a proxy that can misbehave.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use larder_tests::api::Change;
use larder_tests::wait::PATIENCE;
use larder_tests::{
    Api, ControlPlane, Killer, Program, Proxy, Registry, RegistryOptions, Scratch, larder, until,
};
use serde_json::{Value, json};

use super::keeper::Keeper;

/// The nodes. All have the label that the ImageCaches ask for.
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// How many objects an operator writes at a time, where nothing else is said: its own default.
pub const WORKERS: u16 = 16;
/// Where the operators' Lease is.
const NAMESPACE: &str = "larder-system";
/// Lines of each log that are shown where something went wrong.
const LOG_LINES: usize = 15;

/// How many operators there are, and whether they know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operators {
    /// One that is alone.
    Alone,
    /// Two, of which one leads.
    Elected,
    /// Two that both believe that they are alone: nobody should do this.
    Rivals,
}

/// An operator, and the proxy that it has for an API server.
pub struct Operator {
    pub program: Arc<Program>,
    pub proxy: Arc<Proxy>,
}

/// All of it. Dropped in this order: who asks goes before who answers.
pub struct Stage {
    pub keeper: Keeper,
    pub operators: Vec<Operator>,
    standing: (Operators, u16),
    agents: Vec<Arc<Program>>,
    /// The agents' API server.
    pub agents_proxy: Proxy,
    operator_proxies: [Arc<Proxy>; 2],
    /// For how long the API server is away where it is away for long.
    pub away: Duration,
    pub registry: Registry,
    pub api: Api,
    pub plane: ControlPlane,
    scratch: Scratch,
}

impl Stage {
    /// Starts all of it, with one operator.
    pub fn set(away: Duration) -> anyhow::Result<Self> {
        let plane = ControlPlane::start()?;
        plane.install_crds()?;
        plane.kubectl(&["create", "namespace", NAMESPACE])?;
        let scratch = Scratch::new("cluster-faults")?;
        let (registry, api) = (Registry::start(RegistryOptions::default())?, Api::new(&plane)?);
        let agents_proxy = Proxy::start_api(&plane)?;
        let operator_proxies = [Arc::new(Proxy::start_api(&plane)?), Arc::new(Proxy::start_api(&plane)?)];
        let keeper = Keeper::new();
        let kubeconfig = kubeconfig(&scratch, "agents", &agents_proxy)?;
        let mut agents = Vec::new();
        for node in NODES {
            plane.create_node(node, &[("pool", "web")])?;
            let store = store(scratch.path(), node);
            let agent =
                larder::agent(&kubeconfig, node, &store, scratch.path())?.args(["--max-backoff", "2"]);
            agent.start()?;
            let agent = Arc::new(agent);
            keeper.keep(&agent);
            agents.push(agent);
        }
        let mut stage = Self {
            keeper,
            operators: Vec::new(),
            standing: (Operators::Alone, WORKERS),
            agents,
            agents_proxy,
            operator_proxies,
            away,
            registry,
            api,
            plane,
            scratch,
        };
        let (operators, workers) = stage.standing;
        stage.start_operators(operators, workers)?;
        Ok(stage)
    }

    /// Has these operators work from now on, anew where there were others. Each writes so many objects at a time.
    pub fn operate(&mut self, operators: Operators, workers: u16) -> anyhow::Result<()> {
        if (operators, workers) != self.standing || operators == Operators::Rivals {
            self.start_operators(operators, workers)?;
        }
        Ok(())
    }

    fn start_operators(&mut self, operators: Operators, workers: u16) -> anyhow::Result<()> {
        for operator in self.operators.drain(..) {
            self.keeper.end(&operator.program);
        }
        self.standing = (operators, workers);
        // Whoever led has been killed: its Lease would be respected for a quarter of a minute.
        let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/larder-operator");
        self.api.change(&lease, Change::Delete)?;
        let number = if operators == Operators::Alone { 1 } else { 2 };
        for (place, proxy) in self.operator_proxies.iter().enumerate().take(number) {
            let name = format!("operator-{place}");
            let folder = self.scratch.folder(&name)?;
            let kubeconfig = kubeconfig(&self.scratch, &name, proxy)?;
            let election: &[&str] = match operators {
                Operators::Elected => &["--leader-election-namespace", NAMESPACE],
                Operators::Alone | Operators::Rivals => &["--leader-elect=false"],
            };
            let program = Arc::new(
                larder::operator(&kubeconfig, &folder)?
                    .args(election)
                    .args(["--workers", &workers.to_string()]),
            );
            program.start()?;
            self.keeper.keep(&program);
            self.operators.push(Operator { program, proxy: Arc::clone(proxy) });
        }
        Ok(())
    }

    /// All proxies to the API server that are in use.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.operators.iter().map(|operator| &*operator.proxy).chain([&self.agents_proxy])
    }

    /// Handles that kill an operator.
    pub fn killer(&self, place: usize) -> Option<Killer> {
        self.operators.get(place).map(|operator| operator.program.killer())
    }

    /// Takes all faults away.
    pub fn calm(&self) -> anyhow::Result<()> {
        self.proxies().for_each(Proxy::clear);
        if !self.plane.etcd().is_running() {
            self.plane.etcd().start()?;
        }
        if !self.plane.apiserver().is_running() {
            self.plane.start_apiserver()?;
        }
        self.ready()
    }

    /// Waits until the API server answers.
    pub fn ready(&self) -> anyhow::Result<()> {
        let answers = || self.api.get("/apis/larder.dev/v1alpha1/imagecaches").ok().flatten().map(drop);
        Ok(until("the API server to answer", PATIENCE, answers)?)
    }

    /// Waits until a leader that could not renew its Lease has ended, and been started again.
    pub fn gave_up(&self, before: u64) -> anyhow::Result<u64> {
        let restarts = || Some(self.keeper.restarts() - before).filter(|restarts| *restarts > 0);
        Ok(until("the leader to have ended", PATIENCE, restarts)?)
    }

    /// Waits until every program that has ended has been started again.
    pub fn all_run(&self) -> anyhow::Result<()> {
        Ok(until("all programs to run", PATIENCE, || self.keeper.all_run().then_some(()))?)
    }

    /// The layer store of a node.
    pub fn store(&self, node: &str) -> PathBuf {
        store(self.scratch.path(), node)
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let programs = self.operators.iter().map(|operator| &operator.program).chain(&self.agents);
        let mut text = String::new();
        for program in programs {
            let tail = program.log_tail();
            let lines: Vec<&str> = tail.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            text.extend([&program.log_file().display().to_string(), "\n", &last, "\n"]);
        }
        text
    }
}

fn store(folder: &Path, node: &str) -> PathBuf {
    folder.join(format!("store-{node}"))
}

/// A kubeconfig that leads to a proxy: it brings the credentials.
fn kubeconfig(scratch: &Scratch, name: &str, proxy: &Proxy) -> anyhow::Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "larder", "cluster": {"server": format!("http://{}", proxy.host())}}],
        "users": [{"name": "user", "user": {}}],
        "contexts": [{"name": "larder", "context": {"cluster": "larder", "user": "user"}}],
        "current-context": "larder",
    });
    Ok(scratch.write(&format!("{name}.kubeconfig"), config.to_string())?)
}

/// The names that a layer store says it holds.
pub fn held(store: &Path) -> anyhow::Result<BTreeSet<String>> {
    let text = match std::fs::read(store.join("index.json")) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).with_context(|| format!("reading the index of {}", store.display())),
    };
    let index: Value = serde_json::from_slice(&text)?;
    let manifests = index["manifests"].as_array().cloned().unwrap_or_default();
    let name =
        |entry: &Value| entry["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned);
    Ok(manifests.iter().filter_map(name).collect())
}
