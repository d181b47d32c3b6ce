//! Further names: kubelet finds an image under each of them, and no registry hears of them.

use larder_tests::{Registry, RegistryOptions, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Node, image, standing};

/// Names that no registry answers for.
const BASE: &str = "registry.example/base/app:1";
const SHORT: &str = "docker.io/library/app-of-ours:latest";
const TAKEN: &str = "registry.example/base/app:taken";

fn tagged(image: &str, tags: &[&str]) -> Value {
    json!({"image": image, "tags": tags})
}

fn cache(images: &[Value]) -> Value {
    json!({"images": images})
}

/// Waits until the runtime has no such name.
fn wait_unnamed(node: &Node, name: &str) {
    until(&format!("{name} to go"), PATIENCE, || {
        (!node.names().iter().any(|found| found == name)).then_some(())
    })
    .unwrap();
}

#[test]
fn kubelet_finds_an_image_under_its_further_names_and_only_while_they_are_wanted() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(1, 300_000)]), "app", "v1").unwrap();
    let node = Node::start();
    node.apply_spec("app", &cache(&[tagged(&app.name, &[BASE, TAKEN, "app-of-ours"])]));
    let status = node.wait_ready(1);
    assert_eq!(standing(&status, &app.name)["digest"], app.digest.as_str());
    assert_eq!(status["images"].as_array().unwrap().len(), 1, "a name is no image of its own: {status:#}");

    // At once: nothing is waited for here.
    let found = node.cri_image(&app.name).unwrap();
    for name in [BASE, SHORT, TAKEN] {
        let named = node.cri_image(name).expect("kubelet to find it");
        assert_eq!((&named["id"], &named["pinned"]), (&found["id"], &json!(true)), "{named:#}");
    }
    // An agent that is restarted leaves all as it is.
    let mark = registry.mark().unwrap();
    node.agent.restart().unwrap();
    // What somebody removes, or gives to another image, is put back.
    let other = image(&[(2, 60_000)]);
    let stranger = registry.push(&other, "stranger", "v1").unwrap();
    node.containerd.ctr(&["images", "pull", "--plain-http", &stranger.name]).unwrap();
    node.containerd.ctr(&["images", "rm", "--sync", SHORT]).unwrap();
    node.containerd.ctr(&["images", "tag", "--force", &stranger.name, TAKEN]).unwrap();
    until("both names to be back", PATIENCE, || {
        let is_back = |name| node.cri_image(name).is_some_and(|named| named["id"] == found["id"]);
        (is_back(SHORT) && is_back(TAKEN) && node.is_pinned(TAKEN)).then_some(())
    })
    .unwrap();
    node.wait_event("ImageRestored", SHORT);

    // Taken off the list, a name goes, and the image stays.
    node.apply_spec("app", &cache(&[tagged(&app.name, &[BASE])]));
    wait_unnamed(&node, SHORT);
    node.wait_ready(1);
    assert!(node.is_pinned(&app.name) && node.is_pinned(BASE));
    // The one that somebody has made in the runtime is somebody's, and stays there without our mark.
    until("our mark to go", PATIENCE, || {
        let listed = node.containerd.ctr(&["images", "ls", &format!("name=={TAKEN}")]).unwrap();
        (listed.contains(TAKEN) && !listed.contains("larder.dev")).then_some(())
    })
    .unwrap();
    let requests = registry.requests_since(mark).unwrap();
    let ours = requests.count(|request| request.path.contains("/app/"));
    assert_eq!(ours, 0, "{:?}", requests.to_vec());

    // A container keeps the name that it was made from.
    node.containerd.ctr(&["containers", "create", BASE, "job-1", "/bin/true"]).unwrap();
    node.apply_spec("app", &cache(&[tagged(&app.name, &[])]));
    let standing = node.wait_state(BASE, Some("InUse"));
    assert!(standing["message"].as_str().unwrap().contains("job-1"), "{standing:#}");
    assert!(node.cri_image(BASE).is_some());
    node.containerd.ctr(&["containers", "rm", "job-1"]).unwrap();
    wait_unnamed(&node, BASE);
    node.wait_ready(1);

    node.delete("app");
    wait_unnamed(&node, &app.name);
}

