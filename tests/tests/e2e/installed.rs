//! That installing Larder is one command, and gives what the manifests say.

use std::collections::BTreeMap;

use larder_tests::{Kubectl, Node};
use serde_json::Value;

use crate::{
    fixture::together,
    larder::{AGENTS, SYSTEM, manifests},
};

#[test]
fn operator_and_agents_become_available() {
    let e2e = together();
    e2e.larder();
    let operator = e2e.cluster.get(&["deployment", "larder-operator", "--namespace", SYSTEM]).unwrap();
    assert_eq!(operator["status"]["availableReplicas"], 1);
    let agents = e2e.cluster.get(&["daemonset", "larder-agent", "--namespace", AGENTS]).unwrap();
    let count = e2e.cluster.nodes().len();
    assert_eq!(agents["status"]["numberAvailable"], count, "{agents:#}");
    for node in e2e.cluster.nodes() {
        let object = e2e.larder().node(node.name()).unwrap();
        let runtime = object["status"]["agent"]["runtime"].as_str().unwrap();
        assert!(runtime.starts_with("containerd 2."), "{runtime}");
        // Nobody pulled these.
        for name in e2e.larder().own_images() {
            let image = crate::larder::runtime_image(&node, name).unwrap();
            assert_eq!(image["pinned"], true, "{image:#}");
        }
    }
}

/// The resource versions of all that the base consists of.
fn versions(kubectl: &Kubectl) -> BTreeMap<String, Value> {
    let objects = kubectl.get(&["-k", &manifests("base")]).unwrap();
    let version = |item: &Value| {
        let version = match item["kind"].as_str() {
            // Their status changes with those who work.
            Some("Deployment" | "DaemonSet") => &item["metadata"]["generation"],
            _ => &item["metadata"]["resourceVersion"],
        };
        (format!("{} {}", item["kind"], item["metadata"]["name"]), version.clone())
    };
    objects["items"].as_array().unwrap().iter().map(version).collect()
}

#[test]
fn applying_it_again_changes_nothing() {
    let e2e = together();
    e2e.larder();
    let before = versions(&e2e.cluster);
    let again = e2e.cluster.kubectl(&["apply", "-k", &manifests("base")]).unwrap();
    assert_eq!(again.stderr, "");
    assert!(again.stdout.lines().all(|line| line.ends_with("unchanged")), "{}", again.stdout);
    assert_eq!(versions(&e2e.cluster), before);
}

/// What the kernel says of a container's process: the value of a field of `/proc/ID/status`.
fn kernels_word(node: &Node, container: &str, field: &str) -> String {
    let inspect = ["inspect", "--output", "go-template", "--template", "{{.info.pid}}", container];
    let id = node.crictl(&inspect).unwrap().ok().unwrap().stdout;
    let line = node.sh(&format!("grep ^{field}: /proc/{}/status", id.trim())).unwrap();
    line.split_once(':').unwrap().1.split_whitespace().next().unwrap().to_owned()
}

/// The manifests ask for little; this is whether the kernel has been told.
#[test]
fn agents_and_operator_may_do_little_on_their_nodes() {
    let e2e = together();
    e2e.larder();
    let mut seen = BTreeMap::new();
    for node in e2e.cluster.nodes() {
        for (container, user) in [("agent", "0"), ("operator", "65532")] {
            let name = format!("^{container}$");
            let list = ["ps", "--quiet", "--state", "Running", "--name", &name];
            for id in node.crictl(&list).unwrap().ok().unwrap().stdout.lines() {
                let word = |field| kernels_word(&node, id, field);
                assert_eq!(word("Uid"), user, "{container}");
                for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
                    assert_eq!(word(set), "0000000000000000", "{container}: {set}");
                }
                // A filter, and no way to more rights.
                assert_eq!((word("Seccomp"), word("NoNewPrivs")), ("2".to_owned(), "1".to_owned()));
                *seen.entry(container).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(seen, BTreeMap::from([("agent", e2e.cluster.nodes().len()), ("operator", 1)]));
}
