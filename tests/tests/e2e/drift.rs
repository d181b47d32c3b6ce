//! Images that somebody removes behind the agent's back are put back, and no registry hears of it.

use std::time::Instant;

use larder_tests::{Node, Registry, until, wait::PATIENCE};

use crate::{
    fixture::together,
    larder::{ImageCache, Larder, push, runtime_image},
};

/// The names that containerd has an image under, those by digest included.
fn records(node: &Node, repository: &str, config: &str) -> Vec<String> {
    let all = node.ctr(&["images", "ls", "--quiet"]).unwrap();
    all.lines().filter(|name| name.contains(repository) || name.contains(config)).map(str::to_owned).collect()
}

fn restored(larder: &Larder, node: &str, image: &str) -> usize {
    let events = larder.events("NodeImageCache", node);
    events.iter().filter(|(reason, note)| reason == "ImageRestored" && note.contains(image)).count()
}

fn requests_for(registry: &Registry, repository: &str) -> usize {
    registry.requests().unwrap().count(|request| request.path.contains(repository))
}

/// Removes an image as `remove` does it, given its names, and waits until it is back.
fn comes_back(node: &str, seed: u64, remove: impl Fn(&Node, &str, &[String])) {
    let e2e = together();
    let larder = e2e.larder();
    let node = e2e.cluster.node(node).unwrap();
    let repository = format!("drift/{seed}");
    let pushed = push(&e2e.registry, &repository, seed);
    let cache = ImageCache::apply_on(&e2e.cluster, &format!("drift-{seed}"), node.name(), &[&pushed.name]);
    cache.wait_ready(larder);
    let before = runtime_image(&node, &pushed.name).unwrap();
    let config = before["id"].as_str().unwrap();
    let names = records(&node, &repository, config);
    assert_eq!(names.len(), 3, "{names:?}");
    let requests = requests_for(&e2e.registry, &repository);

    let removed = Instant::now();
    remove(&node, &pushed.name, &names);
    until("it to be back", PATIENCE, || (records(&node, &repository, config) == names).then_some(()))
        .unwrap();
    println!("{} was back on {} after {:.1?}", pushed.name, node.name(), removed.elapsed());
    let told = until("the agent to tell of it", PATIENCE, || {
        (restored(larder, node.name(), &pushed.name) == 1).then_some(())
    });
    told.unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    until("kubelet to see it as it was", PATIENCE, || {
        (runtime_image(&node, &pushed.name)? == before).then_some(())
    })
    .unwrap();
    cache.wait_ready(larder);
    assert_eq!(requests_for(&e2e.registry, &repository), requests, "nothing is fetched that is on the node");
}

#[test]
fn what_ctr_removes_comes_back_without_the_registry() {
    comes_back("node-1", 5100, |node, _, names| {
        let names = names.iter().map(String::as_str);
        // Waits until containerd's collector has run.
        node.ctr(&["images", "rm", "--sync"].into_iter().chain(names).collect::<Vec<_>>()).unwrap();
    });
}

#[test]
fn what_crictl_removes_comes_back_without_the_registry() {
    comes_back("node-2", 5200, |node, name, _| {
        let removed = node.crictl(&["rmi", name]).unwrap().ok().unwrap();
        assert!(removed.stdout.contains("Deleted: "), "{}", removed.stdout);
    });
}
