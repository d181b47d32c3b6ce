//! A real cluster on one machine: a control plane, and nodes with kubelet, containerd, runc and kube-proxy.
//!
//! Each node is a [`Machine`](machine::Machine): its own `/run`, `/var`, `/etc`, processes and network, joined to the others by a bridge.
//! It needs root, and takes seconds to come up. Whatever ends the process that started it ends all of it.

pub mod addresses;
mod ground;
pub mod images;
mod node;
mod options;
mod plane;
mod pod;
mod settings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crate::cleanup::lock;
use crate::machine::{self, Network, Relay};
use crate::process::{Program, run};
use crate::registry::{Place, Registry, RegistryOptions, plain_hosts_toml};
use crate::tools::{in_path, is_root};
use crate::wait::{PATIENCE, until};
use crate::{Error, Kubectl, Result};

use ground::Ground;
use node::Materials;
pub use node::Node;
pub use options::{ClusterOptions, ContainerdVersion, NodeOptions};
use plane::{Plane, Site};
pub use pod::{Pod, PodOptions};

/// A cluster. Dropping it ends it, and removes all that it made; after a panic, its logs are kept.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they go.
    nodes: Mutex<BTreeMap<String, Arc<Node>>>,
    plane: Plane,
    site: Site,
    ground: Ground,
    archives: Vec<(&'static str, PathBuf)>,
    /// Files that every node has, those that join later included: what lets them use registries.
    files: Mutex<Vec<(PathBuf, Vec<u8>)>>,
    next: AtomicU8,
    took: Duration,
}

/// Why no cluster can be started on this machine, if none can.
#[must_use]
pub fn unavailable() -> Option<String> {
    if !is_root() {
        return Some("it needs root: nodes are namespaces with mounts of their own".to_owned());
    }
    let overlay = std::fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains("overlay"));
    if !overlay {
        return Some("this kernel has no overlay file system".to_owned());
    }
    if machine::cgroup_hierarchies().is_ok_and(|found| found.is_empty()) {
        return Some("no control groups are mounted on /sys/fs/cgroup".to_owned());
    }
    let try_out = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "true"];
    match in_path("unshare").and_then(|unshare| run(&unshare, &try_out, &[], b"")?.ok()) {
        Ok(_) => None,
        Err(error) => Some(format!("no namespaces can be made here: {error}")),
    }
}

