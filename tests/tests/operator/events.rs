//! Events on `ImageCache`s, as `kubectl describe` shows them.

use serde_json::{Value, json};

use crate::support::{Cluster, Replica, failed, images, ready};

/// The events on an ImageCache in order of time, as `Type Reason`.
fn events(cluster: &Cluster, name: &str) -> Vec<String> {
    let list = cluster.plane.get(&["events.events.k8s.io", "--namespace", "default"]).unwrap();
    let mut found: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
    found.retain(|event| event["regarding"]["name"] == name && event["regarding"]["kind"] == "ImageCache");
    found.sort_by_key(|event| event["eventTime"].as_str().unwrap_or_default().to_owned());
    let word = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    found.iter().map(|event| format!("{} {}", word(event, "type"), word(event, "reason"))).collect()
}

fn start(cluster: &Cluster) -> Replica {
    for node in ["a", "b"] {
        cluster.plane.create_node(node, &[("pool", "web")]).unwrap();
    }
    let operator = cluster.alone();
    operator.program.start().unwrap();
    operator.wait_ready(200, "leading");
    operator
}

#[track_caller]
fn wait_events(cluster: &Cluster, name: &str, expected: &[&str]) {
    let found = larder_tests::until("events", larder_tests::wait::PATIENCE, || {
        (events(cluster, name) == expected).then_some(())
    });
    found.unwrap_or_else(|error| panic!("{error}: {:?}, not {expected:?}", events(cluster, name)));
}

#[test]
fn one_event_for_each_turn_that_things_take() {
    let cluster = Cluster::start();
    let _operator = start(&cluster);
    let app = "quay.io/app:v1";
    cluster.apply("web", &images("web", &[app]));
    wait_events(&cluster, "web", &["Normal ImagesProgressing"]);
    for node in ["a", "b"] {
        cluster.wait_told(node, &[app]);
    }
    // More of the same is no event.
    cluster.report("a", &json!([{"image": app, "state": "Pulling", "size": 100, "bytesPresent": 30}]));
    cluster.report("a", &json!([ready(app, 100)]));
    cluster.wait(&["imagecache", "web"], "one node ready", |web| web["status"]["nodes"]["ready"] == 1);
    cluster.report("b", &json!([failed(app, "RegistryUnreachable", "the registry does not answer")]));
    wait_events(&cluster, "web", &["Normal ImagesProgressing", "Warning ImagesFailing"]);
    cluster.report("b", &json!([ready(app, 100)]));
    let all = ["Normal ImagesProgressing", "Warning ImagesFailing", "Normal AllImagesReady"];
    wait_events(&cluster, "web", &all);

    let described = cluster.plane.kubectl(&["describe", "imagecache", "web"]).unwrap().stdout;
    let shown = described.split("\nEvents:").nth(1).unwrap_or_default();
    for part in ["larder-operator", "the registry does not answer", "All 2 nodes hold the image"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}

#[test]
fn an_invalid_specification_is_an_event_and_so_is_its_mending() {
    let cluster = Cluster::start();
    let _operator = start(&cluster);
    let wrong = json!({"nodeSelector": {"matchExpressions": [{"key": "pool", "operator": "Is", "values": ["web"]}]},
        "images": []});
    cluster.apply("web", &wrong);
    wait_events(&cluster, "web", &["Warning InvalidSpec"]);
    cluster.apply("web", &images("web", &["quay.io/app:v1"]));
    wait_events(&cluster, "web", &["Warning InvalidSpec", "Normal ImagesProgressing"]);
}

/// What has not changed is not told again, neither by an operator that comes back nor by another replica.
#[test]
fn a_restart_tells_nothing_anew() {
    let cluster = Cluster::start();
    let operator = start(&cluster);
    let app = "quay.io/app:v1";
    cluster.apply("done", &images("web", &[app]));
    for node in ["a", "b"] {
        cluster.wait_told(node, &[app]);
        cluster.report(node, &json!([ready(app, 100)]));
    }
    cluster.apply("wrong", &json!({"nodeSelector": {"matchLabels": {"po ol": "web"}}}));
    cluster.apply("waiting", &images("nobody", &[app]));
    cluster.wait_reason("done", "AllImagesReady");
    wait_events(&cluster, "wrong", &["Warning InvalidSpec"]);
    wait_events(&cluster, "waiting", &["Normal NoMatchingNodes"]);
    let last = |name: &str| events(&cluster, name).pop().unwrap_or_default();
    larder_tests::until("the event", larder_tests::wait::PATIENCE, || {
        (last("done") == "Normal AllImagesReady").then_some(())
    })
    .unwrap();
    let names = ["done", "wrong", "waiting"];
    let before = names.map(|name| events(&cluster, name));

    operator.program.restart().unwrap();
    operator.wait_ready(200, "leading");
    // Once everything has been looked at again, and something new has been told after it:
    cluster.apply("new", &images("nobody", &[app]));
    wait_events(&cluster, "new", &["Normal NoMatchingNodes"]);
    operator.wait_metric("larder_queue_keys", 0.0);
    operator.wait_metric(r#"larder_writes_total{kind="event",outcome="ok"}"#, 1.0);
    assert_eq!(names.map(|name| events(&cluster, name)), before);
}
