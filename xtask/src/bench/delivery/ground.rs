//! A node of a real cluster, with Larder installed, and a registry.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use larder_tests::tools::Tool;
use larder_tests::wait::PATIENCE;
use larder_tests::{
    Cluster, ClusterOptions, ContainerdVersion, Node, NodeOptions, Program, Pushed, Registry,
    RegistryOptions, kubernetes, until,
};
use serde_json::json;

use super::Way;
use super::process::Process;
use crate::image;
use crate::steps::{root, step};
use crate::tools;

/// The `ImageCache` that comes and goes.
const CACHE: &str = "bench";
const AGENTS: &str = "larder-agents";
const SYSTEM: &str = "larder-system";
/// How long nothing is done between two runs. What the last one set off, such as the write of a status, is over by then.
const PAUSE: Duration = Duration::from_secs(4);

/// Where it is measured.
pub(super) struct Ground {
    // In the order in which they go.
    events: Program,
    pub(super) node: Arc<Node>,
    pub(super) registry: Registry,
    pub(super) cluster: Cluster,
}

impl Ground {
    /// Starts it all, as docs/install.md has it.
    pub(super) fn prepare(version: ContainerdVersion, built: bool) -> anyhow::Result<Self> {
        if let Some(reason) = kubernetes::unavailable() {
            bail!("no cluster can be started on this machine: {reason}");
        }
        step("programs that a cluster needs", tools::ensure_cluster)?;
        let output = root().join("target/bench-images");
        image::run(&image::Options::for_release(&output, built))?;
        let cluster = step("a cluster of one node", || {
            let nodes = vec![NodeOptions::new("node-1").containerd(version)];
            Ok(Cluster::start(ClusterOptions { nodes })?)
        })?;
        let node = cluster.node("node-1")?;
        let registry = cluster.start_registry(RegistryOptions { tls: true, ..RegistryOptions::default() })?;
        let events = node.machine().program("events", &Tool::Ctr.path()?, cluster.logs())?;
        let events = events.args(["--namespace", "k8s.io", "events"]);
        events.start()?;
        let ground = Self { events, node, registry, cluster };
        step("Larder: kubectl apply -k manifests/base", || ground.install(&output))?;
        Ok(ground)
    }

    fn install(&self, images: &Path) -> anyhow::Result<()> {
        let larder = root().join("target/release/larder");
        for name in ["larder-operator", "larder-agent"] {
            let archive = images.join(format!("{name}.tar")).display().to_string();
            self.node.run(&larder, &["load", "--quiet", "--input", &archive])?;
            let image = format!("ghcr.io/larder-dev/{name}:v{}", env!("CARGO_PKG_VERSION"));
            self.node.run(&larder, &["deliver", "--pin", &image])?;
        }
        let base = root().join("manifests/base").display().to_string();
        self.cluster.kubectl(&["apply", "-k", &base])?;
        for (namespace, program) in
            [(SYSTEM, "deployment/larder-operator"), (AGENTS, "daemonset/larder-agent")]
        {
            let status = ["rollout", "status", "--namespace", namespace, program, "--timeout=180s"];
            self.cluster.kubectl(&status)?;
        }
        Ok(())
    }

    /// The agent.
    pub(super) fn agent(&self) -> anyhow::Result<Process> {
        self.container("agent")
    }

    /// The operator.
    pub(super) fn operator(&self) -> anyhow::Result<Process> {
        self.container("operator")
    }

    /// containerd.
    pub(super) fn containerd(&self) -> anyhow::Result<Process> {
        let id = self.node.containerd().id().context("containerd does not run")?;
        Ok(Process::at(Path::new("/proc").join(id.to_string())))
    }

    /// The process of a container that runs.
    fn container(&self, name: &str) -> anyhow::Result<Process> {
        let name = format!("^{name}$");
        let list = ["ps", "--quiet", "--state", "Running", "--name", &name];
        let id = self.node.crictl(&list)?.ok()?.stdout;
        let inspect = ["inspect", "--output", "go-template", "--template", "{{.info.pid}}", id.trim()];
        let process = self.node.crictl(&inspect)?.ok()?.stdout;
        // As the node numbers its processes.
        Ok(Process::at(self.node.path(format!("/proc/{}", process.trim()))))
    }

    /// Has Larder bring an image.
    pub(super) fn apply(&self, pushed: &Pushed) -> anyhow::Result<()> {
        let cache = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
            "metadata": {"name": CACHE}, "spec": {"images": [{"image": pushed.name}]},
        });
        self.cluster.apply(&cache.to_string())?;
        Ok(())
    }

    /// Waits until CRI has the image, pinned. It is not asked before containerd has told of the name: to ask over and over
    /// would take the CPU that is to be measured.
    pub(super) fn wait_usable(&self, pushed: &Pushed) -> anyhow::Result<()> {
        let name = format!("\"name\":\"{}\"", pushed.name);
        let limit = PATIENCE * 5;
        until("containerd to tell of the image", limit, || {
            // What the runs before have left there ends with its removal.
            let log = self.events.log().ok()?;
            let last = log.lines().rfind(|line| line.contains(" /images/") && line.contains(&name))?;
            (!last.contains(" /images/delete ")).then_some(())
        })?;
        until("CRI to have the image, pinned", limit, || {
            let images = self.node.images().ok()?;
            images
                .iter()
                .any(|image| image["repoTags"][0] == pushed.name && image["pinned"] == true)
                .then_some(())
        })?;
        Ok(())
    }

    /// Waits until the `ImageCache` says that it is done.
    pub(super) fn wait_ready(&self) -> anyhow::Result<()> {
        let cache = format!("imagecache/{CACHE}");
        self.cluster.kubectl(&["wait", "--for=condition=Ready", &cache, "--timeout=600s"])?;
        Ok(())
    }

    /// Takes the image away as it came, and waits until nothing is left of it and the disk has nothing to do.
    pub(super) fn remove(&self, way: Way, pushed: &Pushed) -> anyhow::Result<()> {
        match way {
            Way::Larder => drop(self.cluster.kubectl(&["delete", "imagecache", CACHE])?),
            Way::Kubelet => drop(self.node.crictl(&["rmi", &pushed.name])?.ok()?),
        }
        until("the image to go", PATIENCE, || {
            let content = self.node.ctr(&["content", "ls", "--quiet"]).ok()?;
            let images = self.node.images().ok()?;
            let listed = images.iter().any(|image| image["repoTags"][0] == pushed.name);
            (!listed && !content.contains(pushed.digest.as_str())).then_some(())
        })?;
        self.node.sh("sync")?;
        std::thread::sleep(PAUSE);
        Ok(())
    }
}
