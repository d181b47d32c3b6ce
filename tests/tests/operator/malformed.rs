//! Objects that do not decode, as an older or newer definition let them in.

use larder_tests::{until, wait::PATIENCE};
use serde_json::json;

use crate::support::{Cluster, images};

/// Takes the schema of a kind's specification away.
fn allow_anything(cluster: &Cluster, definition: &str) {
    let anything = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]);
    cluster.plane.kubectl(&["patch", "crd", definition, "--type=json", "-p", &anything.to_string()]).unwrap();
}

/// One of each kind that does not decode, from the first list on and by the watch: the others are worked on, the
/// malformed ones are left as they are, and the `ImageCache` says so.
#[test]
fn a_malformed_object_stops_no_watch() {
    let cluster = Cluster::start();
    for node in ["a", "b", "c"] {
        cluster.plane.create_node(node, &[("pool", "web")]).unwrap();
    }
    allow_anything(&cluster, "imagecaches.larder.dev");
    allow_anything(&cluster, "nodeimagecaches.larder.dev");
    let malformed = |name: &str| {
        let object = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCache",
            "metadata": {"name": name}, "spec": {"images": "oops"}});
        until("the looser definition to be in force", PATIENCE, || {
            cluster.plane.apply(&object.to_string()).ok().map(drop)
        })
        .unwrap();
    };
    malformed("b");
    until("the looser definition to be in force", PATIENCE, || {
        let object = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
            "metadata": {"name": "listed"}, "spec": {"images": {"not": "a list"}}});
        cluster.plane.apply(&object.to_string()).ok().map(drop)
    })
    .unwrap();
    let operator = cluster.alone();
    operator.program.start().unwrap();
    operator.wait_ready(200, "leading");
    cluster.wait_reason("listed", "InvalidSpec");
    cluster.apply("web", &images("web", &["quay.io/app:v1"]));
    cluster.wait_told("a", &["quay.io/app:v1"]);

    cluster.apply("watched", &json!({"images": 7}));
    cluster.wait_reason("watched", "InvalidSpec");
    malformed("c");
    cluster.apply("web", &images("web", &["quay.io/app:v2"]));
    cluster.wait_told("a", &["quay.io/app:v2"]);
    for node in ["b", "c"] {
        let object = cluster.plane.get(&["nodeimagecache", node]).unwrap();
        assert_eq!(object["spec"]["images"], "oops", "{node} was touched");
    }
    operator.wait_metric(r#"larder_image_caches{state="stalled"}"#, 2.0);
    assert_eq!(operator.ask("/healthz").unwrap().code, 200);
    assert_eq!(operator.metric(r#"larder_watch_restarts_total{kind="node_image_cache"}"#), None);
}
