//! `larder deliver`, and commands that read what was delivered.

use larder_tests::{ContainerdVersion, Registry, RegistryOptions};
use serde_json::Value;

use crate::support::{Node, blobs, id, image, short};

const NAME: &str = "registry.corp/team/app:v1";

fn a_loaded_image_is_usable_by_pods(version: ContainerdVersion) {
    let node = Node::new(version, "containerd");
    let image = image(1);
    node.ok(&["load", "-i", &node.archive(&image, NAME)]);
    assert_eq!(node.cri_image(NAME), None);
    assert_eq!(node.ok(&["deliver", "--pin", NAME]), format!("Delivered image: {NAME}\n"));
    let seen = node.cri_image(NAME).unwrap();
    assert_eq!((seen["id"].as_str(), seen["pinned"].as_bool()), (Some(id(&image).as_str()), Some(true)));
    let digest = format!("registry.corp/team/app@{}", image.digest());
    assert_eq!(seen["repoDigests"][0], digest.as_str());
    // One copy: what is left in the store is manifest and configuration.
    assert_eq!(blobs(&node.store()), 2);
    // Once more changes nothing.
    node.ok(&["deliver", "--pin", "--quiet", short(&id(&image))]);
    assert_eq!(node.cri_image(NAME), Some(seen));
}

#[test]
fn a_loaded_image_is_usable_by_pods_on_containerd_2() {
    a_loaded_image_is_usable_by_pods(ContainerdVersion::V2);
}

#[test]
fn a_loaded_image_is_usable_by_pods_on_containerd_1_7() {
    a_loaded_image_is_usable_by_pods(ContainerdVersion::V17);
}

#[test]
fn what_was_delivered_is_read_back() {
    let node = Node::new(ContainerdVersion::V2, "containerd");
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let image = image(2);
    let before = node.scratch.path().join("before.tar");
    let after = node.scratch.path().join("after.tar");
    node.ok(&["load", "-i", &node.archive(&image, NAME)]);
    node.ok(&["save", "-o", before.to_str().unwrap(), NAME]);
    node.ok(&["deliver", NAME]);
    node.ok(&["save", "-o", after.to_str().unwrap(), NAME]);
    assert!(std::fs::read(&before).unwrap() == std::fs::read(&after).unwrap(), "not the same bytes");
    let copy = format!("{}/copy:v1", registry.host());
    node.ok(&["tag", NAME, &copy]);
    node.larder(&["push", &copy]).ok().unwrap();
    node.ok(&["verify"]);
    // The store knows that it has left layers to a runtime, and looks for one: another than the one that has them, or none.
    let elsewhere = node.plain_larder(&["--runtime", "none", "save", "-o", after.to_str().unwrap(), NAME]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(
        elsewhere.stderr.contains("is in the node's container runtime and not in the store"),
        "{}",
        elsewhere.stderr
    );
}

/// Nothing of the image is to be had then but its manifest and its configuration.
#[test]
fn an_image_whose_runtime_is_gone_is_not_ready() {
    let node = Node::new(ContainerdVersion::V2, "containerd");
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let pushed = registry.push(&image(6), "team/app", "v1").unwrap();
    let cache = node.cache(&pushed.name);
    assert!(node.ok(&["apply", "-f", &cache]).ends_with("All 1 images are ready\n"));
    let ran = node.plain_larder(&["--runtime", "none", "apply", "-f", &cache]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("RuntimeUnavailable: layers of it were left"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    assert!(node.ok(&["apply", "-f", &cache]).ends_with("All 1 images are ready\n"));
}

#[test]
fn pull_and_load_deliver_when_told_to() {
    let node = Node::new(ContainerdVersion::V2, "containerd");
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let pushed = registry.push(&image(3), "team/app", "v1").unwrap();
    let out = node.ok(&["pull", "--deliver", &pushed.name]);
    assert!(out.ends_with(&format!("{0}\nDelivered image: {0}\n", pushed.name)), "{out}");
    assert!(node.cri_image(&pushed.name).is_some());
    let out = node.ok(&["load", "--deliver", "-i", &node.archive(&image(4), NAME)]);
    assert_eq!(out, format!("Loaded image: {NAME}\nDelivered image: {NAME}\n"));
    assert!(node.cri_image(NAME).is_some());
    // What is in the runtime already is not fetched again.
    let mark = registry.mark().unwrap();
    node.ok(&["pull", &pushed.name]);
    assert!(registry.requests_since(mark).unwrap().iter().all(|request| !request.path.contains("/blobs/")));
}

#[test]
fn programs_get_json_and_people_get_reasons() {
    let node = Node::new(ContainerdVersion::V2, "containerd");
    let image = image(5);
    node.ok(&["load", "-i", &node.archive(&image, NAME)]);
    let report: Value = serde_json::from_str(&node.ok(&["deliver", "--output", "json", NAME])).unwrap();
    let one = &report[0];
    assert_eq!((one["Name"].as_str(), one["Pinned"].as_bool()), (Some(NAME), Some(false)));
    assert_eq!(
        (one["ID"].as_str(), one["Digest"].as_str()),
        (Some(id(&image).as_str()), Some(image.digest().as_str()))
    );
    assert!(one["Runtime"].as_str().unwrap().starts_with("containerd "), "{one}");
    assert_eq!(node.fails(&["deliver", "nope"]), "Error: No such image: nope:latest\n");
    let foreign = larder_tests::Image::builder().platform("linux/s390x").build().unwrap();
    node.ok(&["load", "-i", &node.archive(&foreign, "foreign:v1")]);
    assert!(node.fails(&["deliver", "foreign:v1"]).contains("is not for this node's platform"));
    let refused = node.plain_larder(&["--runtime", "none", "deliver", NAME]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("there is no container runtime of Kubernetes' here"),
        "{}",
        refused.stderr
    );
    let missing = node.plain_larder(&["--runtime-endpoint", "/nowhere.sock", "deliver", NAME]);
    assert!(missing.stderr.contains("at /nowhere.sock does not answer"), "{}", missing.stderr);
    let bad = node.plain_larder(&["--runtime", "docker", "images"]);
    assert_eq!(bad.status.code(), Some(125), "{}", bad.stderr);
}
