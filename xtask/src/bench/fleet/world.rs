//! What is measured: a control plane, a registry, the operator, and agents.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use larder_tests::port::Port;
use larder_tests::{
    Access, ControlPlane, ControlPlaneOptions, Program, Registry, RegistryOptions, Scratch, until,
};
use serde_json::json;

use super::Options;
use crate::bench::delivery::process::Process;
use crate::steps::root;

/// The namespaces of the service accounts, as manifests/base has them.
const SYSTEM: &str = "larder-system";
const AGENTS: &str = "larder-agents";
/// The users that these service accounts are.
pub(super) const OPERATOR: &str = "system:serviceaccount:larder-system:larder-operator";
pub(super) const AGENT: &str = "system:serviceaccount:larder-agents:larder-agent";
/// Agents in one process, which has few file descriptors.
const AGENTS_A_PROCESS: usize = 1000;
/// The longest that anything may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(3 * 3600);

/// All of it. Dropped in this order: who asks goes before who answers.
pub(super) struct World {
    agents: Vec<Program>,
    operator: Program,
    port: Port,
    pub(super) registry: Registry,
    pub(super) plane: ControlPlane,
    stores: Scratch,
    logs: Scratch,
    agent_access: PathBuf,
    programs: PathBuf,
    check_interval: u16,
    pub(super) nodes: usize,
}

impl World {
    /// A control plane with `nodes` Node objects and Larder's definitions and rights, and a registry. Neither operator nor
    /// agents run yet.
    pub(super) fn start(nodes: usize, options: &Options, programs: &Path) -> anyhow::Result<Self> {
        let logs = Scratch::new("fleet-logs")?;
        let shared_memory = Path::new("/dev/shm");
        let stores = match &options.folder {
            Some(folder) => Scratch::in_folder(folder, "fleet")?,
            None if shared_memory.is_dir() => Scratch::in_folder(shared_memory, "fleet")?,
            None => Scratch::new("fleet")?,
        };
        let plane = ControlPlane::start_with(ControlPlaneOptions { audit: true })?;
        plane.install_crds()?;
        for file in ["namespaces", "operator-rights", "agent-rights"] {
            let path = root().join(format!("manifests/base/{file}.yaml")).display().to_string();
            plane.kubectl(&["apply", "--server-side", "-f", &path])?;
        }
        let operator_access = plane.kubeconfig_for(Access::ServiceAccount(SYSTEM, "larder-operator"))?;
        let agent_access = plane.kubeconfig_for(Access::ServiceAccount(AGENTS, "larder-agent"))?;
        let port = Port::free()?;
        let operator = Program::new("larder-operator", &programs.join("larder-operator"), logs.path())
            .args([Path::new("--kubeconfig"), &operator_access])
            .args(["--leader-elect=true", "--leader-election-namespace", SYSTEM, "--listen", &port.host()])
            .env("HOME", logs.path())
            .env("RUST_LOG", "warn");
        let world = Self {
            agents: Vec::new(),
            operator,
            port,
            registry: Registry::start(RegistryOptions::default())?,
            plane,
            stores,
            logs,
            agent_access,
            programs: programs.to_owned(),
            check_interval: options.check_interval,
            nodes,
        };
        world.create_nodes(0..nodes)?;
        Ok(world)
    }

    fn create_nodes(&self, numbers: impl Iterator<Item = usize>) -> anyhow::Result<()> {
        let nodes: Vec<_> = numbers
            .map(|number| {
                let metadata = json!({"name": node(number), "labels": {"pool": "fleet"}});
                json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
            })
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": nodes}).to_string();
        self.plane.try_kubectl(&["create", "-f", "-"], &list)?.ok()?;
        Ok(())
    }

    /// Starts the operator, and an agent for each node.
    pub(super) fn start_programs(&mut self) -> anyhow::Result<()> {
        self.operator.start()?;
        let mut first = 0;
        while first < self.nodes {
            let count = AGENTS_A_PROCESS.min(self.nodes - first);
            let fleet = self.programs.join("larder-fleet");
            let fleet = Program::new(&format!("fleet-{first}"), &fleet, self.logs.path())
                .args([Path::new("--kubeconfig"), &self.agent_access, Path::new("--folder")])
                .args([self.stores.path()])
                .args(["--nodes", &count.to_string(), "--first", &first.to_string()])
                .args(["--check-interval", &self.check_interval.to_string()])
                .env("HOME", self.logs.path())
                .env("NO_PROXY", "127.0.0.1,localhost");
            fleet.start()?;
            self.agents.push(fleet);
            first += count;
        }
        Ok(())
    }

