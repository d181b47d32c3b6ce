//! One cluster for all scenarios of this target.
//!
//! A scenario begins with [`together`] or, when it disturbs nodes, with [`alone`]. It uses names of its own for what it
//! makes, and removes it: others run beside it and after it, in any order.

use std::{
    io::Write,
    ops::Deref,
    path::Path,
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use larder_tests::{Cluster, ClusterOptions, Kubectl, Registry, RegistryOptions, Scratch, kubernetes};

use crate::larder::Larder;

/// The cluster, and a private registry beside it.
pub struct Shared {
    larder: OnceLock<Larder>,
    /// With as many nodes as `LARDER_E2E_NODES` says, two otherwise: `node-1`, `node-2`, …
    pub cluster: Cluster,
    /// TLS with an authority of its own, and a login. All nodes trust it; the login is in the Secret [`PULL_SECRET`].
    pub registry: Registry,
}

impl Shared {
    /// Larder, installed by the first scenario that asks for it.
    pub fn larder(&self) -> &Larder {
        self.larder.get_or_init(|| Larder::install(&self.cluster, &self.registry))
    }
}

/// The name of the Secret, in the namespace `default`, with the registry's login.
pub const PULL_SECRET: &str = "e2e-registry";

/// Use of the shared cluster. When the scenario fails, the cluster's logs are kept.
pub struct E2e<Guard> {
    shared: &'static Shared,
    _nodes: Guard,
}

static NODES: RwLock<()> = RwLock::new(());

/// For scenarios that leave nodes alone. Several run at a time.
pub fn together() -> E2e<RwLockReadGuard<'static, ()>> {
    let nodes = NODES.read().unwrap_or_else(PoisonError::into_inner);
    E2e { shared: shared(), _nodes: nodes }
}

/// For scenarios that disturb nodes: stop, remove or add some. No other runs meanwhile. They leave them as they were.
pub fn alone() -> E2e<RwLockWriteGuard<'static, ()>> {
    let nodes = NODES.write().unwrap_or_else(PoisonError::into_inner);
    E2e { shared: shared(), _nodes: nodes }
}

impl<Guard> Deref for E2e<Guard> {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        self.shared
    }
}

impl<Guard> Drop for E2e<Guard> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.cluster.keep_logs();
        }
    }
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        assert_available();
        let count = std::env::var("LARDER_E2E_NODES").ok().map_or(2, |count| count.parse().unwrap());
        let cluster = Cluster::start(ClusterOptions::nodes(count)).unwrap();
        // Not `eprintln!`: that is shown for tests that fail alone.
        let took = format!("e2e: {count} nodes were Ready after {:.1} s\n", cluster.took().as_secs_f64());
        std::io::stderr().write_all(took.as_bytes()).unwrap();
        let options = RegistryOptions {
            login: Some(("puller".to_owned(), "s3cret of the e2e".to_owned())),
            tls: true,
            delete: true,
            ..RegistryOptions::default()
        };
        let registry = cluster.start_registry(options).unwrap();
        let login = Scratch::new("login").unwrap();
        let file = login.write("config.json", registry.docker_config()).unwrap();
        let from = format!("--from-file=.dockerconfigjson={}", file.display());
        let secret =
            ["create", "secret", "generic", PULL_SECRET, "--type=kubernetes.io/dockerconfigjson", &from];
        cluster.kubectl(&secret).unwrap();
        Shared { larder: OnceLock::new(), cluster, registry }
    })
}

/// Fails where no cluster can be started. `cargo xtask test` leaves this target out there, and says why.
pub fn assert_available() {
    if let Some(reason) = kubernetes::unavailable() {
        panic!("these tests start a real cluster, which can't be done here: {reason}");
    }
}

/// The cluster that `LARDER_E2E_KUBECONFIG` names, for the few scenarios that can do with any; the shared one otherwise.
pub fn any_cluster() -> Kubectl {
    match std::env::var_os("LARDER_E2E_KUBECONFIG") {
        Some(kubeconfig) => Kubectl::new(Path::new(&kubeconfig), &std::env::temp_dir()).unwrap(),
        None => Kubectl::clone(&together().cluster),
    }
}
