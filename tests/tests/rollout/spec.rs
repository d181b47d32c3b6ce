//! What the API server takes, what people see, and what a pause does.

use serde_json::{Value, json};

use crate::{
    agents::{Agents, told},
    support::{Cluster, images},
};

#[test]
fn limits_are_numbers_or_percentages_and_what_is_neither_is_refused_with_what_to_write() {
    let cluster = Cluster::start();
    let apply = |limit: &Value, paused: &Value| {
        let object = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": "web"},
            "spec": {"rollout": {"maxConcurrentNodes": limit}, "paused": paused}});
        cluster.plane.try_kubectl(&["apply", "-f", "-"], &object.to_string()).unwrap()
    };
    for limit in [json!(1), json!(5000), json!("1%"), json!("20%"), json!("100%")] {
        let ran = apply(&limit, &json!(false));
        assert!(ran.status.success(), "{limit}: {}", ran.stderr);
    }
    for limit in [
        json!(0),
        json!(-1),
        json!("0%"),
        json!("101%"),
        json!("20"),
        json!(""),
        json!("half"),
        json!("2.5%"),
    ] {
        let ran = apply(&limit, &json!(false));
        assert!(!ran.status.success(), "{limit} was accepted");
        for part in
            ["spec.rollout.maxConcurrentNodes", "at least 1, or a percentage", "set spec.paused to true"]
        {
            assert!(ran.stderr.contains(part), "{limit}: {part} is not in {}", ran.stderr);
        }
    }
    let ran = apply(&json!(1), &json!("yes"));
    assert!(ran.stderr.contains("spec.paused"), "{}", ran.stderr);
    let explained =
        cluster.plane.kubectl(&["explain", "imagecache.spec.rollout.maxConcurrentNodes"]).unwrap();
    assert!(explained.stdout.contains("rounded up"), "{}", explained.stdout);
}

#[test]
fn a_pause_holds_what_there_is_and_says_so() {
    let cluster = Cluster::start();
    for node in ["a", "b"] {
        cluster.plane.create_node(node, &[("pool", "web")]).unwrap();
    }
    let operator = cluster.alone();
    operator.program.start().unwrap();
    operator.wait_ready(200, "leading");
    let agents = Agents::new(&cluster);
    cluster.apply("web", &images("web", &["quay.io/app:v1"]));
    agents.run_until("both to be told", |objects| told(objects, "quay.io/app:v1") == 2);
    cluster.wait(&["imagecache", "web"], "ready", |object| {
        agents.step();
        object["status"]["conditions"][0]["status"] == "True"
    });

    let mut spec = images("web", &["quay.io/app:v2"]);
    spec["paused"] = json!(true);
    cluster.apply("web", &spec);
    let object = cluster.wait_reason("web", "Paused");
    let status = |kind: &str| {
        let conditions = object["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == kind).unwrap()["status"].clone()
    };
    assert_eq!(
        ["Ready", "Reconciling", "Stalled", "Degraded"].map(status),
        ["False", "False", "False", "False"]
    );
    assert_eq!(object["status"]["nodes"]["waiting"], 2);
    let shown = cluster.plane.kubectl(&["get", "imagecache", "web", "-o", "wide"]).unwrap().stdout;
    println!("{shown}");
    for word in ["READY", "REASON", "WAITING", "0/2", "Paused", "2 wait since spec.paused is true"] {
        assert!(shown.contains(word), "{word} is not in {shown}");
    }
    assert_eq!(told(&agents.step(), "quay.io/app:v1"), 2);

    spec["paused"] = json!(false);
    cluster.apply("web", &spec);
    agents.run_until("both to be told", |objects| told(objects, "quay.io/app:v2") == 2);
    cluster.wait(&["imagecache", "web"], "ready", |object| {
        agents.step();
        object["status"]["conditions"][0]["status"] == "True"
    });
}
