//! Images that are wanted without a pin, and further names.

use larder_runtime::{Image, Layers, Owner, State};

use crate::{
    fixture::image,
    node::{Node, Version},
    on_each_version,
};

on_each_version!(a_pin_is_set_and_taken_off, a_further_name_tells_no_registry);

const APP: &str = "registry.corp/app:v1";

fn a_pin_is_set_and_taken_off(version: Version) {
    let node = Node::new(version);
    let app = node.put(APP, &image(1));
    let wanting = |pin| Image { pin, ..app.clone() };
    let states = || [Some(true), Some(false), None].map(|pin| node.state(&wanting(pin)) == State::Ready);
    for pin in [false, true, false] {
        node.try_deliver(&app, Owner::Agent { pin }, Layers::all_there()).unwrap();
        assert_eq!(node.kubelets_image(APP).unwrap()["pinned"], pin);
        assert_eq!(states(), [pin, !pin, true]);
    }
    // What others pin, they unpin.
    node.ctr(&["images", "label", APP, "io.cri-containerd.pinned=pinned"]);
    node.try_deliver(&app, Owner::Agent { pin: false }, Layers::all_there()).unwrap();
    assert!(states()[1]);
    assert!(node.ctr(&["images", "ls"]).contains("io.cri-containerd.pinned=pinned"));
    node.stop();
}

/// containerd writes down where a blob can be had. Under a further name it can't.
fn a_further_name_tells_no_registry(version: Version) {
    const FURTHER: &str = "registry.example/base/app:1";
    let node = Node::new(version);
    let app = node.put_and_deliver(APP, &image(1));
    let further = node.put(FURTHER, &image(1));
    let further = Image { further: true, ..further };
    node.deliver(&further);
    assert_eq!(node.state(&further), State::Ready);
    assert_eq!(node.kubelets_image(FURTHER).unwrap()["id"], node.kubelets_image(APP).unwrap()["id"]);
    let content = node.ctr(&["content", "ls"]);
    assert!(
        content.contains("distribution.source.registry.corp") && !content.contains("registry.example"),
        "{content}"
    );
    assert_eq!(node.state(&app), State::Ready);
    node.stop();
}
