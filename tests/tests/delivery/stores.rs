//! Two layer stores beside one containerd: the node's own, and a person's. What one relies on is none of the other's business.

use larder_oci::Digest;
use larder_runtime::{Image, Layers, Owner};
use larder_store::{CollectOptions, Store};
use larder_tests::{Layer, until, wait::PATIENCE};

use crate::{
    fixture::put,
    node::{Node, Version},
    on_each_version,
};

on_each_version!(one_store_does_not_let_go_of_anothers_layers);

fn one_layer(seed: u64) -> (larder_tests::Image, Digest) {
    let layer = Layer::random(seed, 200_000).unwrap();
    let image = larder_tests::Image::builder().layer(&layer).build().unwrap();
    (image, layer.digest)
}

/// Delivers an image from a store, and then takes it from containerd again: from here on only the store relies on its layer.
fn leave_to_containerd(node: &Node, store: &Store, name: &str, image: &larder_tests::Image) -> Image {
    let image = put(store, name, image);
    let delivered = node.runtime.deliver(store, &image, Owner::Person { pin: false }, Layers::all_there());
    node.wait(delivered).unwrap();
    node.wait(node.runtime.withdraw(&image.key, Some(&image))).unwrap();
    image
}

fn one_store_does_not_let_go_of_anothers_layers(version: Version) {
    let node = Node::with_eager_collector(version);
    let second = node.another_store("second");
    let (ours, our_layer) = one_layer(1);
    let (theirs, their_layer) = one_layer(2);
    leave_to_containerd(&node, &node.store, "registry.corp/ours:v1", &ours);
    let image = leave_to_containerd(&node, &second, "registry.corp/theirs:v1", &theirs);
    let (third, third_layer) = one_layer(3);
    leave_to_containerd(&node, &node.store, "registry.corp/third:v1", &third);
    // Each in turn; the one that forgets an image has containerd collect.
    let forget = |store: &Store, name: &str| {
        assert!(store.remove(&crate::fixture::key(name)).unwrap());
        store.collect(&CollectOptions::default()).unwrap();
    };
    forget(&node.store, "registry.corp/third:v1");
    for store in [&node.store, &second] {
        assert!(node.observe_for(store, &[]).lost.is_empty());
    }
    until("what the store needs no more to go", PATIENCE, || (!node.has_blob(&third_layer)).then_some(()))
        .unwrap();
    assert!(node.has_blob(&our_layer) && node.has_blob(&their_layer));
    assert!(second.open_blob(&their_layer).is_ok());
    forget(&second, "registry.corp/theirs:v1");
    assert!(node.observe_for(&second, &[]).lost.is_empty());
    until("what the other needs no more to go", PATIENCE, || (!node.has_blob(&their_layer)).then_some(()))
        .unwrap();
    assert!(node.has_blob(&our_layer), "{image:?}");
    node.stop();
}
