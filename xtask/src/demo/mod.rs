//! `cargo xtask demo`: Larder at work on this machine, with nothing made up.

mod progress;
mod shop;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use larder_tests::tools::{Tool, in_path};
use larder_tests::{
    ControlPlane, Error, Program, Registry, RegistryOptions, Scratch, larder, process, until,
};

use crate::steps::{cargo, human, megabytes, root, step};
use crate::tools;

/// The registry's address in manifests/samples/imagecache.yaml.
const SAMPLE_HOST: &str = "127.0.0.1:5050";
const SAMPLE_PORT: u16 = 5050;
const NODES: [(&str, &str); 3] = [("node-1", "web"), ("node-2", "web"), ("node-3", "batch")];

/// Everything that runs. Dropped in this order: who asks goes before who answers.
struct Stage {
    agents: Vec<Program>,
    operator: Program,
    registry: Registry,
    cluster: ControlPlane,
    scratch: Scratch,
}

/// Shows it; with `keep` stays afterwards until a signal comes.
pub fn run(keep: bool) -> anyhow::Result<()> {
    let start = Instant::now();
    step("programs that the demo needs", tools::ensure_control_plane)?;
    step("building larder-operator and larder-agent", || {
        cargo(&["build", "--quiet", "--package", "larder-operator", "--package", "larder-agent"])
    })?;
    let stage = Stage::set()?;
    let sample = stage.sample()?;
    println!("▸ kubectl apply -f manifests/samples/imagecache.yaml\n{}", indented(&sample));
    let applied = stage.cluster.apply(&sample)?;
    print!("{}", indented(&applied.stdout));
    step("images arrive", || progress::follow(&stage.cluster, &stage.programs()))?;
    stage.show()?;
    println!("▸ all done in {}", human(start.elapsed()));
    if keep {
        stage.keep();
    }
    stage.end()
}

impl Stage {
    fn set() -> anyhow::Result<Self> {
        let scratch = Scratch::new("demo")?;
        let cluster = step("control plane: etcd and kube-apiserver on loopback", || {
            let cluster = ControlPlane::start()?;
            cluster.install_crds()?;
            for (node, pool) in NODES {
                cluster.create_node(node, &[("pool", pool)])?;
            }
            println!("  {}, with Larder's definitions and {} Node objects", cluster.url(), NODES.len());
            Ok(cluster)
        })?;
        let registry = step("registry: Debian's docker-registry", || {
            let registry = registry()?;
            println!("  http://{}", registry.host());
            Ok(registry)
        })?;
        step("images of real files, pushed", || shop::push(&registry))?;
        let logs = scratch.folder("logs")?;
        let (operator, agents) = step("the operator, and an agent for each node", || {
            let operator = larder::operator(cluster.kubeconfig(), &logs)?;
            operator.start()?;
            let mut agents = Vec::new();
            for (node, _) in NODES {
                let agent = larder::agent(cluster.kubeconfig(), node, &store(&scratch, node), &logs)?;
                agent.start()?;
                agents.push(agent);
            }
            println!("  processes of this machine; logs in {}", logs.display());
            Ok((operator, agents))
        })?;
        Ok(Self { agents, operator, registry, cluster, scratch })
    }

    fn programs(&self) -> Vec<&Program> {
        std::iter::once(&self.operator).chain(&self.agents).collect()
    }

    /// The sample as it stands, but for the registry's port where that had to be another.
    fn sample(&self) -> anyhow::Result<String> {
        let path = root().join("manifests/samples/imagecache.yaml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let objects = text.split_once("---\n").map_or(text.as_str(), |(_, objects)| objects);
        Ok(objects.replace(SAMPLE_HOST, &self.registry.host()))
    }

    fn show(&self) -> anyhow::Result<()> {
        println!("▸ kubectl get imagecaches,nodeimagecaches");
        print!("{}", indented(&self.cluster.kubectl(&["get", "imagecaches,nodeimagecaches"])?.stdout));
        let requests = self.registry.requests()?;
        println!(
            "▸ the registry gave out {} blobs, {} in all: a layer once a node, however many images share it",
            requests.blob_gets(),
            megabytes(requests.blob_bytes())
        );
        let layout =
            format!("oci:{}:{}/shop/web:1.0", store(&self.scratch, "node-1").display(), self.registry.host());
        println!(
            "▸ skopeo reads node-1's store as it stands: skopeo inspect --format '{{{{.Digest}}}}' {layout}"
        );
        let args = ["inspect", "--format", "{{.Digest}}", &layout];
        let seen = process::run(&in_path("skopeo")?, &args, &[], b"")?.ok()?;
        print!("{}", indented(&seen.stdout));
        Ok(())
    }

    /// Stays until a signal ends the process.
    fn keep(&self) -> ! {
        let kubectl = Tool::Kubectl.path().unwrap_or_else(|_| PathBuf::from("kubectl"));
        let folder = kubectl.parent().unwrap_or_else(|| Path::new("."));
        println!("▸ it stays until you press Ctrl-C. In another terminal:\n");
        println!("    export KUBECONFIG={}", self.cluster.kubeconfig().display());
        println!("    export PATH={}:$PATH", folder.display());
        println!();
        println!("    kubectl get imagecaches,nodeimagecaches -o wide");
        println!("    kubectl explain imagecache.spec.images");
        println!("    kubectl label node node-3 pool=web --overwrite      # it gets the web images");
        println!("    kubectl describe nodeimagecache node-3");
        println!("    kubectl delete imagecache web                       # what nobody else wants goes");
        println!("    skopeo list-tags --tls-verify=false docker://{}/shop/web", self.registry.host());
        println!("    cat {}/index.json", store(&self.scratch, "node-1").display());
        println!("    tail -f {}/logs/*.log", self.scratch.path().display());
        loop {
            std::thread::park();
        }
    }

    /// Ends the operator and the agents in good order; the rest goes with the last reference.
    fn end(self) -> anyhow::Result<()> {
        step("stopping", || {
            for program in self.programs() {
                let status = program.terminate()?;
                if !status.success() {
                    bail!("a program did not end well on SIGTERM ({status}):\n{}", program.log_tail());
                }
            }
            drop(self);
            Ok(())
        })
    }
}

fn store(scratch: &Scratch, node: &str) -> PathBuf {
    scratch.path().join(node)
}

fn registry() -> anyhow::Result<Registry> {
    let on = |port| Registry::start(RegistryOptions { port, ..RegistryOptions::default() });
    match on(Some(SAMPLE_PORT)) {
        Err(Error::PortTaken(port)) => {
            println!("  port {port}, which the sample names, is in use: the sample is applied with another");
            Ok(on(None)?)
        }
        other => Ok(other?),
    }
}

fn indented(text: &str) -> String {
    text.lines().flat_map(|line| ["    ", line, "\n"]).collect()
}

/// Waits as long as work may take on a slow machine.
fn patiently<T>(what: &str, probe: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    Ok(until(what, Duration::from_secs(600), probe)?)
}