    /// One more node, with an agent that is a process of its own, as on any node.
    pub(super) fn join(&mut self) -> anyhow::Result<()> {
        self.create_nodes(self.nodes..=self.nodes)?;
        let name = node(self.nodes);
        let agent = self.programs.join("larder-agent");
        let agent = Program::new("larder-agent", &agent, self.logs.path())
            .args([Path::new("--kubeconfig"), &self.agent_access, Path::new("--store")])
            .args([self.stores.path().join(&name)])
            .args(["--node-name", &name, "--runtime", "none"])
            .args(["--check-interval", &self.check_interval.to_string()])
            .env("HOME", self.logs.path())
            .env("LARDER_LOGINS", self.logs.path().join("none"))
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("RUST_LOG", "warn");
        agent.start()?;
        self.agents.push(agent);
        self.nodes += 1;
        Ok(())
    }

    /// Kills the operator, starts it anew, and waits until it has nothing left to do.
    pub(super) fn restart_operator(&self) -> anyhow::Result<()> {
        self.operator.restart()?;
        until("the operator to have looked at everything", PATIENCE, || {
            // Counted from the first look at a node on.
            let looked = self.metric("larder_reconcile_duration_seconds_count{")? >= self.nodes as f64;
            (looked && self.metric("larder_queue_keys ")? < 0.5).then_some(())
        })?;
        Ok(())
    }

    /// An error where an agent has ended. An operator that has is started anew, as kubelet would; says whether that was so.
    pub(super) fn look_after_programs(&self) -> anyhow::Result<bool> {
        for program in &self.agents {
            program.ensure_running()?;
        }
        let has_ended = self.operator.exit_status().is_some();
        if has_ended {
            println!("  the operator has ended; its last words:\n{}", self.operator.log_tail());
            self.operator.start()?;
        }
        Ok(has_ended)
    }

    /// The operator's process.
    pub(super) fn operator(&self) -> anyhow::Result<Process> {
        process(&self.operator)
    }

    /// The API server's process.
    pub(super) fn apiserver(&self) -> anyhow::Result<Process> {
        process(self.plane.apiserver())
    }

    /// The sum of the operator's series whose lines begin so.
    fn metric(&self, prefix: &str) -> Option<f64> {
        let text = self.metrics().ok()?.0;
        let values = text.lines().filter(|line| line.starts_with(prefix));
        Some(values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// How many pulls have failed on a node since its agent was started.
    pub(super) fn failed_pulls(&self, node: &str) -> anyhow::Result<u64> {
        let cache = self.plane.get(&["nodeimagecache", node])?;
        Ok(cache["status"]["pulls"]["failures"].as_u64().unwrap_or_default())
    }

    /// The operator's metrics, and the seconds that the answer took.
    pub(super) fn metrics(&self) -> anyhow::Result<(String, f64)> {
        let start = Instant::now();
        let mut stream = TcpStream::connect(self.port.host())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok((text, start.elapsed().as_secs_f64()))
    }

    /// How many files the agents' stores hold as blobs.
    pub(super) fn blobs(&self) -> anyhow::Result<usize> {
        let mut blobs = 0;
        for number in 0..self.nodes {
            let folder = self.stores.path().join(node(number)).join("blobs/sha256");
            blobs += std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?.count();
        }
        Ok(blobs)
    }

    /// Ends operator and agents in good order.
    pub(super) fn end(self) -> anyhow::Result<()> {
        for program in std::iter::once(&self.operator).chain(&self.agents) {
            let status = program.terminate()?;
            anyhow::ensure!(
                status.success(),
                "a program did not end well on SIGTERM ({status}):\n{}",
                program.log_tail()
            );
        }
        Ok(())
    }
}

fn node(number: usize) -> String {
    format!("node-{number:05}")
}

fn process(program: &Program) -> anyhow::Result<Process> {
    let id = program.id().context("a program has ended")?;
    Ok(Process::at(Path::new("/proc").join(id.to_string())))
}
