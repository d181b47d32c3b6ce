//! An image that a pod was made from stays, whatever becomes of the `ImageCache`, and goes when the pod does.

use larder_tests::{
    Node, Pod, PodOptions,
    kubernetes::images::{BUSYBOX, PAUSE},
    until,
    wait::PATIENCE,
};
use serde_json::Value;

use crate::{
    fixture::together,
    larder::{ImageCache, Larder, image, push, runtime_image, stored},
};

/// Waits until the agent says that an image is in use, and gives the sentence.
fn wait_in_use(larder: &Larder, node: &str, image: &str) -> String {
    let message = until(&format!("{image} to be in use on {node}"), PATIENCE, || {
        let found = larder.image_on(node, image)?;
        (found["state"] == "InUse").then(|| found["message"].as_str().unwrap().to_owned())
    });
    message.unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()))
}

/// What is left on a node of an image that [`push`] made of this seed: files of the store, and content and snapshots of
/// containerd. What it shares with all images, busybox, is left out.
fn remains(node: &Node, seed: u64) -> Vec<String> {
    let image = image(seed);
    let layers = image.layers().iter().skip(1);
    let digests: Vec<&str> = std::iter::once(&image.manifest)
        .chain(&image.blobs[..1])
        .chain(layers)
        .map(|blob| blob.digest.as_str())
        .collect();
    let in_store = node.sh("find /var/lib/larder -type f").unwrap();
    let in_runtime = node.ctr(&["content", "ls", "--quiet"]).unwrap();
    let all = in_store.lines().chain(in_runtime.lines());
    let is_ours = |line: &&str| digests.iter().any(|digest| line.contains(&digest["sha256:".len()..]));
    all.filter(is_ours).map(str::to_owned).collect()
}

/// Waits until nothing of an image is left on a node: not for kubelet, not in the status, not on the disk.
fn wait_gone(larder: &Larder, node: &Node, image: &str, seed: u64) {
    let gone = until(&format!("{image} to go from {}", node.name()), PATIENCE, || {
        let in_status = larder.image_on(node.name(), image).is_some();
        let named = in_status
            || runtime_image(node, image).is_some()
            || stored(node).iter().any(|name| name == image);
        (!named && remains(node, seed).is_empty()).then_some(())
    });
    gone.unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", remains(node, seed), larder.describe()));
}

/// The images that are not Larder's business.
fn foreign(node: &Node) -> [Option<Value>; 2] {
    [PAUSE, BUSYBOX].map(|name| runtime_image(node, name))
}

#[test]
fn an_image_that_a_pod_runs_stays_until_the_pod_is_gone() {
    let e2e = together();
    let larder = e2e.larder();
    let node = e2e.cluster.node("node-1").unwrap();
    let before = foreign(&node);
    let [used, kept] = [2100, 2200].map(|seed| push(&e2e.registry, &format!("used/{seed}"), seed).name);
    let cache = ImageCache::apply_on(&e2e.cluster, "in-use-edited", "node-1", &[&used, &kept]);
    cache.wait_ready(larder);
    let pod = PodOptions::new("in-use-running").image(&used).node("node-1");
    let pod = Pod::start(&e2e.cluster, &pod).unwrap();

    cache.edit(&[&kept]);
    let message = wait_in_use(larder, "node-1", &used);
    assert!(message.contains("container main of pod default/in-use-running (running)"), "{message}");
    // The cache is as its author wants it: that the old image is still there holds nothing up.
    cache.wait_ready(larder);
    assert_eq!(larder.image_on("node-1", &kept).unwrap()["state"], "Ready");
    assert_eq!(runtime_image(&node, &used).unwrap()["pinned"], true);
    assert!(stored(&node).contains(&used));
    // It can be started anew.
    let second = PodOptions::new("in-use-second").image(&used).node("node-1");
    Pod::start(&e2e.cluster, &second).unwrap().delete().unwrap();

    // The manifest, the configuration and two layers of its own, each somewhere.
    assert!(remains(&node, 2100).len() >= 4, "{:#?}", remains(&node, 2100));
    pod.delete().unwrap();
    wait_gone(larder, &node, &used, 2100);
    assert_eq!(runtime_image(&node, &kept).unwrap()["pinned"], true);
    cache.delete();
    wait_gone(larder, &node, &kept, 2200);
    assert_eq!(foreign(&node), before);
    assert_eq!(before[0].as_ref().unwrap()["pinned"], true);
}

/// A container that has ended is still there until its pod is deleted, and its logs with it.
#[test]
fn an_image_of_a_completed_pod_stays_until_the_pod_is_gone() {
    let e2e = together();
    let larder = e2e.larder();
    let node = e2e.cluster.node("node-2").unwrap();
    let before = foreign(&node);
    let job = push(&e2e.registry, "used/job", 2300).name;
    let cache = ImageCache::apply_on(&e2e.cluster, "in-use-deleted", "node-2", &[&job]);
    cache.wait_ready(larder);
    let options = PodOptions::new("in-use-completed").image(&job).node("node-2").command(&["true"]);
    let pod = Pod::create(&e2e.cluster, &options).unwrap();
    pod.wait_phase("Succeeded").unwrap();

    cache.delete();
    let message = wait_in_use(larder, "node-2", &job);
    assert!(message.contains("container main of pod default/in-use-completed (stopped)"), "{message}");
    assert!(runtime_image(&node, &job).is_some());
    let told = larder.events("NodeImageCache", "node-2");
    let tells = |note: &String| note.contains(&job) && note.contains("default/in-use-completed");
    assert!(told.iter().any(|(reason, note)| reason == "ImageInUse" && tells(note)), "{told:#?}");

    pod.delete().unwrap();
    wait_gone(larder, &node, &job, 2300);
    assert_eq!(foreign(&node), before);
}
