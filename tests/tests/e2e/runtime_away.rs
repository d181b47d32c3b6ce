//! A containerd that is killed.

use larder_tests::{Node, until, wait::PATIENCE};

use crate::{
    fixture::alone,
    larder::{ImageCache, Larder, push},
    slow::{Slow, is_usable},
};

/// What the status says of an image.
fn state(larder: &Larder, node: &Node, image: &str) -> Option<String> {
    Some(larder.image_on(node.name(), image)?["state"].as_str()?.to_owned())
}

/// Killed while layers are on their way to it, and again when the last one has come. Ready is never said too soon.
#[test]
fn a_containerd_that_is_killed_during_a_delivery_gets_the_rest() {
    let e2e = alone();
    let (larder, node) = (e2e.larder(), e2e.cluster.node("node-1").unwrap());
    let slow = Slow::start(&e2e);
    let (image, pushed) = slow.push("e2e/away", 510);
    let cache = ImageCache::apply_on(&e2e.cluster, "away", "node-1", &[&pushed.name]);
    for bytes in [4_000_000, 12_000_000, 19_000_000] {
        slow.wait_served(bytes);
        node.containerd().kill();
        assert_ne!(state(larder, &node, &pushed.name).as_deref(), Some("Ready"));
        node.start_containerd().unwrap();
    }
    until("Ready", PATIENCE, || {
        (state(larder, &node, &pushed.name)? == "Ready").then(|| assert!(is_usable(&node, &pushed.name)))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    slow.assert_served_once(&image);
    cache.wait_ready(larder);
}

/// For longer than a restart takes.
#[test]
fn while_containerd_is_away_nothing_is_ready() {
    let e2e = alone();
    let (larder, node) = (e2e.larder(), e2e.cluster.node("node-1").unwrap());
    let pushed = push(&e2e.registry, "e2e/gone", 520);
    let cache = ImageCache::apply_on(&e2e.cluster, "gone", "node-1", &[&pushed.name]);
    cache.wait_ready(larder);
    let mark = e2e.registry.mark().unwrap();

    node.containerd().kill();
    let failed = until("the status to say so", PATIENCE, || {
        larder.image_on("node-1", &pushed.name).filter(|image| image["state"] == "Failed")
    });
    let failed = failed.unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    assert_eq!(failed["reason"], "RuntimeUnavailable", "{failed:#}");
    let ready = |object: &serde_json::Value| {
        let conditions = object["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == "Ready").unwrap()["status"].clone()
    };
    until("the ImageCache not to be Ready", PATIENCE, || (ready(&cache.get()) != "True").then_some(()))
        .unwrap();

    node.start_containerd().unwrap();
    cache.wait_ready(larder);
    assert!(is_usable(&node, &pushed.name));
    assert_eq!(e2e.registry.requests_since(mark).unwrap().len(), 0, "no registry was asked");
    e2e.cluster.wait_ready("node-1").unwrap();
}
