//! Ready means that kubelet would find the image, and use it.

use larder_tests::{Registry, RegistryOptions, until, wait::PATIENCE};
use serde_json::json;

use crate::fixture::{Node, image, standing};

#[test]
fn ready_means_that_kubelet_sees_it_and_gone_that_nothing_is_left() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let base = (1, 300_000);
    let [app, tool] = [image(&[base, (2, 60_000)]), image(&[base, (3, 60_000)])];
    let base = app.layers()[0].digest.to_string();
    let [app, tool] =
        [(app, "app"), (tool, "tool")].map(|(image, name)| registry.push(&image, name, "v1").unwrap());
    let node = Node::start();
    node.apply("app", &[&app.name]);
    node.apply("both", &[&app.name, &tool.name]);
    let status = node.wait_ready(2);

    // At once: nothing is waited for here.
    for pushed in [&app, &tool] {
        let seen = node.cri_image(&pushed.name).expect("kubelet to see it");
        assert_eq!(seen["pinned"], true, "{seen:#}");
        assert_eq!(seen["repoDigests"], json!([format!("{}@{}", pushed.repository, pushed.digest)]));
        assert_eq!(standing(&status, &pushed.name)["digest"], pushed.digest.as_str());
    }
    assert!(status["agent"]["runtime"].as_str().unwrap().starts_with("containerd "), "{status:#}");
    let requests = registry.requests().unwrap();
    assert_eq!(requests.gets_of(&base), 1, "the layer that two images share");
    // Layers are on the node once: manifests and configurations are in the store too.
    assert!(node.content().contains(&base) && !node.blobs().contains(&base));
    assert_eq!(node.blobs().len(), 4);
    node.wait_event("ImageReady", &app.name);

    // What the other still needs stays.
    node.apply("both", &[&app.name]);
    until("the image to leave the runtime", PATIENCE, || node.cri_image(&tool.name).is_none().then_some(()))
        .unwrap();
    node.wait_ready(1);
    assert!(node.is_pinned(&app.name) && node.content().contains(&base));
    node.wait_event("ImageRemoved", &tool.name);

    node.delete("both");
    node.delete("app");
    until("content and names to go", PATIENCE, || {
        (node.names().is_empty() && node.content().is_empty() && node.blobs().is_empty()).then_some(())
    })
    .unwrap_or_else(|error| {
        let ctr = |args: &[&str]| node.containerd.ctr(args).unwrap();
        let (content, leases) = (ctr(&["content", "ls"]), ctr(&["leases", "ls"]));
        panic!("{error}: {:?} {:?}\n{content}\n{leases}", node.names(), node.blobs())
    });
    until("leases to go", PATIENCE, || {
        (!node.containerd.ctr(&["leases", "ls"]).unwrap().contains("larder/image")).then_some(())
    })
    .unwrap();
    until("snapshots to go", PATIENCE, || {
        (node.containerd.ctr(&["snapshots", "ls"]).unwrap().lines().count() == 1).then_some(())
    })
    .unwrap();
}

/// Retained, it is as if kubelet had pulled it: there, and not pinned; and it is Larder's again when it is wanted again.
#[test]
fn what_is_retained_is_left_to_the_runtime() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(10, 60_000)]), "app", "v1").unwrap().name;
    let node = Node::start();
    node.apply_spec("keep", &json!({"images": [{"image": app}], "deletionPolicy": "Retain"}));
    node.wait_ready(1);
    node.delete("keep");
    until("the pin to go, and the store's own copy", PATIENCE, || {
        (!node.is_pinned(&app) && node.blobs().is_empty()).then_some(())
    })
    .unwrap();
    assert!(node.cri_image(&app).is_some(), "it stays");
    let layers = registry.requests().unwrap().blob_gets();
    node.apply("again", &[&app]);
    node.wait_ready(1);
    assert!(node.is_pinned(&app));
    // Its configuration is small and is fetched; its layer is here.
    assert_eq!(registry.requests().unwrap().blob_gets(), layers + 1);
}

/// An image for another platform is of no use to the runtime; it stays in the store.
#[test]
fn other_platforms_stay_in_the_store() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let other =
        if larder_oci::Platform::host().to_string() == "linux/s390x" { "linux/arm64" } else { "linux/s390x" };
    let layer = larder_tests::Layer::random(20, 60_000).unwrap();
    let built = larder_tests::Image::builder().platform(other).layer(&layer).build().unwrap();
    let far = registry.push(&built, "far", "v1").unwrap().name;
    let node = Node::start();
    node.apply_spec("far", &json!({"images": [{"image": far, "platform": other}]}));
    node.wait_ready(1);
    assert!(node.names().is_empty());
    assert_eq!(node.blobs().len(), 3);
    node.delete("far");
    until("it to go", PATIENCE, || node.blobs().is_empty().then_some(())).unwrap();
}

/// Through CRI alone the runtime fetches the layers itself, and nothing can be pinned.
#[test]
fn through_cri_alone() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(30, 60_000)]), "app", "v1").unwrap();
    let node = Node::new("cri");
    node.agent.start().unwrap();
    node.apply("app", &[&app.name]);
    let status = node.wait_ready(1);
    assert_eq!(standing(&status, &app.name)["digest"], app.digest.as_str());
    assert!(node.cri_image(&app.name).is_some(), "kubelet sees it");
    assert_eq!(node.blobs().len(), 2, "manifest and configuration");
    node.delete("app");
    until("it to go", PATIENCE, || {
        (node.cri_image(&app.name).is_none() && node.blobs().is_empty()).then_some(())
    })
    .unwrap();
}
