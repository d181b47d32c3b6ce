//! An agent whose disk, a small tmpfs, is too small: it says so, holds up nothing that fits, and goes on by itself when there
//! is space.

use std::path::{Path, PathBuf};

use larder_tests::{
    ControlPlane, Image, Layer, Program, Proxy, Registry, RegistryOptions, Scratch, larder, process::run,
    tools::in_path, until, wait::PATIENCE,
};
use serde_json::{Value, json};

use crate::private;

#[test]
fn an_image_that_does_not_fit_says_so_and_holds_up_no_other() {
    private::run("full_node::too_large");
}

#[test]
fn space_that_is_freed_is_used_at_once() {
    private::run("full_node::freed");
}

#[test]
fn what_fits_but_for_another_waits_for_that() {
    private::run("full_node::crowded");
}

/// A node, in a mount namespace.
struct Node {
    // In this order: programs end before what they talk to.
    agent: Program,
    _operator: Program,
    cluster: ControlPlane,
    registry: Registry,
    disk: PathBuf,
    _scratch: Scratch,
}

impl Node {
    fn start(size: &str) -> Self {
        let scratch = Scratch::new("disk-full").unwrap();
        let disk = scratch.folder("disk").unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &disk);
        let registry = Registry::start(RegistryOptions::default()).unwrap();
        let cluster = ControlPlane::start().unwrap();
        cluster.install_crds().unwrap();
        let operator = larder::operator(cluster.kubeconfig(), scratch.path()).unwrap();
        operator.start().unwrap();
        cluster.create_node("node", &[]).unwrap();
        let store = disk.join("store");
        let agent = larder::agent(cluster.kubeconfig(), "node", &store, scratch.path()).unwrap();
        let agent = agent.args(["--max-backoff", "2", "--check-interval", "2"]);
        agent.start().unwrap();
        Self { agent, _operator: operator, cluster, registry, disk, _scratch: scratch }
    }

    fn push(&self, name: &str, seed: u64, size: usize) -> String {
        let image = Image::builder().layer(&Layer::random(seed, size).unwrap()).build().unwrap();
        self.registry.push(&image, name, "v1").unwrap().name
    }

    fn apply(&self, name: &str, spec: &Value) {
        let cache = json!({
            "apiVersion": "larder.dev/v1alpha1",
            "kind": "ImageCache",
            "metadata": {"name": name},
            "spec": spec,
        });
        self.cluster.apply(&cache.to_string()).unwrap();
    }

    fn status(&self, name: &str) -> Option<Value> {
        self.cluster.get(&["imagecache", name]).ok().map(|cache| cache["status"].clone())
    }

    fn wait_failure(&self, name: &str, image: &str) -> String {
        let failure = until(&format!("{image} to have no room"), PATIENCE, || {
            let failures = self.status(name)?["failures"].as_array()?.clone();
            let is_it =
                |failure: &Value| failure["reason"] == "InsufficientDisk" && failure["image"] == image;
            failures.into_iter().find(is_it)
        });
        failure.unwrap()["message"].as_str().unwrap().to_owned()
    }

    fn wait_ready(&self, name: &str, image: &str) {
        until(&format!("{image} to be there"), PATIENCE, || ready(&self.status(name)?, image)).unwrap();
    }

    /// What interrupted pulls have left.
    fn leftovers(&self) -> Vec<PathBuf> {
        let private = self.disk.join("store/.larder");
        ["leases", "partial/sha256"]
            .iter()
            .flat_map(|folder| crate::look::files(&private.join(folder)))
            .collect()
    }

    /// Ends it: the disk is in use until then.
    fn end(self) {
        self.agent.kill();
        run(&in_path("umount").unwrap(), &[self.disk.to_str().unwrap()], &[], b"").unwrap().ok().unwrap();
    }
}

