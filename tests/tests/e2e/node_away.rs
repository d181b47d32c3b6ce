//! Nodes that go and come back, and nodes that come.

use larder_tests::{Cluster, ContainerdVersion, NodeOptions, Pod, PodOptions, until, wait::PATIENCE};

use crate::{
    fixture::alone,
    killed::{kill_container, running},
    larder::{ImageCache, push},
    slow::is_usable,
};

/// Starts a pod that may not pull.
fn assert_runs(cluster: &Cluster, name: &str, node: &str, image: &str) {
    let options = PodOptions::new(name).image(image).node(node);
    Pod::start(cluster, &options).unwrap().delete().unwrap();
}

#[test]
fn a_node_that_is_drained_and_returned_keeps_its_images() {
    let e2e = alone();
    let larder = e2e.larder();
    let pushed = push(&e2e.registry, "e2e/drained", 530);
    let cache = ImageCache::apply(&e2e.cluster, "drained", &[&pushed.name]);
    cache.wait_ready(larder);
    let mark = e2e.registry.mark().unwrap();

    let drain = ["drain", "node-1", "--ignore-daemonsets", "--force", "--timeout=120s"];
    e2e.cluster.kubectl(&drain).unwrap();
    // Its agent is still there, and says so.
    assert_eq!(larder.image_on("node-1", &pushed.name).unwrap()["state"], "Ready");
    e2e.cluster.kubectl(&["uncordon", "node-1"]).unwrap();
    larder.wait_rolled_out();
    cache.wait_ready(larder);
    assert_runs(&e2e.cluster, "after-the-drain", "node-1", &pushed.name);
    assert_eq!(e2e.registry.requests_since(mark).unwrap().len(), 0);
}

/// First kubelet alone; then all of the node's programs end, those in containers too, and start again.
#[test]
fn a_node_that_restarts_pulls_nothing() {
    let e2e = alone();
    let (larder, node) = (e2e.larder(), e2e.cluster.node("node-1").unwrap());
    let pushed = push(&e2e.registry, "e2e/restarted", 540);
    let cache = ImageCache::apply(&e2e.cluster, "restarted", &[&pushed.name]);
    cache.wait_ready(larder);
    let mark = e2e.registry.mark().unwrap();

    node.kubelet().restart().unwrap();
    assert_runs(&e2e.cluster, "after-kubelets-restart", "node-1", &pushed.name);

    let before = running(&node, "agent");
    node.kubelet().terminate().unwrap();
    for name in ["agent", "operator"] {
        for id in running(&node, name) {
            kill_container(&node, &id);
        }
    }
    node.containerd().kill();
    node.start_containerd().unwrap();
    node.kubelet().start().unwrap();
    until("the agent to run again", PATIENCE, || {
        let now = running(&node, "agent");
        (!now.is_empty() && now != before).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    larder.wait_rolled_out();
    cache.wait_ready(larder);
    assert!(is_usable(&node, &pushed.name));
    assert_runs(&e2e.cluster, "after-the-restart", "node-1", &pushed.name);
    assert_eq!(e2e.registry.requests_since(mark).unwrap().len(), 0);
}

/// Nobody asks for it. Its containerd is 1.7.
#[test]
fn a_node_that_joins_gets_its_images() {
    let e2e = alone();
    let larder = e2e.larder();
    let pushed = push(&e2e.registry, "e2e/joined", 550);
    let cache = ImageCache::apply(&e2e.cluster, "joined", &[&pushed.name]);
    cache.wait_ready(larder);
    let options = NodeOptions::new("node-late").containerd(ContainerdVersion::V17);
    let node = e2e.cluster.add_node(options).unwrap();
    larder.bring_to(&node);

    larder.wait_reported("node-late");
    let there = until("the image on the new node", PATIENCE, || {
        (larder.image_on("node-late", &pushed.name)?["state"] == "Ready").then_some(())
    });
    there.unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    assert!(is_usable(&node, &pushed.name));
    assert_runs(&e2e.cluster, "on-the-late-node", "node-late", &pushed.name);
    until("three nodes in the ImageCache", PATIENCE, || {
        let nodes = cache.get()["status"]["nodes"].clone();
        (nodes["selected"] == 3 && nodes["ready"] == 3).then_some(())
    })
    .unwrap();

    e2e.cluster.remove_node("node-late").unwrap();
    until("its object to go with it", PATIENCE, || larder.node("node-late").is_none().then_some(())).unwrap();
    let two = until("two nodes in the ImageCache", PATIENCE, || {
        (cache.get()["status"]["nodes"]["selected"] == 2).then_some(())
    });
    two.unwrap();
}
