//! `/metrics`: what it counts, and that its labels stay few.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Cluster, failed, images, ready};

#[test]
fn the_cluster_in_numbers() {
    let cluster = Cluster::start();
    for (node, pool) in [("a", "web"), ("b", "web"), ("c", "db")] {
        cluster.plane.create_node(node, &[("pool", pool)]).unwrap();
    }
    let replica = cluster.replica("one");
    replica.program.start().unwrap();
    replica.wait_ready(200, "leading");
    cluster.apply("web", &images("web", &["quay.io/app:v1", "quay.io/db:v1"]));
    let both = ["quay.io/app:v1", "quay.io/db:v1"];
    cluster.wait_told("a", &both);
    cluster.wait_told("b", &both);
    replica.wait_metric(r#"larder_nodes{state="no_agent"}"#, 2.0);
    replica.wait_metric(r#"larder_nodes{state="unselected"}"#, 1.0);
    replica.wait_metric(r#"larder_node_images{state="unreported"}"#, 4.0);

    cluster.report("a", &json!([ready("quay.io/app:v1", 1_000), ready("quay.io/db:v1", 500)]));
    cluster.report(
        "b",
        &json!([
            {"image": "quay.io/app:v1", "state": "Pulling", "size": 1_000, "bytesPresent": 300},
            failed("quay.io/db:v1", "NotFound", "push the image"),
        ]),
    );
    cluster.wait_reason("web", "ImagesFailing");
    for (series, value) in [
        (r#"larder_nodes{state="ready"}"#, 1.0),
        (r#"larder_nodes{state="failed"}"#, 1.0),
        (r#"larder_nodes{state="no_agent"}"#, 0.0),
        (r#"larder_nodes{state="unselected"}"#, 1.0),
        (r#"larder_node_images{state="ready"}"#, 2.0),
        (r#"larder_node_images{state="pulling"}"#, 1.0),
        (r#"larder_node_images{state="failed"}"#, 1.0),
        (r#"larder_failed_node_images{reason="NotFound"}"#, 1.0),
        (r#"larder_image_caches{state="degraded"}"#, 1.0),
        ("larder_node_images_wanted_bytes", 2_500.0),
        ("larder_node_images_present_bytes", 1_800.0),
        ("larder_queue_keys", 0.0),
        ("larder_queue_age_seconds", 0.0),
        ("larder_leader_status", 1.0),
        (r#"larder_build_info{version="0.1.0"}"#, 1.0),
    ] {
        replica.wait_metric(series, value);
    }
    let count = |series: &str| replica.metric(series).unwrap_or_default();
    assert!(count(r#"larder_writes_total{kind="node_image_cache",outcome="ok"}"#) >= 3.0);
    assert!(count(r#"larder_writes_total{kind="image_cache_status",outcome="ok"}"#) >= 1.0);
    assert!(count(r#"larder_writes_total{kind="lease",outcome="ok"}"#) >= 1.0);
    replica.wait_metric(r#"larder_writes_total{kind="event",outcome="ok"}"#, 2.0);
    assert!(count(r#"larder_reconcile_duration_seconds_count{kind="node",result="written"}"#) >= 3.0);

    // What agents fetch is added up; what one takes back is not.
    cluster.patch_status(
        "a",
        &json!({"pulls": {"images": 2, "failures": 1, "bytes": 1_500, "milliseconds": 2_500}}),
    );
    replica.wait_metric(r#"larder_node_pulls_total{result="pulled"}"#, 2.0);
    cluster.patch_status(
        "a",
        &json!({"pulls": {"images": 3, "failures": 0, "bytes": 500, "milliseconds": 3_000}}),
    );
    for (series, value) in [
        (r#"larder_node_pulls_total{result="pulled"}"#, 3.0),
        (r#"larder_node_pulls_total{result="failed"}"#, 1.0),
        ("larder_node_pull_bytes_total", 1_500.0),
        ("larder_node_pull_seconds_total", 3.0),
    ] {
        replica.wait_metric(series, value);
    }

    // What is mended goes to zero, and does not just vanish.
    cluster.report("b", &json!([ready("quay.io/app:v1", 1_000), ready("quay.io/db:v1", 500)]));
    cluster.wait_reason("web", "AllImagesReady");
    replica.wait_metric(r#"larder_failed_node_images{reason="NotFound"}"#, 0.0);
    replica.wait_metric(r#"larder_image_caches{state="ready"}"#, 1.0);
    is_well_formed(&replica);
}

/// `OpenMetrics`, with units, and without a name of anybody's in a label.
fn is_well_formed(replica: &crate::support::Replica) {
    let answer = replica.ask("/metrics").unwrap();
    assert!(
        answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.head
    );
    assert!(answer.body.ends_with("# EOF\n"));
    let units = ["seconds", "bytes", "total", "info", "status", "keys", "caches", "nodes", "images"];
    let mut families = BTreeSet::new();
    for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|part| name.strip_suffix(part));
        let family = family.unwrap_or(name);
        assert!(family.starts_with("larder_"), "{line}");
        assert!(units.iter().any(|unit| family.ends_with(unit)), "{family} ends in no unit");
        families.insert(family.to_owned());
        for part in ["quay", "app", "push", "web", "\"a\"", "\"b\""] {
            assert!(!line.contains(part), "{line}");
        }
    }
    assert!(families.len() >= 12, "{families:?}");
    let page = include_str!("../../../docs/operations.md");
    for family in families {
        assert!(page.contains(&format!("`{family}`")), "docs/operations.md does not list {family}");
    }
}

/// A replica that stands by knows the cluster, and leaves it to the leader to tell: sums over replicas are right.
#[test]
fn one_replica_tells() {
    let cluster = Cluster::start();
    cluster.plane.create_node("a", &[("pool", "web")]).unwrap();
    let leader = cluster.replica("one");
    leader.program.start().unwrap();
    leader.wait_ready(200, "leading");
    let standby = cluster.replica("two");
    standby.program.start().unwrap();
    standby.wait_ready(200, "standby");
    cluster.apply("web", &images("web", &["quay.io/app:v1"]));
    leader.wait_metric(r#"larder_nodes{state="no_agent"}"#, 1.0);
    assert_eq!(standby.metric(r#"larder_nodes{state="no_agent"}"#), None);
    assert_eq!(standby.metric("larder_queue_keys"), Some(0.0));
    assert_eq!(standby.metric("larder_leader_status"), Some(0.0));
    assert_eq!(standby.metric(r#"larder_writes_total{kind="node_image_cache",outcome="ok"}"#), None);
}
