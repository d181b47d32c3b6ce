//! A runtime that is spoken to through CRI alone: containerd, as if it were another.

use larder_tests::{ContainerdVersion, Layer, Registry, RegistryOptions};

use crate::support::{Node, blobs, id, image, short};

fn the_runtime_pulls_with_our_login(version: ContainerdVersion) {
    let node = Node::new(version, "cri");
    let login = Some(("reader".to_owned(), "s3cret-word".to_owned()));
    let registry = Registry::start(RegistryOptions { login, ..RegistryOptions::default() }).unwrap();
    let image = image(21);
    let pushed = registry.push(&image, "team/app", "v1").unwrap();
    let login = ["login", "-u", "reader", "-p", "s3cret-word", &registry.host()];
    node.larder(&login).ok().unwrap();
    let out = node.ok(&["pull", "--deliver", &pushed.name]);
    assert!(out.ends_with(&format!("Delivered image: {}\n", pushed.name)), "{out}");
    let seen = node.cri_image(&pushed.name).unwrap();
    assert_eq!(seen["id"], id(&image).as_str());
    assert_eq!(seen["repoDigests"][0], format!("{}@{}", pushed.repository, pushed.digest).as_str());
    // What it has, it is not asked to pull again.
    let mark = registry.mark().unwrap();
    node.ok(&["deliver", &pushed.name]);
    assert!(registry.requests_since(mark).unwrap().is_empty());
    assert!(!node.containerd.program().log().unwrap().contains("s3cret-word"));

    node.containerd.ctr(&["containers", "create", &pushed.name, "not-of-cri"]).unwrap();
    node.containerd.ctr(&["containers", "rm", "not-of-cri"]).unwrap();
    node.ok(&["rm", &pushed.name]);
    assert_eq!(node.cri_image(&pushed.name), None);
    assert_eq!(node.names().len(), 0);
}

#[test]
fn the_runtime_pulls_with_our_login_on_containerd_2() {
    the_runtime_pulls_with_our_login(ContainerdVersion::V2);
}

#[test]
fn the_runtime_pulls_with_our_login_on_containerd_1_7() {
    the_runtime_pulls_with_our_login(ContainerdVersion::V17);
}

/// Through CRI the runtime gets layers by itself and gives none back. A person's image is to be read from the store.
#[test]
fn what_a_person_pulls_can_be_read_whatever_was_left_to_the_runtime() {
    let node = Node::new(ContainerdVersion::V2, "cri");
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let shared = Layer::random(26, 300_000).unwrap();
    let image = |own: u64| {
        let own = Layer::random(own, 20_000).unwrap();
        larder_tests::Image::builder().layer(&shared).layer(&own).build().unwrap()
    };
    let agents = registry.push(&image(27), "team/agents", "v1").unwrap();
    let persons = registry.push(&image(28), "team/persons", "v1").unwrap();
    node.ok(&["apply", "-f", &node.cache(&agents.name)]);
    assert_eq!(blobs(&node.store()), 2, "its layers are in the runtime");
    node.ok(&["pull", &persons.name]);
    let archive = node.scratch.path().join("persons.tar");
    node.ok(&["save", "-o", archive.to_str().unwrap(), &persons.name]);
}

#[test]
fn a_tag_that_moves_meanwhile_is_told() {
    let node = Node::new(ContainerdVersion::V2, "cri");
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let pushed = registry.push(&image(22), "team/app", "v1").unwrap();
    node.ok(&["pull", &pushed.name]);
    let moved = registry.push(&image(23), "team/app", "v1").unwrap();
    let error = node.fails(&["deliver", &pushed.name]);
    let expected = format!("the registry gave {} where it had said {}", moved.digest, pushed.digest);
    assert!(error.contains(&expected), "{error}");
    // The runtime has the new one by now; the old one's name is not taken from it.
    node.ok(&["rm", &pushed.name]);
    assert!(node.cri_image(&pushed.name).is_some());
    let deliver = ["pull", "--deliver", "--quiet", &pushed.name];
    node.ok(&deliver);
    node.ok(&["rm", &pushed.name]);
    assert_eq!(node.cri_image(&pushed.name), None);
}

#[test]
fn further_names_and_pins_are_left_alone() {
    let node = Node::new(ContainerdVersion::V2, "cri");
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let image = image(24);
    let pushed = registry.push(&image, "team/app", "v1").unwrap();
    node.ok(&["pull", "--deliver", &pushed.name]);
    let other = format!("{}:other", pushed.repository);
    // CRI notices names by events of its own.
    node.containerd.ctr(&["images", "tag", &pushed.name, &other]).unwrap();
    larder_tests::until("CRI to see the name", larder_tests::wait::PATIENCE, || node.cri_image(&other))
        .unwrap();
    node.ok(&["rm", &pushed.name]);
    assert!(node.cri_image(&pushed.name).is_some(), "containerd would have taken the other name along");
    node.containerd.ctr(&["images", "rm", &other]).unwrap();
    let pinned = node.larder(&["pull", "--deliver", "--quiet", &pushed.name]).ok().unwrap();
    assert_eq!(pinned.stderr, "");
    node.containerd.ctr(&["images", "label", &pushed.name, "io.cri-containerd.pinned=pinned"]).unwrap();
    larder_tests::until("CRI to see the pin", larder_tests::wait::PATIENCE, || {
        (node.cri_image(&pushed.name)?["pinned"] == true).then_some(())
    })
    .unwrap();
    node.ok(&["rm", &pushed.name]);
    assert!(node.cri_image(&pushed.name).is_some(), "pinned by somebody else");
}

#[test]
fn pins_are_not_to_be_had() {
    let node = Node::new(ContainerdVersion::V2, "cri");
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let image = image(25);
    let pushed = registry.push(&image, "team/app", "v1").unwrap();
    node.ok(&["pull", &pushed.name]);
    let ran = node.larder(&["deliver", "--pin", short(&id(&image))]).ok().unwrap();
    assert!(ran.stderr.contains("images cannot be pinned through CRI"), "{}", ran.stderr);
    assert_eq!(ran.stdout, format!("Delivered image: {}\n", pushed.name));
}
