//! That nodes can be added, disturbed and removed, and what their parts look like from outside.

use larder_tests::{
    ContainerdVersion, NodeOptions, Pod, PodOptions, kubernetes::images::PAUSE, until, wait::PATIENCE,
};
use serde_json::json;

use crate::fixture::{alone, together};

#[test]
fn a_third_node_joins_with_labels_and_taints_and_goes() {
    let e2e = alone();
    let options = NodeOptions::new("late")
        .containerd(ContainerdVersion::V17)
        .label("pool", "late")
        .taint("reserved", "yes", "NoSchedule")
        .kubelet(json!({"maxPods": 7}));
    let node = e2e.cluster.add_node(options).unwrap();
    let object = e2e.cluster.get(&["node", "late"]).unwrap();
    assert_eq!(object["metadata"]["labels"]["pool"], "late");
    assert_eq!(object["status"]["capacity"]["pods"], "7");
    let version = object["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap();
    assert!(version.starts_with("containerd://1.7."), "{version}");

    let tolerant = json!({
        "nodeSelector": {"pool": "late"},
        "tolerations": [{"key": "reserved", "operator": "Exists"}],
    });
    let pod = Pod::start(&e2e.cluster, &PodOptions::new("tolerant").spec(tolerant)).unwrap();
    assert_eq!(pod.node().unwrap(), "late");
    pod.exec(&["true"]).unwrap();
    pod.delete().unwrap();

    // A private registry that was there before the node was.
    assert!(node.path(format!("/etc/containerd/certs.d/{}/ca.crt", e2e.registry.host())).exists());
    e2e.cluster.remove_node("late").unwrap();
    assert!(!node.kubelet().is_running() && !node.containerd().is_running());
    assert!(e2e.cluster.node("late").is_err());
    assert!(!node.path("/etc").exists(), "its files go with it");
}

#[test]
fn pods_outlive_containerd_and_kubelet() {
    let e2e = alone();
    let node = e2e.cluster.node("node-1").unwrap();
    let pod = Pod::start(&e2e.cluster, &PodOptions::new("survivor").node("node-1")).unwrap();
    let started =
        || pod.get().unwrap()["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].clone();
    let before = started();

    let old = node.containerd().id().unwrap();
    node.containerd().kill();
    node.kubelet().terminate().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{old}")).exists(), "killed, and gone");
    node.start_containerd().unwrap();
    node.kubelet().start().unwrap();
    until("exec after the restart", PATIENCE, || pod.exec(&["true"]).ok()).unwrap();
    assert_eq!((before, json!(0)), (started(), restarts(&pod)));
}

fn restarts(pod: &Pod) -> serde_json::Value {
    pod.get().unwrap()["status"]["containerStatuses"][0]["restartCount"].clone()
}

#[test]
fn the_image_of_sandboxes_is_pinned() {
    let e2e = together();
    for node in e2e.cluster.nodes() {
        let images = node.images().unwrap();
        let pause = images.iter().find(|image| image["repoTags"][0] == PAUSE).unwrap();
        assert_eq!(pause["pinned"], true, "{pause:#}");
    }
}

/// What tests of pinning rest on.
#[test]
fn kubelet_can_be_made_to_collect_images() {
    let e2e = alone();
    let node = e2e.cluster.add_node(NodeOptions::new("full").short_of_disk()).unwrap();
    assert!(node.images().unwrap().len() >= 2);
    node.collect_images().unwrap();
    let images = node.images().unwrap();
    let names: Vec<_> = images.iter().map(|image| image["repoTags"][0].as_str().unwrap()).collect();
    assert_eq!(names, [PAUSE]);
    e2e.cluster.remove_node("full").unwrap();
}

/// What a node writes to the usual places is its own.
#[test]
fn nodes_share_no_files() {
    let e2e = together();
    let [first, second] = ["node-1", "node-2"].map(|name| e2e.cluster.node(name).unwrap());
    for folder in ["/run", "/etc", "/var/lib", "/var/log", "/var/lib/larder"] {
        let mark = format!("{folder}/mark-of-node-1");
        first.sh(&format!("mkdir -p {folder}; echo $(hostname) >{mark}")).unwrap();
        assert_eq!(std::fs::read_to_string(first.path(&mark)).unwrap(), "node-1\n");
        assert!(!second.path(&mark).exists() && !std::path::Path::new(&mark).exists(), "{mark}");
        first.sh(&format!("rm {mark}")).unwrap();
    }
}
