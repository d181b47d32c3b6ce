//! Operator and API server, gone for a while.

use std::time::Duration;

use larder_tests::{Pod, PodOptions, until, wait::PATIENCE};
use serde_json::json;

use crate::{
    fixture::alone,
    killed::{incarnation, kill_container, running},
    larder::{ImageCache, push},
};

#[test]
fn an_operator_that_is_killed_goes_on() {
    let e2e = alone();
    let larder = e2e.larder();
    let [first, second] = [560, 570].map(|seed| push(&e2e.registry, "e2e/killed-operator", seed));
    // By digest: the tag is the second's by now.
    let first = format!("{}@{}", first.repository, first.digest);
    let cache = ImageCache::apply(&e2e.cluster, "killed-operator", &[&first]);
    cache.wait_ready(larder);
    let mut killed = 0;
    for node in e2e.cluster.nodes() {
        for id in running(&node, "operator") {
            kill_container(&node, &id);
            killed += 1;
        }
    }
    assert_eq!(killed, 1);
    cache.edit(&[&first, &second.name]);
    for node in ["node-1", "node-2"] {
        until("the second image", PATIENCE, || {
            (larder.image_on(node, &second.name)?["state"] == "Ready").then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    }
    cache.wait_ready(larder);
    larder.wait_rolled_out();
}

/// For half a minute. A container that ends meanwhile is made anew, from an image that must not be pulled.
#[test]
fn while_the_api_server_is_away_images_stay() {
    let e2e = alone();
    let larder = e2e.larder();
    let pushed = push(&e2e.registry, "e2e/no-api", 580);
    let cache = ImageCache::apply(&e2e.cluster, "no-api", &[&pushed.name]);
    cache.wait_ready(larder);
    let always = PodOptions::new("made-anew").image(&pushed.name).node("node-1");
    let pod = Pod::start(&e2e.cluster, &always.spec(json!({"restartPolicy": "Always"}))).unwrap();
    let container = || {
        let label = ["--label", "io.kubernetes.pod.name=made-anew"];
        let node = e2e.cluster.node("node-1").unwrap();
        let listed = node.crictl(&[&["ps", "--quiet", "--state", "Running"], &label[..]].concat()).unwrap();
        Some(listed.ok().unwrap().stdout.trim().to_owned()).filter(|id| !id.is_empty())
    };
    let before = (container().unwrap(), ["node-1", "node-2"].map(|node| incarnation(larder, node)));
    let mark = e2e.registry.mark().unwrap();

    e2e.cluster.apiserver().kill();
    kill_container(&e2e.cluster.node("node-1").unwrap(), &before.0);
    until("the container to be made anew", PATIENCE, || container().filter(|id| *id != before.0)).unwrap();
    std::thread::sleep(Duration::from_secs(30));
    for node in e2e.cluster.nodes() {
        assert!(crate::slow::is_usable(&node, &pushed.name));
    }
    e2e.cluster.apiserver().start().unwrap();
    until("the API server", PATIENCE, || e2e.cluster.kubectl(&["get", "--raw", "/readyz"]).ok()).unwrap();

    for node in ["node-1", "node-2"] {
        let options = PodOptions::new(&format!("afterwards-{node}")).image(&pushed.name).node(node);
        Pod::start(&e2e.cluster, &options).unwrap().delete().unwrap();
    }
    larder.wait_rolled_out();
    cache.wait_ready(larder);
    pod.delete().unwrap();
    let after = ["node-1", "node-2"].map(|node| incarnation(larder, node));
    assert_eq!(after, before.1, "no agent has ended");
    assert_eq!(e2e.registry.requests_since(mark).unwrap().len(), 0);
}
