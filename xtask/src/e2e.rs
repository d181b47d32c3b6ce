//! `cargo xtask e2e`: the tests on a real cluster, or such a cluster to look at.

use std::path::{Path, PathBuf};

use anyhow::bail;
use larder_tests::tools::Tool;
use larder_tests::{Cluster, ClusterOptions, Registry, RegistryOptions, kubernetes};

use crate::steps::{cargo, human, step};
use crate::tools;

/// What is asked for.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run no tests: start the cluster, say how to use it, and stay until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// How many nodes the cluster has.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100))]
    nodes: u8,
    /// Run only the tests whose names contain this.
    #[arg(conflicts_with = "keep")]
    filter: Option<String>,
}

/// Runs the tests, or starts a cluster and stays.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(reason) = kubernetes::unavailable() {
        bail!("no cluster can be started on this machine: {reason}");
    }
    step("programs that a cluster needs", tools::ensure_cluster)?;
    if options.keep {
        return keep(options.nodes);
    }
    if options.nodes < 2 {
        bail!("the tests need two nodes or more; one alone is for --keep");
    }
    step("building", || cargo(&["build", "--quiet", "--workspace"]))?;
    let nodes = format!("env.LARDER_E2E_NODES='{}'", options.nodes);
    let mut args = vec!["--config", &nodes, "test", "--package", "larder-tests", "--test", "e2e", "--"];
    args.extend(options.filter.as_deref());
    cargo(&args)
}

fn keep(nodes: u8) -> anyhow::Result<()> {
    let cluster = step("a control plane and nodes", || Ok(Cluster::start(ClusterOptions::nodes(nodes))?))?;
    println!("  {nodes} nodes were Ready after {}", human(cluster.took()));
    let registry = step("a registry: Debian's docker-registry", || {
        Ok(cluster.start_registry(RegistryOptions { delete: true, ..RegistryOptions::default() })?)
    })?;
    explain(&cluster, &registry);
    loop {
        std::thread::park();
    }
}

fn explain(cluster: &Cluster, registry: &Registry) {
    let folder = |tool: Tool| {
        let program = tool.path().unwrap_or_else(|_| PathBuf::from(tool.file_name()));
        program.parent().unwrap_or_else(|| Path::new(".")).display().to_string()
    };
    let path = [Tool::Kubectl, Tool::Ctr, Tool::Crictl].map(folder).join(":");
    println!("▸ it stays until you press Ctrl-C. In another terminal:\n");
    println!("    export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("    export PATH={path}:$PATH\n");
    println!("    kubectl get nodes -o wide");
    println!(
        "    kubectl run box --image {} --image-pull-policy Never -it --rm",
        kubernetes::images::BUSYBOX
    );
    println!("    skopeo copy --dest-tls-verify=false SOURCE docker://{}/NAME:TAG", host_side(registry));
    println!("        nodes and pods know it as {}/NAME:TAG", registry.host());
    println!("\n  A shell on a node, with ctr, crictl and all else that this machine has:\n");
    for node in cluster.nodes() {
        println!("    {}    # {}", node.shell_command(), node.name());
    }
    println!("    ctr -n k8s.io images ls");
    println!("    crictl --runtime-endpoint unix:///run/containerd/containerd.sock images");
    println!("\n    tail -f {}/node-1/*.log", cluster.logs().display());
}

/// `127.0.0.1:PORT`.
fn host_side(registry: &Registry) -> String {
    let url = registry.url();
    url.split_once("://").map_or(url.clone(), |(_, host)| host.to_owned())
}