#[test]
fn what_is_retained_keeps_its_names() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(10, 60_000)]), "app", "v1").unwrap().name;
    let node = Node::start();
    let mut spec = cache(&[tagged(&app, &[BASE])]);
    spec["deletionPolicy"] = json!("Retain");
    node.apply_spec("keep", &spec);
    node.wait_ready(1);
    node.delete("keep");
    until("the pins to go, and the store's own copies", PATIENCE, || {
        (!node.is_pinned(&app) && !node.is_pinned(BASE) && node.blobs().is_empty()).then_some(())
    })
    .unwrap();
    assert!(node.cri_image(&app).is_some() && node.cri_image(BASE).is_some(), "{:?}", node.names());
}

/// Which image a name is to stand for is for the admins to settle; nothing is taken from anybody meanwhile.
#[test]
fn a_name_is_one_images_over_all_caches() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let push = |seed, name| registry.push(&image(&[(seed, 60_000)]), name, "v1").unwrap();
    let [first, second, own] = [push(20, "a"), push(21, "b"), push(22, "own")];
    let node = Node::start();
    node.apply_spec("second", &cache(&[tagged(&second.name, &[BASE])]));
    node.wait_ready(1);
    // In order of their names, this one comes before.
    node.apply_spec("first", &cache(&[tagged(&first.name, &[BASE])]));
    let failed = node.wait_state(&second.name, Some("Failed"));
    assert_eq!(failed["reason"], "NameConflict");
    let message = failed["message"].as_str().unwrap();
    assert!(message.contains(BASE) && message.contains(&first.name), "{message}");
    node.wait_state(&first.name, Some("Ready"));
    let id = |name: &str| node.cri_image(name).map(|image| image["id"].clone());
    assert_eq!(id(BASE), id(&first.name));
    assert!(node.is_pinned(&second.name), "the image itself stays");
    until("the ImageCache to say so", PATIENCE, || {
        let status = node.cluster.get(&["imagecache", "second"]).ok()?["status"].clone();
        (status["failures"][0]["reason"] == "NameConflict").then_some(())
    })
    .unwrap();

    // A name becomes an image of its own: what stood under it says nothing of what its registry means by it.
    node.apply_spec("first", &cache(&[tagged(&first.name, &[&own.name])]));
    node.wait_ready(2);
    assert_eq!(id(&own.name), id(&first.name));
    assert_eq!(id(BASE), id(&second.name), "the name that became free");
    node.apply("own", &[&own.name]);
    let failed = node.wait_state(&first.name, Some("Failed"));
    assert!(failed["message"].as_str().unwrap().contains("an image of its own"), "{failed:#}");
    let ready = node.wait_state(&own.name, Some("Ready"));
    assert_eq!(ready["digest"], own.digest.as_str());
    assert_ne!(id(&own.name), id(&first.name));

    // And back.
    node.delete("own");
    node.wait_ready(2);
    until("the name to be the image's again", PATIENCE, || (id(&own.name) == id(&first.name)).then_some(()))
        .unwrap();
}

/// Through CRI alone a runtime takes images from registries only.
#[test]
fn a_runtime_behind_cri_alone_takes_no_further_names() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(30, 60_000)]), "app", "v1").unwrap();
    let node = Node::new("cri");
    node.agent.start().unwrap();
    let other = registry.push(&image(&[(31, 60_000)]), "other", "v1").unwrap();
    node.apply_spec("app", &cache(&[tagged(&app.name, &[&other.name])]));
    let failed = node.wait_state(&app.name, Some("Failed"));
    assert_eq!(failed["reason"], "RuntimeError");
    assert!(failed["message"].as_str().unwrap().contains("take it out of tags"), "{failed:#}");
    assert!(node.cri_image(&app.name).is_some() && node.cri_image(&other.name).is_none());
    node.apply("app", &[&app.name]);
    node.wait_ready(1);
}
