//! Kills while an image is on its way. In the end it is there, and every byte was fetched about once.

use larder_tests::{Fault, Proxy, Registry, RegistryOptions, Rule, until, wait::PATIENCE};

use crate::fixture::{Node, image, standing};

/// Large beside what is on its way between the programs when one of them is killed, which is more on a busy machine.
const LAYERS: [(u64, usize); 4] = [(1, 12_000_000), (2, 9_000_000), (3, 9_000_000), (4, 6_000_000)];

/// Fetches an image slowly, and calls `disturb` a few times on the way.
fn disturbed(seed: u64, disturb: impl Fn(&Node)) {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let built = image(&LAYERS.map(|(layer, size)| (layer + seed, size)));
    registry.push(&built, "big", "v1").unwrap();
    let big = format!("{}/big:v1", proxy.host());
    let node = Node::start();
    proxy.limit_rate(Some(9_000_000));
    node.apply("big", &[&big]);
    for part in 1..=3 {
        until("the next part of the image to arrive", PATIENCE, || {
            (proxy.bytes_sent() > built.size() * part / 4).then_some(())
        })
        .unwrap();
        disturb(&node);
    }
    proxy.limit_rate(None);
    node.wait_ready(1);
    assert!(node.is_pinned(&big));
    let sent = proxy.bytes_for("/blobs/");
    assert!(sent * 10 <= built.size() * 11, "{sent} bytes were fetched for {}", built.size());
    let layers = built.layers().iter().map(|layer| layer.digest.to_string());
    let (content, blobs) = (node.content(), node.blobs());
    for layer in layers {
        assert!(content.contains(&layer) && !blobs.contains(&layer), "{layer} is not there once");
    }
}

#[test]
fn the_agent_is_killed() {
    disturbed(0, |node| node.agent.restart().unwrap());
}

#[test]
fn containerd_is_killed() {
    disturbed(100, |node| node.containerd.restart().unwrap());
}

#[test]
fn both_are_killed() {
    disturbed(200, |node| {
        node.containerd.program().kill();
        node.agent.restart().unwrap();
        node.containerd.restart().unwrap();
    });
}

/// Given up while it arrives: nothing stays, neither in the store nor in the runtime.
/// A layer goes straight into containerd's content store, and containerd alone knows its digest. Bytes that are not those of
/// the layer never get its name, the status says so, and the layer comes right the next time.
#[test]
fn wrong_bytes_never_become_a_layer() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let built = image(&[(400, 300_000), (401, 500_000)]);
    registry.push(&built, "bad", "v1").unwrap();
    let (name, layer) = (format!("{}/bad:v1", proxy.host()), built.layers()[1].digest.to_string());
    proxy.add(Rule::get(&layer).then(Fault::FlipByte(70_000)));
    let node = Node::start();
    node.apply("bad", &[&name]);
    let status = node.wait("the wrong bytes to be noticed", |status| {
        standing(status, &name)["reason"] == "DigestMismatch"
    });
    assert_eq!(standing(&status, &name)["state"], "Failed", "{status:#}");
    assert!(!node.content().contains(&layer) && node.cri_image(&name).is_none());
    proxy.clear();
    node.wait_ready(1);
    assert!(node.content().contains(&layer) && node.is_pinned(&name));
}

#[test]
fn given_up_in_the_middle_nothing_stays() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let built = image(&[(300, 300_000), (301, 6_000_000)]);
    registry.push(&built, "slow", "v1").unwrap();
    let node = Node::start();
    proxy.limit_rate(Some(300_000));
    node.apply("slow", &[&format!("{}/slow:v1", proxy.host())]);
    let first = built.layers()[0].digest.to_string();
    until("a layer to be in the runtime", PATIENCE, || node.content().contains(&first).then_some(()))
        .unwrap();
    node.delete("slow");
    until("all of it to go", PATIENCE, || {
        let leases = node.containerd.ctr(&["leases", "ls"]).unwrap();
        (node.content().is_empty() && node.blobs().is_empty() && !leases.contains("larder/image"))
            .then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:?} {:?}", node.content(), node.blobs()));
}
