//! What a person sees with kubectl.

use larder_tests::{Registry, RegistryOptions};

use crate::fixture::{Larder, condition, image, image_cache, images};

#[test]
fn get_explain_and_wait() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(120, 50_000)]), "app", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[]), ("b", &[])]);
    larder.apply("web", &images(None, &[&app]));
    larder.cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "ic/web"]).unwrap();

    let table = larder.cluster.kubectl(&["get", "ic"]).unwrap().stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "READY", "NODES", "PROGRESS", "REASON", "AGE"], "{table}");
    assert_eq!(rows[1][..4], ["web", "True", "2/2", "100%"], "{table}");
    let wide = larder.cluster.kubectl(&["get", "ic", "-o", "wide"]).unwrap().stdout;
    assert!(wide.contains("AllImagesReady"), "{wide}");
    let nodes = larder.cluster.kubectl(&["get", "nic"]).unwrap().stdout;
    let rows: Vec<Vec<&str>> = nodes.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "READY", "IMAGES", "PROGRESS", "AGE"], "{nodes}");
    assert_eq!(rows[1][..4], ["a", "True", "1/1", "100%"], "{nodes}");

    for (field, text) in [
        ("imagecache.spec.images", "at most 256"),
        ("imagecache.spec.images.image", "[registry/]repository[:tag][@digest]"),
        ("imagecache.spec.deletionPolicy", "Retain"),
        ("imagecache.spec.nodeSelector", "Which nodes hold the images"),
        ("imagecache.status.failures.reason", "NoMatchingPlatform"),
        ("nodeimagecache.spec.released", "Retain"),
    ] {
        let explained = larder.cluster.kubectl(&["explain", field]).unwrap().stdout;
        assert!(explained.contains(text), "{field}: {explained}");
    }
}

#[test]
fn a_fresh_object_never_looks_finished() {
    let cluster = larder_tests::ControlPlane::start().unwrap();
    cluster.install_crds().unwrap();
    cluster.apply(&image_cache("new", &images(None, &["app:v1"]))).unwrap();
    let status = &cluster.get(&["ic", "new"]).unwrap()["status"];
    assert_eq!(condition(status, "Ready")["status"], "Unknown");
    assert_eq!(condition(status, "Ready")["reason"], "Pending");
}

/// Writes that change nothing are not sent: with nothing to do, no resource version moves.
#[test]
fn at_rest_nothing_is_written() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(121, 50_000)]), "app", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("web", &images(None, &[&app]));
    larder.wait_ready("web", 1);
    let versions = || {
        let objects = larder.cluster.get(&["ic,nic"]).unwrap();
        let items = objects["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["metadata"]["resourceVersion"].clone()).collect::<Vec<_>>()
    };
    let before = versions();
    larder.operator.restart().unwrap();
    larder.agent("a").restart().unwrap();
    // Both have seen everything anew when the next ImageCache is ready.
    larder.apply("marker", &images(None, &[]));
    larder.wait_ready("marker", 1);
    larder.delete("marker");
    assert_eq!(versions(), before);
}