impl Cluster {
    /// Starts one, and waits until all its nodes are Ready.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        let start = Instant::now();
        let ground = Ground::new()?;
        // An error here ends what was started first, and then gives up the ground.
        let built = build(&ground, options.nodes).inspect_err(|_| ground.keep_logs());
        let Built { site, plane, nodes, archives } = built?;
        let nodes: BTreeMap<_, _> =
            nodes.into_iter().map(|node| (node.name().to_owned(), Arc::new(node))).collect();
        let mut cluster = Self {
            next: AtomicU8::new(u8::try_from(nodes.len() + 1).unwrap_or(u8::MAX)),
            nodes: Mutex::new(nodes),
            plane,
            site,
            ground,
            archives,
            files: Mutex::default(),
            took: Duration::ZERO,
        };
        cluster.wait_until_usable().inspect_err(|_| cluster.keep_logs())?;
        cluster.took = start.elapsed();
        Ok(cluster)
    }

    /// How long the start took, until all nodes were Ready.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// A node joins. Gives it once it is Ready.
    pub fn add_node(&self, options: NodeOptions) -> Result<Arc<Node>> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let node = Arc::new(Node::prepare(options, number, &self.materials())?);
        node.write_all(&lock(&self.files))?;
        lock(&self.nodes).insert(node.name().to_owned(), Arc::clone(&node));
        node.join()?;
        self.wait_ready(node.name())?;
        Ok(node)
    }

    /// Ends a node, as a power cut would, and deletes its Node object.
    pub fn remove_node(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        lock(&self.nodes).remove(name);
        node.unplug(&self.site)?;
        self.kubectl(&["delete", "node", name]).map(drop)
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<Arc<Node>> {
        let found = lock(&self.nodes).get(name).cloned();
        found.ok_or_else(|| Error::Data { what: "cluster", problem: format!("no node {name}") })
    }

    /// All nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        lock(&self.nodes).values().cloned().collect()
    }

    /// Waits until a node is Ready.
    pub fn wait_ready(&self, name: &str) -> Result<()> {
        let is_ready = || {
            // Raw: kubectl would ask for all of the API's kinds first, at a moment when all are busy.
            let node = self.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{name}")]).ok()?.json().ok()?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(())
        };
        until(&format!("node {name} to be Ready"), PATIENCE, is_ready)
    }

    /// Starts a registry beside the control plane, which all nodes know how to reach, and those that join later.
    pub fn start_registry(&self, options: RegistryOptions) -> Result<Registry> {
        let place = Place {
            network: self.network().clone(),
            address: addresses::CONTROL_PLANE.into(),
            folder: self.folder()?.to_owned(),
        };
        let registry = Registry::start(RegistryOptions { place: Some(place), ..options })?;
        self.write_on_nodes(&node::trust(&registry)?)?;
        Ok(registry)
    }

    /// Lets nodes and pods reach what listens on this machine's loopback, such as a [`Proxy`](crate::Proxy): by the same
    /// port, on the control plane's address, for as long as the answer lives. To all nodes, and those that join later, it
    /// is a registry of plain HTTP.
    pub fn expose(&self, host: &str) -> Result<Relay> {
        let target: SocketAddr = host.parse().map_err(Error::data("address on loopback"))?;
        let address = SocketAddr::new(addresses::CONTROL_PLANE.into(), target.port());
        let relay = Relay::outward(self.network(), address, target)?;
        let file = Path::new("/etc/containerd/certs.d").join(relay.host()).join("hosts.toml");
        self.write_on_nodes(&[(file, plain_hosts_toml(&relay.host()).into_bytes())])?;
        Ok(relay)
    }

    /// Writes files on all nodes, and on those that join later.
    pub fn write_on_nodes(&self, files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
        lock(&self.files).extend(files.iter().cloned());
        self.nodes().iter().try_for_each(|node| node.write_all(files))
    }

    /// The control plane's network.
    #[must_use]
    pub fn network(&self) -> &Network {
        self.site.network()
    }

    /// The API server's URL for this process. Nodes and pods use other addresses of it.
    #[must_use]
    pub fn url(&self) -> String {
        self.plane.url()
    }

    /// The API server's process.
    #[must_use]
    pub fn apiserver(&self) -> &Program {
        &self.plane.apiserver
    }

    /// The controllers' process.
    #[must_use]
    pub fn controllers(&self) -> &Program {
        &self.plane.controllers
    }

    /// The scheduler's process.
    #[must_use]
    pub fn scheduler(&self) -> &Program {
        &self.plane.scheduler
    }

    /// etcd's process.
    #[must_use]
    pub fn etcd(&self) -> &Program {
        &self.plane.etcd
    }

    /// Where the logs of all parts are: the control plane's here, each node's in a folder of its own, which also is the
    /// parent of its `/var/log` (`var-log/pods`).
    #[must_use]
    pub fn logs(&self) -> &Path {
        self.ground.logs()
    }

    /// Has the logs kept when the cluster ends, and says where they will be. A panic in the thread that drops the cluster
    /// does that by itself.
    pub fn keep_logs(&self) {
        self.ground.keep_logs();
    }

    /// A folder that goes with the cluster, however that ends.
    pub fn folder(&self) -> Result<&Path> {
        Ok(self.ground.scratch()?.path())
    }

    fn materials(&self) -> Materials<'_> {
        Materials { site: &self.site, ground: &self.ground, archives: &self.archives }
    }

    /// Nodes are Ready, and pods may be created: the controllers have made the first service account.
    fn wait_until_usable(&self) -> Result<()> {
        for node in self.nodes() {
            node.join()?;
        }
        for node in self.nodes() {
            self.wait_ready(node.name())?;
        }
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        until("the default service account", PATIENCE, || self.kubectl(&["get", "--raw", account]).ok())
            .map(drop)
    }
}

/// With what is in it one can use `kubectl`, as the administrator.
impl Deref for Cluster {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.plane.kubectl
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Others may still hold a node.
        for node in self.nodes() {
            node.machine().kill();
        }
    }
}

/// What runs, before it is a cluster.
struct Built {
    nodes: Vec<Node>,
    plane: Plane,
    site: Site,
    archives: Vec<(&'static str, PathBuf)>,
}

/// Starts the control plane and, at the same time, the nodes up to the point where they need it.
fn build(ground: &Ground, options: Vec<NodeOptions>) -> Result<Built> {
    let site = Site::start(ground.logs())?;
    let archives = images::write(ground.scratch()?)?;
    let (plane, nodes) = std::thread::scope(|scope| {
        let plane = scope.spawn(|| Plane::start(&site, ground.scratch()?, ground.logs()));
        let nodes: Vec<_> = (1..)
            .zip(options)
            .map(|(number, options)| {
                let from = Materials { site: &site, ground, archives: &archives };
                scope.spawn(move || Node::prepare(options, number, &from))
            })
            .collect();
        let nodes: Result<Vec<_>> = nodes.into_iter().map(joined).collect();
        Ok((joined(plane)?, nodes?))
    })?;
    Ok(Built { nodes, plane, site, archives })
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let panicked =
        |_| Error::Data { what: "cluster", problem: "a thread that started a part panicked".to_owned() };
    thread.join().map_err(panicked)?
}
