//! Images that somebody removes behind our back, and layers that containerd has already.

use std::time::Duration;

use larder_oci::Digest;
use larder_runtime::State;
use larder_tests::{Registry, RegistryOptions, until, wait::PATIENCE};

use crate::{
    fixture::image,
    node::{Node, Version},
    on_each_version,
};

on_each_version!(
    a_removed_image_is_noticed_and_put_back_without_its_layers,
    a_tag_that_moved_is_told_from_one_that_is_gone,
    content_that_is_gone_is_missed,
    layers_that_kubelet_pulled_are_kept,
    a_restart_of_containerd_is_noticed,
);

const NAME: &str = "registry.corp/app:v1";

/// Waits until something has happened. Nothing else may have happened before.
fn noticed(node: &Node) {
    let changed = async { tokio::time::timeout(PATIENCE, node.runtime.changed()).await };
    node.wait(changed).unwrap();
}

/// Takes up what has happened so far.
fn settle(node: &Node) {
    node.wait(async {
        while tokio::time::timeout(Duration::from_millis(500), node.runtime.changed()).await.is_ok() {}
    });
}

fn a_removed_image_is_noticed_and_put_back_without_its_layers(version: Version) {
    let node = Node::with_eager_collector(version);
    let image = node.put_and_deliver(NAME, &image(1));
    settle(&node);
    let all: Vec<String> = node.names().into_keys().collect();
    let crictl = |node: &Node| {
        node.try_crictl(&["rmi", NAME]).ok().unwrap();
    };
    let ctr = |node: &Node| {
        node.ctr(
            &[&["images", "rm", "--sync"], &all.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat(),
        );
    };
    let ways: [&dyn Fn(&Node); 2] = [&crictl, &ctr];
    for remove in ways {
        remove(&node);
        noticed(&node);
        assert!(node.names().is_empty());
        node.try_ctr(&["content", "prune", "references"]);
        assert_eq!(node.state(&image), State::Missing);
        // All of it is still there: only names are written.
        assert!(node.observe(std::slice::from_ref(&image)).lost.is_empty());
        for layer in &image.layers {
            let layer: Digest = layer.digest().to_string().parse().unwrap();
            assert!(!node.store.blob_path(&layer).exists() && node.has_blob(&layer));
        }
        node.deliver(&image);
        assert_eq!(node.state(&image), State::Ready);
        settle(&node);
    }
    // A pin alone counts as well.
    node.ctr(&["images", "label", NAME, "io.cri-containerd.pinned="]);
    noticed(&node);
    assert_eq!(node.state(&image), State::Missing);
    node.deliver(&image);
    assert_eq!(node.state(&image), State::Ready);
    node.stop();
}

fn a_tag_that_moved_is_told_from_one_that_is_gone(version: Version) {
    let node = Node::new(version);
    let (old, new) = (image(1), image(2));
    let delivered = node.put_and_deliver(NAME, &old);
    node.put_and_deliver("registry.corp/other:v1", &new);
    node.ctr(&["images", "tag", "--force", "registry.corp/other:v1", NAME]);
    assert_eq!(node.state(&delivered), State::Moved { to: new.digest().clone() });
    // What the registry says is for the agent to find out. Then it is as ever.
    let delivered = node.put_and_deliver(NAME, &new);
    assert_eq!(node.state(&delivered), State::Ready);
    assert_eq!(node.kubelets_image(NAME).unwrap()["id"], new.blobs[0].digest.as_str());
    node.stop();
}

fn content_that_is_gone_is_missed(version: Version) {
    let node = Node::new(version);
    let source = image(1);
    let delivered = node.put_and_deliver(NAME, &source);
    let layer = &source.layers()[1];
    settle(&node);
    node.ctr(&["content", "rm", layer.digest.as_str()]);
    noticed(&node);
    let observed = node.observe(std::slice::from_ref(&delivered));
    assert_eq!(observed.lost, [layer.digest.clone()].into());
    assert_eq!(observed.states[&delivered.key], State::Missing);
    let error = node.store.open_blob(&layer.digest).map(drop).unwrap_err();
    assert_eq!(error.category(), larder_store::Category::NotFound, "{error}");
    // Once it has come again, all is well.
    node.store.lost(&observed.lost).unwrap();
    let delivered = node.put_and_deliver(NAME, &source);
    assert_eq!(node.state(&delivered), State::Ready);
    node.stop();
}

fn layers_that_kubelet_pulled_are_kept(version: Version) {
    let node = Node::with_eager_collector(version);
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let source = image(1);
    let pushed = registry.push(&source, "app", "v1").unwrap();
    node.ctr(&["images", "pull", "--plain-http", "--local", &pushed.name]);
    let annex = {
        let runtime = node.runtime.clone();
        node.wait(async move { runtime.annex().unwrap() })
    };
    let id = node.store.id().unwrap();
    let layer = &source.layers()[1];
    assert!(annex.keep(id, &layer.digest, layer.size()).unwrap());
    assert!(!annex.keep(id, &layer.digest, 5).unwrap(), "another size");
    assert!(!annex.keep(id, &Digest::sha256(b"none"), 5).unwrap());
    // With all the names that its CRI plugin adds.
    until("kubelet to see it", PATIENCE, || node.kubelets_image(&pushed.name)).unwrap();
    node.try_crictl(&["rmi", &pushed.name]).ok().unwrap();
    let other = &source.layers()[0].digest;
    until("what nobody asked for to go", PATIENCE, || (!node.has_blob(other)).then_some(())).unwrap();
    assert!(node.has_blob(&layer.digest));
    // Once the store relies on it, it stays for as long as the store does, and no longer.
    node.wait(node.runtime.observe(id, &[], &[layer.digest.clone()].into())).unwrap();
    assert!(node.has_blob(&layer.digest));
    node.wait(node.runtime.observe(id, &[], &[].into())).unwrap();
    until("what the store needs no more to go", PATIENCE, || (!node.has_blob(&layer.digest)).then_some(()))
        .unwrap();
    node.stop();
}

fn a_restart_of_containerd_is_noticed(version: Version) {
    let node = Node::new(version);
    let image = node.put_and_deliver(NAME, &image(1));
    settle(&node);
    node.restart();
    noticed(&node);
    assert_eq!(node.state(&image), State::Ready);
    settle(&node);
    node.ctr(&["images", "rm", NAME]);
    noticed(&node);
    assert_eq!(node.state(&image), State::Missing);
    node.stop();
}
