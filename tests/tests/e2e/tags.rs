//! Further names and pins on real nodes. `cargo xtask e2e tags:: -- --nocapture` prints what docs/use/cache-images.md shows.

use larder_tests::{Node, Pod, PodOptions, until, wait::PATIENCE};
use serde_json::json;

use crate::{
    away::Away,
    fixture::{Shared, alone, together},
    larder::{ImageCache, push, runtime_image},
};

/// Runs kubectl, and prints it as it looks on a terminal.
fn seen(shared: &Shared, args: &str) {
    let ran = shared.cluster.kubectl(&args.split(' ').collect::<Vec<_>>()).unwrap();
    println!("$ kubectl {args}\n{}", ran.stdout);
}

/// The lines that `crictl images` has for a repository.
fn listed(node: &Node, repository: &str) -> String {
    let table = node.crictl(&["images"]).unwrap().ok().unwrap().stdout;
    let is_shown = |(number, line): &(usize, &str)| *number == 0 || line.contains(repository);
    table.lines().enumerate().filter(is_shown).map(|(_, line)| line).collect::<Vec<_>>().join("\n")
}

/// The labels that containerd has for a name.
fn labels(node: &Node, name: &str) -> String {
    node.ctr(&["images", "ls", &format!("name=={name}")]).unwrap()
}

#[test]
fn pods_start_under_a_further_name_while_the_registry_is_away() {
    const BASE: &str = "registry.example/team/base:stable";
    let e2e = alone();
    let larder = e2e.larder();
    let app = push(&e2e.registry, "team/app", 7100);
    let cache = ImageCache::apply_images(&e2e.cluster, "team", json!([{"image": app.name, "tags": [BASE]}]));
    seen(&e2e, "get imagecache team --output wide");
    cache.wait_ready(larder);
    seen(&e2e, "get imagecache team");
    seen(&e2e, "get nodeimagecaches");
    seen(&e2e, "get imagecache team --output jsonpath-as-json={.status.images}");

    // Another team wants the name for an image of its own.
    let other = push(&e2e.registry, "team/other", 7300).name;
    let second = ImageCache::apply_images(&e2e.cluster, "other", json!([{"image": other, "tags": [BASE]}]));
    until("the conflict to be told", PATIENCE, || {
        (second.get()["status"]["failures"][0]["reason"] == "NameConflict").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    until("all nodes to have said so", PATIENCE, || {
        (second.get()["status"]["nodes"]["failed"] == e2e.cluster.nodes().len()).then_some(())
    })
    .unwrap();
    seen(&e2e, "get imagecaches --output wide");
    second.delete();
    cache.wait_ready(larder);

    let away = Away::new(&e2e.registry);
    for node in &e2e.cluster.nodes() {
        let named = runtime_image(node, BASE).unwrap();
        assert_eq!(
            (&named["id"], &named["pinned"]),
            (&runtime_image(node, &app.name).unwrap()["id"], &json!(true))
        );
        let name = format!("tags-{}", node.name());
        let pod = PodOptions::new(&name).image(BASE).pull_policy("Never").node(node.name());
        let pod = Pod::start(&e2e.cluster, &pod).unwrap();
        println!("{}\n", listed(node, "/team/"));
        pod.delete().unwrap();
    }
    drop(away);
    // Gone with the edit, and the image stays.
    cache.edit_images(json!([{"image": app.name}]));
    for node in &e2e.cluster.nodes() {
        until("the name to go", PATIENCE, || runtime_image(node, BASE).is_none().then_some(()))
            .unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
        assert_eq!(runtime_image(node, &app.name).unwrap()["pinned"], true);
    }
    cache.wait_ready(larder);
    cache.delete();
}

#[test]
fn a_pin_comes_and_goes_with_the_edit() {
    let e2e = together();
    let larder = e2e.larder();
    let node = e2e.cluster.node("node-2").unwrap();
    let app = push(&e2e.registry, "pins/app", 7200);
    let cache = ImageCache::apply_on(&e2e.cluster, "pin-edited", "node-2", &[&app.name]);
    cache.wait_ready(larder);
    let mark = e2e.registry.mark().unwrap();
    for pin in [false, true] {
        let patch = json!({"spec": {"pin": pin}}).to_string();
        e2e.cluster
            .kubectl(&["patch", "imagecache", "pin-edited", "--type=merge", "--patch", &patch])
            .unwrap();
        until(&format!("kubelet to see pinned: {pin}"), PATIENCE, || {
            (runtime_image(&node, &app.name)?["pinned"] == pin).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
        assert_eq!(labels(&node, &app.name).contains("io.cri-containerd.pinned"), pin);
        cache.wait_ready(larder);
    }
    let requests = e2e.registry.requests_since(mark).unwrap();
    assert_eq!(requests.count(|request| request.path.contains("/pins/app/")), 0, "{:?}", requests.to_vec());
    cache.delete();
}
