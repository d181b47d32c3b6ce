//! What happens in containerd behind the agent's back. The agent does not look by the clock here.

use larder_tests::{Proxy, Registry, RegistryOptions, until, wait::PATIENCE};

use crate::fixture::{Node, image};

#[test]
fn what_somebody_removes_is_put_back_without_asking_a_registry() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    registry.push(&image(&[(1, 300_000), (2, 60_000)]), "app", "v1").unwrap();
    let app = format!("{}/app:v1", proxy.host());
    let node = Node::start();
    node.apply("app", &[&app]);
    node.wait_ready(1);
    let requests = proxy.exchanges().len();

    let ways: [&dyn Fn(); 3] = [
        &|| {
            let names = node.names();
            let names = names.iter().map(String::as_str);
            node.containerd
                .ctr(&["images", "rm", "--sync"].into_iter().chain(names).collect::<Vec<_>>())
                .unwrap();
        },
        &|| drop(node.containerd.crictl(&["rmi", &app]).unwrap()),
        // The pin alone: kubelet's collector would be free to take it.
        &|| drop(node.containerd.ctr(&["images", "label", &app, "io.cri-containerd.pinned="]).unwrap()),
    ];
    for (number, remove) in ways.into_iter().enumerate() {
        let restored = |count: usize| node.wait_event("ImageRestored", &app) == count as u64;
        remove();
        until("it to be back, as it was", PATIENCE, || node.is_pinned(&app).then_some(())).unwrap();
        until("that to be told", PATIENCE, || restored(number + 1).then_some(())).unwrap();
        node.wait_ready(1);
    }
    assert_eq!(proxy.exchanges().len(), requests, "{:?}", proxy.exchanges());
    assert_eq!(node.wait_event("ImageReady", &app), 1);
}

/// A layer that is lost, lease or no lease, is fetched; the others are not.
#[test]
fn a_layer_that_is_lost_is_fetched_again() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let built = image(&[(5, 300_000), (6, 60_000)]);
    let app = registry.push(&built, "app", "v1").unwrap().name;
    let node = Node::start();
    node.apply("app", &[&app]);
    node.wait_ready(1);
    let [kept, lost] = [0, 1].map(|number: usize| built.layers()[number].digest.to_string());
    node.containerd.ctr(&["content", "rm", &lost]).unwrap();
    until("the layer to be fetched again", PATIENCE, || {
        (registry.requests().unwrap().gets_of(&lost) == 2).then_some(())
    })
    .unwrap();
    until("it to be in the runtime", PATIENCE, || node.content().contains(&lost).then_some(())).unwrap();
    node.wait_ready(1);
    assert_eq!(registry.requests().unwrap().gets_of(&kept), 1);
}

/// kubelet pulled a tag that had moved: what the registry says now is what the node is to have.
#[test]
fn a_name_that_moved_in_the_runtime_is_looked_up() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(10, 60_000)]), "app", "v1").unwrap();
    let node = Node::start();
    node.apply("app", &[&app.name]);
    node.wait_ready(1);
    let moved = registry.push(&image(&[(11, 60_000)]), "app", "v1").unwrap();
    node.containerd.ctr(&["images", "pull", "--plain-http", &app.name]).unwrap();
    node.wait("the new digest", |status| {
        status["images"][0]["digest"] == moved.digest.as_str() && status["images"][0]["state"] == "Ready"
    });
    assert!(node.is_pinned(&format!("{}@{}", moved.repository, moved.digest)));

    // Somebody gives the name to something else altogether.
    let other = registry.push(&image(&[(12, 60_000)]), "other", "v1").unwrap();
    node.containerd.ctr(&["images", "pull", "--plain-http", &other.name]).unwrap();
    node.containerd.ctr(&["images", "tag", "--force", &other.name, &app.name]).unwrap();
    until("the name to stand for what the registry says", PATIENCE, || {
        let seen = node.cri_image(&app.name)?;
        let digests = seen["repoDigests"].to_string();
        (digests.contains(moved.digest.as_str()) && seen["pinned"] == true).then_some(())
    })
    .unwrap();
    node.wait_ready(1);
}
