//! Images that are wanted, and that kubelet's garbage collection may take all the same.

use larder_tests::{Registry, RegistryOptions, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Node, image};

const FURTHER: &str = "registry.example/app:1";
const PIN: &str = "io.cri-containerd.pinned=pinned";

fn spec(image: &str, pin: Option<bool>) -> Value {
    json!({"images": [{"image": image, "tags": [FURTHER]}], "pin": pin})
}

/// Waits until an image is pinned, or is not, under all its names.
fn wait_pinned(node: &Node, image: &str, pinned: bool) {
    let is = |name| node.cri_image(name).is_some_and(|image| image["pinned"] == pinned);
    until(&format!("pinned: {pinned}"), PATIENCE, || (is(image) && is(FURTHER)).then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", node.containerd.ctr(&["images", "ls"]).unwrap()));
}

#[test]
fn a_pin_comes_and_goes_with_the_edit_and_nothing_else_happens() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(1, 300_000)]), "app", "v1").unwrap().name;
    let node = Node::start();
    node.apply_spec("app", &spec(&app, Some(false)));
    node.wait_ready(1);
    assert!(node.cri_image(&app).is_some() && !node.is_pinned(&app) && !node.is_pinned(FURTHER));

    let mark = registry.mark().unwrap();
    for pin in [true, false, true, false] {
        node.apply_spec("app", &spec(&app, Some(pin)));
        wait_pinned(&node, &app, pin);
        node.wait_ready(1);
    }
    // Two ImageCaches: pinned if one of them says so. Not to say anything is to say yes.
    node.apply_spec("too", &json!({"images": [{"image": app}]}));
    wait_pinned(&node, &app, true);
    node.delete("too");
    wait_pinned(&node, &app, false);
    node.wait_ready(1);
    assert_eq!(registry.requests_since(mark).unwrap().to_vec(), [], "nothing is fetched");
    let told = node.events();
    assert!(told.iter().all(|(reason, ..)| reason != "ImageRestored"), "nothing was lost: {told:#?}");

    // It is looked after like any other: kubelet's collector takes it, and it comes back.
    node.containerd.crictl(&["rmi", &app]).unwrap();
    until("it to be back", PATIENCE, || node.cri_image(&app)).unwrap();
    node.wait_event("ImageRestored", &app);
    wait_pinned(&node, &app, false);
}

#[test]
fn what_others_have_pinned_stays_pinned() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(10, 60_000)]), "app", "v1").unwrap().name;
    let node = Node::start();
    node.containerd.ctr(&["images", "pull", "--plain-http", &app]).unwrap();
    node.containerd.ctr(&["images", "label", &app, PIN]).unwrap();
    node.apply_spec("app", &spec(&app, Some(false)));
    node.wait_ready(1);
    assert!(node.is_pinned(&app));
    node.apply_spec("app", &spec(&app, Some(true)));
    node.wait_ready(1);
    node.apply_spec("app", &spec(&app, Some(false)));
    node.wait_ready(1);
    node.delete("app");
    until("the further name to go", PATIENCE, || node.cri_image(FURTHER).is_none().then_some(())).unwrap();
    assert!(node.is_pinned(&app), "it was there before, and pinned");
}

/// Through CRI alone nothing is pinned, whatever is asked for.
#[test]
fn through_cri_alone_an_image_is_ready_without_a_pin() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(20, 60_000)]), "app", "v1").unwrap().name;
    let node = Node::new("cri");
    node.agent.start().unwrap();
    for pin in [false, true] {
        node.apply_spec("app", &json!({"images": [{"image": app}], "pin": pin}));
        node.wait_ready(1);
        assert!(node.cri_image(&app).is_some() && !node.is_pinned(&app));
    }
}
