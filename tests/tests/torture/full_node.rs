//! An agent whose disk, a small tmpfs, is full: it says so, and goes on by itself when there is space.

use std::path::Path;

use larder_tests::{
    ControlPlane, Image, Layer, Registry, RegistryOptions, Scratch, larder, process::run, tools::in_path,
    until, wait::PATIENCE,
};
use serde_json::{Value, json};

use crate::private;

#[test]
fn an_agent_says_that_the_disk_is_full_and_goes_on_when_there_is_space() {
    private::run("full_node::agent");
}

#[test]
#[ignore = "run by the test above, in a mount namespace"]
fn agent() {
    if !private::is_inside() {
        return;
    }
    let scratch = Scratch::new("disk-full").unwrap();
    let disk = scratch.folder("disk").unwrap();
    mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &disk);
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let image = |seed, size| Image::builder().layer(&Layer::random(seed, size).unwrap()).build().unwrap();
    let small = registry.push(&image(1, 200_000), "small", "v1").unwrap().name;
    let large = registry.push(&image(2, 3_000_000), "large", "v1").unwrap().name;

    let cluster = ControlPlane::start().unwrap();
    cluster.install_crds().unwrap();
    let operator = larder::operator(cluster.kubeconfig(), scratch.path()).unwrap();
    operator.start().unwrap();
    cluster.create_node("node", &[]).unwrap();
    let agent = larder::agent(cluster.kubeconfig(), "node", &disk.join("store"), scratch.path()).unwrap();
    let agent = agent.args(["--max-backoff", "2", "--check-interval", "2"]);
    agent.start().unwrap();
    let process = agent.id();
    let cache = json!({
        "apiVersion": "larder.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": "web"},
        "spec": {"images": [{"image": large}, {"image": small}]},
    });
    cluster.apply(&cache.to_string()).unwrap();

    let status = || cluster.get(&["imagecache", "web"]).ok().map(|cache| cache["status"].clone());
    let failure = until("a failure with the reason DiskFull", PATIENCE, || {
        let failures = status()?["failures"].as_array()?.clone();
        let is_it = |failure: &Value| failure["reason"] == "DiskFull" && failure["image"] == large.as_str();
        failures.into_iter().find(is_it)
    })
    .unwrap();
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("free some space") && message.contains(disk.to_str().unwrap()), "{message}");

    mount(&["-o", "remount,size=64m"], &disk);
    for image in [&large, &small] {
        until(&format!("{image} to be there"), PATIENCE, || ready(&status()?, image)).unwrap();
    }
    assert_eq!(agent.id(), process, "nobody had to start it anew");
    drop(agent);
    run(&in_path("umount").unwrap(), &[disk.to_str().unwrap()], &[], b"").unwrap().ok().unwrap();
}

fn ready(status: &Value, image: &str) -> Option<()> {
    let images = status["images"].as_array()?;
    images.iter().any(|entry| entry["image"] == image && entry["nodesReady"] == 1).then_some(())
}

fn mount(args: &[&str], folder: &Path) {
    let args = [args, &[folder.to_str().unwrap()]].concat();
    run(&in_path("mount").unwrap(), &args, &[], b"").unwrap().ok().unwrap();
}
