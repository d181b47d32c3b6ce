//! Archives, on a node with containerd: what is loaded is delivered, and what was handed over to containerd is saved.

use std::fs;

use larder_tests::{Registry, RegistryOptions, Scratch, process::run, tools::in_path, until, wait::PATIENCE};
use serde_json::json;

use crate::fixture::{Node, image, standing};

const APP: &str = "registry.invalid/team/app:v1";

#[test]
fn what_is_loaded_is_in_the_runtime_and_on_the_disk_once() {
    let node = Node::new("containerd");
    let imports = node.scratch.folder("import-n1").unwrap();
    let made = image(&[(1, 400_000), (2, 60_000)]);
    made.write_archive(&imports.join("app.tar"), "registry.example/whatever:v1").unwrap();
    node.agent.start().unwrap();
    node.apply_spec("app", &json!({"images": [{"image": APP, "load": {"file": "app.tar"}}]}));
    let status = node.wait_ready(1);
    assert_eq!(standing(&status, APP)["digest"], made.digest().as_str());
    assert!(node.is_pinned(APP));
    let layer = made.layers()[0].digest.to_string();
    assert!(node.content().contains(&layer) && !node.blobs().contains(&layer), "it was handed over");

    // Somebody takes it out of the runtime, or gives the name to something else: it is put back without its archive.
    fs::remove_file(imports.join("app.tar")).unwrap();
    node.containerd.crictl(&["rmi", APP]).unwrap();
    until("it to be back", PATIENCE, || node.is_pinned(APP).then_some(())).unwrap();
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let other = registry.push(&image(&[(3, 60_000)]), "other", "v1").unwrap();
    node.containerd.ctr(&["images", "pull", "--plain-http", &other.name]).unwrap();
    node.containerd.ctr(&["images", "tag", "--force", &other.name, APP]).unwrap();
    until("the name to stand for what was loaded", PATIENCE, || {
        let digests = node.cri_image(APP)?["repoDigests"].to_string();
        (digests.contains(made.digest().as_str()) && node.is_pinned(APP)).then_some(())
    })
    .unwrap();
    node.wait_ready(1);
    node.delete("app");
    // The name was somebody else's for a while, and is left to them in the runtime.
    until("it to go", PATIENCE, || node.blobs().is_empty().then_some(())).unwrap();
}

#[test]
fn layers_that_were_handed_over_are_saved() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let made = image(&[(4, 400_000), (5, 60_000)]);
    let app = registry.push(&made, "app", "v1").unwrap().name;
    let node = Node::new("containerd");
    let exports = node.scratch.folder("export-n1").unwrap();
    node.agent.start().unwrap();
    node.apply("app", &[&app]);
    node.wait_ready(1);
    let layer = made.layers()[0].digest.to_string();
    assert!(!node.blobs().contains(&layer), "it was handed over");
    node.apply_spec("app", &json!({"images": [{"image": app, "save": {"file": "app.tar.bz2"}}]}));
    node.wait_ready(1);
    let scratch = Scratch::new("copy").unwrap();
    let copy = scratch.path().join("copy");
    let source = format!("oci-archive:{}:{app}", exports.join("app.tar.bz2").display());
    let args = ["copy", &source, &format!("dir:{}", copy.display())];
    run(&in_path("skopeo").unwrap(), &args, &[] as &[(&str, &std::ffi::OsStr)], b"").unwrap().ok().unwrap();
    assert_eq!(fs::read(copy.join("manifest.json")).unwrap(), made.manifest.bytes);
    assert!(!node.blobs().contains(&layer), "it was read from there, and has not come back");
}
