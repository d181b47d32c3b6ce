//! Input that nobody should send: one clear error each, nothing lost, bounded memory.

use larder_tests::{Fault, Image, Layer, Proxy, Registry, RegistryOptions, Rule, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Larder, condition, image, image_cache, images};

#[test]
fn the_api_server_refuses_with_a_message_that_says_what_to_write() {
    let cluster = larder_tests::ControlPlane::start().unwrap();
    cluster.install_crds().unwrap();
    let refused = |spec: &Value| {
        let ran = cluster.try_kubectl(&["apply", "-f", "-"], &image_cache("bad", spec)).unwrap();
        assert!(!ran.status.success(), "accepted: {spec}");
        ran.stderr
    };
    for (name, message) in [
        ("https://quay.io/app:v1", "image must not have a scheme"),
        ("MyApp:v1", "image must have a lower-case repository name"),
        ("quay.io/My/app", "image must have a lower-case repository name"),
        ("Team/app", "image must have a lower-case repository name"),
        ("my app", "image must not contain white space"),
        ("app@sha256:abc", "image has a malformed digest"),
        ("app:", "image must be [registry/]repository[:tag][@digest]"),
        ("app:v1:v2", "image must be [registry/]repository[:tag][@digest]"),
        ("", "should be at least 1 chars long"),
    ] {
        let error = refused(&images(None, &[name]));
        assert!(error.contains(message), "{name}: {error}");
    }
    let long = format!("{}:v1", "a".repeat(10_000));
    assert!(refused(&images(None, &[&long])).contains("may not be more than 520"));
    let error = refused(&json!({"images": [{"image": "app", "platform": "amd64"}]}));
    assert!(error.contains("platform must be os/architecture[/variant]"), "{error}");
    let many: Vec<Value> = (0..257).map(|number| json!({"image": format!("app:{number}")})).collect();
    let error = refused(&json!({"images": many}));
    assert!(error.contains("must have at most 256 items"), "{error}");
    let error = refused(&json!({"images": [{"image": "app"}, {"image": "app"}]}));
    assert!(error.contains("Duplicate value"), "{error}");
    for name in [
        "ubuntu",
        "ubuntu:18.04",
        "127.0.0.1:5000/a/b__c-d.e:V1_x",
        &format!("app@sha256:{}", "0".repeat(64)),
        "Registry.corp/app",
    ] {
        cluster.apply(&image_cache("good", &images(None, &[name]))).unwrap();
    }
}

#[test]
fn a_selector_that_matches_nothing_is_ready_and_says_so() {
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("nowhere", &images(Some(("pool", "none")), &["app:v1"]));
    let status = &larder.wait_ready("nowhere", 0)["status"];
    let ready = condition(status, "Ready");
    assert_eq!(ready["reason"], "NoMatchingNodes");
    assert!(ready["message"].as_str().unwrap().contains("node"), "{ready}");
}

#[test]
fn a_selector_that_cannot_be_read_is_reported_and_touches_nothing() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(110, 50_000)]), "app", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("typo", &images(None, &[&app]));
    larder.wait_ready("typo", 1);
    let selector = json!({"matchExpressions": [{"key": "pool", "operator": "Inn", "values": ["web"]}]});
    larder.apply("typo", &json!({"nodeSelector": selector, "images": [{"image": app}]}));
    let cache = larder.wait_cache("typo", "an invalid specification", |status| {
        condition(status, "Stalled")["status"] == "True"
    });
    assert_eq!(condition(&cache["status"], "Stalled")["reason"], "InvalidSpec");
    assert!(condition(&cache["status"], "Ready")["message"].as_str().unwrap().contains("nodeSelector"));
    larder.wait_held("a", &[&app]);
    larder.apply("typo", &images(None, &[&app]));
    larder.wait_ready("typo", 1);
}