#[test]
#[ignore = "run by the test above, in a mount namespace"]
fn too_large() {
    if !private::is_inside() {
        return;
    }
    let node = Node::start("1m");
    let (large, small) = (node.push("large", 2, 3_000_000), node.push("small", 1, 200_000));
    let process = node.agent.id();
    node.apply("web", &json!({"images": [{"image": large}, {"image": small}]}));
    let message = node.wait_failure("web", &large);
    let disk = node.disk.to_str().unwrap();
    assert!(message.contains("free some space") && message.contains(disk), "{message}");
    assert!(message.contains("needs 3.0 MiB"), "{message}");
    node.wait_ready("web", &small);
    node.wait_failure("web", &large);
    assert_eq!(node.leftovers(), Vec::<PathBuf>::new(), "nothing is half done");

    mount(&["-o", "remount,size=64m"], &node.disk);
    node.wait_ready("web", &large);
    assert_eq!(node.agent.id(), process, "nobody had to start it anew");
    node.end();
}

#[test]
#[ignore = "run by the test above, in a mount namespace"]
fn freed() {
    if !private::is_inside() {
        return;
    }
    let node = Node::start("2m");
    let (old, new) = (node.push("old", 3, 900_000), node.push("new", 4, 900_000));
    node.apply("old", &json!({"images": [{"image": old}]}));
    node.wait_ready("old", &old);
    // Half of two MiB is to stay free: one of them fits. No try is due within this test.
    let retry = json!({"initialDelay": "1h"});
    node.apply("new", &json!({"images": [{"image": new}], "diskReserve": "50%", "retry": retry}));
    let message = node.wait_failure("new", &new);
    assert!(message.contains("1.0 MiB of them are kept free (50%)"), "{message}");
    node.cluster.kubectl(&["delete", "imagecache", "old"]).unwrap();
    node.wait_ready("new", &new);
    node.end();
}

#[test]
#[ignore = "run by the test above, in a mount namespace"]
fn crowded() {
    if !private::is_inside() {
        return;
    }
    let node = Node::start("4m");
    node.push("first", 5, 2_600_000);
    let second = node.push("second", 6, 2_200_000);
    let proxy = Proxy::start(&node.registry.host()).unwrap();
    proxy.limit_rate(Some(20_000));
    let first = format!("{}/first:v1", proxy.host());
    let state = |image: &str| {
        let object = node.cluster.get(&["nodeimagecache", "node"]).ok()?;
        let images = object["status"]["images"].as_array()?.clone();
        let found = images.into_iter().find(|entry| entry["image"] == image)?;
        found["state"].as_str().map(str::to_owned)
    };
    node.apply("first", &json!({"images": [{"image": first}]}));
    let is = |image: &str, expected: &str| (state(image)? == expected).then_some(());
    until("the first to arrive", PATIENCE, || is(&first, "Pulling")).unwrap();
    until("its first bytes", PATIENCE, || (proxy.bytes_for("/first/blobs/") > 100_000).then_some(()))
        .unwrap();
    let asked =
        || node.registry.requests().unwrap().count(|request| request.path.contains("/second/manifests/"));
    let pushes = asked();
    node.apply("second", &json!({"images": [{"image": second}]}));
    until("a try", PATIENCE, || (asked() > pushes).then_some(())).unwrap();
    until("the second to wait", PATIENCE, || is(&second, "Pending")).unwrap();
    let failures = node.status("second").unwrap()["failures"].clone();
    assert!(failures.as_array().is_none_or(Vec::is_empty), "it has not failed: {failures}");

    node.cluster.kubectl(&["delete", "imagecache", "first"]).unwrap();
    node.wait_ready("second", &second);
    node.end();
}

fn ready(status: &Value, image: &str) -> Option<()> {
    let images = status["images"].as_array()?;
    images.iter().any(|entry| entry["image"] == image && entry["nodesReady"] == 1).then_some(())
}

fn mount(args: &[&str], folder: &Path) {
    let args = [args, &[folder.to_str().unwrap()]].concat();
    run(&in_path("mount").unwrap(), &args, &[], b"").unwrap().ok().unwrap();
}
