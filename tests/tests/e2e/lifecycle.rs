//! Install, upgrade and uninstall, with kustomize and with Helm, as docs/install.md and docs/gitops.md have them. On a cluster
//! of its own, since what is shared stays installed.

use std::{ffi::OsStr, sync::Arc};

use larder_tests::{
    Cluster, ClusterOptions, Node, Ran, Registry, RegistryOptions, Scratch, process::run, tools::Tool, until,
    wait::PATIENCE,
};
use serde_json::{Value, json};

use crate::{
    fixture::assert_available,
    larder::{AGENTS, ImageCache, Larder, SYSTEM, manifests, push, runtime_image},
};

struct Place {
    cluster: Cluster,
    registry: Registry,
    larder: Larder,
    scratch: Scratch,
}

impl Place {
    fn new() -> Self {
        assert_available();
        let cluster = Cluster::start(ClusterOptions::nodes(1)).unwrap();
        let registry =
            cluster.start_registry(RegistryOptions { tls: true, ..RegistryOptions::default() }).unwrap();
        let larder = Larder::install(&cluster, &registry);
        Self { cluster, registry, larder, scratch: Scratch::new("lifecycle").unwrap() }
    }

    fn node(&self) -> Arc<Node> {
        self.cluster.nodes().remove(0)
    }

    fn kubectl(&self, args: &[&str]) -> String {
        self.cluster
            .kubectl(args)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.larder.describe()))
            .stdout
    }

    /// Runs kubectl as docs/use/upgrade.md and docs/use/uninstall.md have it, and prints what they show.
    fn show(&self, args: &[&str]) {
        println!("$ kubectl {}\n{}", args.join(" "), self.kubectl(args));
    }

    fn helm(&self, args: &[&str]) -> Ran {
        let folders = ["HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR"];
        let folder = self.scratch.path().as_os_str();
        let mut env: Vec<(&str, &OsStr)> = folders.map(|name| (name, folder)).to_vec();
        env.push(("KUBECONFIG", self.cluster.kubeconfig().as_os_str()));
        let ran = run(&Tool::Helm.path().unwrap(), args, &env, b"").unwrap().ok();
        ran.unwrap_or_else(|error| panic!("{error}\n{}", self.larder.describe()))
    }

    /// `kubectl get nodeimagecaches`, until IMAGES is 0/0.
    fn wait_nothing_wanted(&self) {
        let waited = until("nodes to have nothing to hold", PATIENCE, || {
            let status = &self.larder.node("node-1")?["status"];
            let unused = status["images"].as_array().is_none_or(Vec::is_empty);
            (status["summary"]["images"] == "0/0" && unused).then_some(())
        });
        waited.unwrap_or_else(|error| panic!("{error}\n{}", self.larder.describe()));
    }

    /// Whether the API server has such an object.
    fn has(&self, object: &[&str]) -> bool {
        self.cluster.get(object).is_ok()
    }

    fn pinned(&self, image: &str) -> Option<Value> {
        runtime_image(&self.node(), image).map(|image| image["pinned"].clone())
    }
}

#[test]
fn from_install_to_uninstall_with_kustomize_and_with_helm() {
    let place = Place::new();
    let app = push(&place.registry, "lifecycle/app", 9_100).name;
    let tool = push(&place.registry, "lifecycle/tool", 9_110).name;
    apply_and_wait(&place, &[&app]);

    // An upgrade replaces the programs. Images on the nodes are not touched, and nothing is fetched.
    let mark = place.registry.mark().unwrap();
    for program in ["deployment/larder-operator", "daemonset/larder-agent"] {
        let namespace = if program.starts_with("daemonset") { AGENTS } else { SYSTEM };
        place.kubectl(&["rollout", "restart", "--namespace", namespace, program]);
        place.show(&["rollout", "status", "--namespace", namespace, program]);
    }
    place.larder.wait_rolled_out();
    place.larder.wait_reported("node-1");
    place.show(&["get", "imagecaches,nodeimagecaches", "--output", "wide"]);
    assert_eq!(place.pinned(&app), Some(json!(true)));
    assert_eq!(place.registry.requests_since(mark).unwrap().to_vec(), []);

    // Uninstalled, and the images are left as if kubelet had pulled them.
    let retain = r#"{"spec":{"deletionPolicy":"Retain"}}"#;
    place.kubectl(&["patch", "imagecache", "lifecycle", "--type", "merge", "--patch", retain]);
    place.show(&["delete", "imagecaches", "--all"]);
    place.wait_nothing_wanted();
    place.show(&["get", "nodeimagecaches"]);
    let delete = ["delete", "deployment", "larder-operator", "--namespace", SYSTEM, "--cascade=foreground"];
    place.show(&delete);
    place.show(&["delete", "-k", &manifests("base"), "--ignore-not-found", "--timeout=180s"]);
    assert!(!place.has(&["namespace", SYSTEM]) && !place.has(&["namespace", AGENTS]));
    assert!(!place.has(&["crd", "imagecaches.larder.dev"]));
    assert_eq!(place.pinned(&app), Some(json!(false)), "it is there, and kubelet may collect it");

    // Installed with Helm, it takes that image up again, and brings another.
    let chart = manifests("helm/larder");
    let namespace = ["--namespace", SYSTEM];
    place.helm(&[&["install", "larder", &chart, "--create-namespace"][..], &namespace].concat());
    place.larder.wait_rolled_out();
    place.larder.wait_reported("node-1");
    apply_and_wait(&place, &[&app, &tool]);
    place.helm(&[&["upgrade", "larder", &chart, "--set", "operator.replicas=2"][..], &namespace].concat());
    place.larder.wait_rolled_out();
    assert_eq!(place.pinned(&app), Some(json!(true)));

    // Uninstalled, and the images are taken off the nodes, but for the one that was there before this Larder came. The
    // definitions stay.
    place.kubectl(&["delete", "imagecaches", "--all"]);
    place.wait_nothing_wanted();
    place.helm(&[&["uninstall", "larder", "--wait"][..], &namespace].concat());
    assert!(place.has(&["crd", "imagecaches.larder.dev"]) && !place.has(&["namespace", AGENTS]));
    assert_eq!((place.pinned(&tool), place.pinned(&app)), (None, Some(json!(false))));
    // What is left are the leases of Larder's own images, which a person has brought to the node.
    let leases = place.node().ctr(&["leases", "ls", "-q"]).unwrap();
    let of_images = leases.lines().filter(|lease| lease.starts_with("larder/image")).count();
    assert_eq!(of_images, place.larder.own_images().len(), "{leases}");
}

fn apply_and_wait(place: &Place, images: &[&str]) {
    let cache = ImageCache::apply(&place.cluster, "lifecycle", images);
    cache.wait_ready(&place.larder);
    for image in images {
        assert_eq!(place.pinned(image), Some(json!(true)));
    }
    // It is to stay.
    std::mem::forget(cache);
}
