//! What an administrator sees. `cargo xtask e2e seen:: -- --nocapture` prints it, and docs/delivery.md shows it.

use larder_tests::{Pod, PodOptions, until, wait::PATIENCE};
use serde_json::Value;

use crate::{
    fixture::{Shared, together},
    larder::{AGENTS, ImageCache, SYSTEM, push, runtime_image},
};

/// Runs kubectl, prints it as it looks on a terminal, and gives what it printed.
fn seen(shared: &Shared, args: &str) -> String {
    let ran = shared.cluster.kubectl(&args.split(' ').collect::<Vec<_>>()).unwrap();
    println!("$ kubectl {args}\n{}", ran.stdout);
    ran.stdout
}

/// A cell of a table's only row. Headings are single words, and a cell ends where the next heading begins.
fn cell<'a>(table: &'a str, heading: &str) -> &'a str {
    let (headings, row) = table.trim_end().split_once('\n').unwrap();
    let from = headings.find(heading).unwrap_or_else(|| panic!("no {heading}: {table}"));
    let after = &headings[from + heading.len()..];
    let next = after.len() - after.trim_start().len();
    let to = if next == after.len() { row.len() } else { from + heading.len() + next };
    row[from..to].trim()
}

#[test]
fn tables_events_and_logs_tell_what_happens() {
    let e2e = together();
    let larder = e2e.larder();
    let node = e2e.cluster.node("node-1").unwrap();
    let count = e2e.cluster.nodes().len();
    let app = push(&e2e.registry, "shop/app", 6100).name;
    let tools = push(&e2e.registry, "shop/tools", 6200).name;
    let typo = tools.replace(":v1", ":v2");

    // A name that is wrong.
    let cache = ImageCache::apply(&e2e.cluster, "shop", &[&app, &typo]);
    until("the wrong name to be told", PATIENCE, || {
        let told = larder.events("ImageCache", "shop");
        let nodes = cache.get()["status"]["nodes"]["failed"].as_u64()?;
        (told.iter().any(|(reason, _)| reason == "ImagesUnavailable") && nodes == count as u64).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    let table = seen(&e2e, "get imagecache shop --output wide");
    assert_eq!((cell(&table, "READY"), cell(&table, "NODES")), ("False", &*format!("0/{count}")));
    assert_eq!(cell(&table, "REASON"), "ImagesUnavailable");
    assert!(cell(&table, "MESSAGE").contains(&typo), "{table}");

    // The right one.
    cache.edit(&[&app, &tools]);
    cache.wait_ready(larder);
    let table = seen(&e2e, "get imagecache shop");
    let values = ["READY", "NODES", "PROGRESS"].map(|heading| cell(&table, heading));
    assert_eq!(values, ["True", &format!("{count}/{count}"), "100%"], "{table}");
    seen(&e2e, "get imagecaches,nodeimagecaches --output wide");
    let table = seen(&e2e, "get nodeimagecache node-1 --output wide");
    assert!(cell(&table, "RUNTIME").starts_with("containerd 2."), "{table}");
    assert_eq!(cell(&table, "AGENT"), env!("CARGO_PKG_VERSION"));

    // One of them is in use, and not wanted any more.
    let pod = PodOptions::new("shop-tools").image(&tools).node("node-1");
    let pod = Pod::start(&e2e.cluster, &pod).unwrap();
    cache.edit(&[&app]);
    until("the agent to tell that it is in use", PATIENCE, || {
        let told = larder.events("NodeImageCache", "node-1");
        told.iter().any(|(reason, note)| reason == "ImageInUse" && note.contains(&tools)).then_some(())
    })
    .unwrap();
    cache.wait_ready(larder);
    let described = seen(&e2e, "describe nodeimagecache node-1");
    assert!(described.contains("used by container main of pod default/shop-tools (running)"), "{described}");
    pod.delete().unwrap();

    // Somebody removes the other.
    node.crictl(&["rmi", &app]).unwrap().ok().unwrap();
    until("both to be told", PATIENCE, || {
        let told = larder.events("NodeImageCache", "node-1");
        let tells = |kind: &str, image: &str| {
            told.iter().any(|(reason, note)| reason == kind && note.contains(image))
        };
        (tells("ImageRestored", &app) && tells("ImageRemoved", &tools)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    assert!(runtime_image(&node, &app).is_some());
    seen(&e2e, "describe nodeimagecache node-1");
    let described = seen(&e2e, "describe imagecache shop");
    // Each turn is told once.
    for reason in ["ImagesUnavailable", "AllImagesReady"] {
        let (_, events) = described.split_once("Events:").unwrap();
        assert_eq!(events.matches(reason).count(), 1, "{events}");
    }

    for (namespace, what) in [(SYSTEM, "deployment/larder-operator"), (AGENTS, "daemonset/larder-agent")] {
        let log = seen(&e2e, &format!("logs --namespace {namespace} {what}"));
        for line in log.lines() {
            let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(entry["level"].is_string() && entry["timestamp"].is_string(), "{line}");
        }
        assert!(!log.contains("s3cret"), "{log}");
    }
    let log = larder.agent_log("node-1");
    assert!(log.contains("somebody removed it; putting it back") && log.contains(&app), "{log}");
}