#[test]
fn images_that_cannot_be_used() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let layer = Layer::random(111, 50_000).unwrap();
    let built = |platform: &str| Image::builder().platform(platform).layer(&layer).build().unwrap();
    registry
        .push(&Image::index(&[built("linux/s390x"), built("linux/arm/v6")]).unwrap(), "foreign", "v1")
        .unwrap();
    registry.push(&built("linux/s390x"), "single", "v1").unwrap();
    registry.push(&image(&[(112, 20_000)]), "huge", "v1").unwrap();
    registry.push(&image(&[(113, 20_000)]), "html", "v1").unwrap();
    registry.push(&image(&[(114, 20_000)]), "good", "v1").unwrap();
    let size = image(&[(115, 30_000)]);
    registry.push(&size, "size", "v1").unwrap();
    let chunked = image(&[(116, 30_000)]);
    registry.push(&chunked, "chunked", "v1").unwrap();

    let manifest = format!("{{\"schemaVersion\":2,\"annotations\":{{\"a\":\"{}\"}}}}", "x".repeat(5 << 20));
    proxy.add(
        Rule::get("/huge/manifests/")
            .then(Fault::ReplaceBody(manifest.into()))
            .then(Fault::WithoutHeader("docker-content-digest")),
    );
    proxy.add(
        Rule::get("/html/manifests/")
            .then(Fault::ReplaceBody("<html>Log in to continue</html>".into()))
            .then(Fault::WithoutHeader("docker-content-digest")),
    );
    proxy.add(Rule::get(size.layers()[0].digest.as_str()).then(Fault::Shorten(10_000)));
    proxy.add(
        Rule::get(chunked.layers()[0].digest.as_str()).then(Fault::Append("more than announced".into())),
    );

    let name = |repository: &str| format!("{}/{repository}:v1", proxy.host());
    let names: Vec<String> =
        ["foreign", "single", "huge", "html", "size", "chunked", "good"].map(name).to_vec();
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("unusable", &images(None, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    for (repository, reason, message) in [
        ("foreign", "NoMatchingPlatform", "it has linux/s390x, linux/arm/v6"),
        ("single", "NoMatchingPlatform", "linux/s390x"),
        ("huge", "InvalidManifest", "larger than 4 MiB"),
        ("html", "InvalidManifest", "malformed"),
        ("size", "SizeMismatch", "descriptor says"),
        ("chunked", "SizeMismatch", "descriptor says"),
    ] {
        let failure = larder.wait_failure("unusable", &name(repository), reason);
        assert!(failure["message"].as_str().unwrap().contains(message), "{failure}");
    }
    larder.wait_held("a", &[&name("good")]);
    let peak = peak_memory_kib(larder.agent("a").id().unwrap());
    assert!(peak < 128 << 10, "the agent used {peak} KiB");

    // A platform of the user's choice, in an index and on its own.
    larder.apply("chosen", &json!({"images": [
        {"image": name("foreign"), "platform": "linux/arm/v7"}, {"image": name("single"), "platform": "linux/s390x"},
    ]}));
    larder.wait_ready("chosen", 1);
}

/// Objects that a looser definition let in, as after a downgrade or a restored backup.
#[test]
fn a_malformed_object_stops_nobody_else() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(117, 50_000)]), "app", "v1").unwrap().name;
    let tool = registry.push(&image(&[(118, 50_000)]), "tool", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("was-fine", &images(None, &[&app]));
    larder.wait_ready("was-fine", 1);
    let anything = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]);
    larder
        .cluster
        .kubectl(&["patch", "crd", "imagecaches.larder.dev", "--type=json", "-p", &anything.to_string()])
        .unwrap();
    until("the looser definition to be in force", PATIENCE, || {
        larder.cluster.apply(&image_cache("malformed", &json!({"images": "oops"}))).ok()
    })
    .unwrap();
    larder.apply("was-fine", &json!({"images": 7}));
    larder.apply("unreadable", &json!({"images": [{"image": "NOT/valid"}]}));
    larder.apply("fine", &images(None, &[&tool]));
    larder.wait_ready("fine", 1);
    larder.wait_held("a", &[&app, &tool]);
    larder.wait_cache("unreadable", "stalled", |status| {
        condition(status, "Stalled")["reason"] == "InvalidSpec"
    });
    larder.operator.restart().unwrap();
    larder.apply("fine", &images(None, &[]));
    larder.wait_held("a", &[&app]);
}

fn peak_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
