//! What the operator needs for many nodes. `LARDER_TEST_NODES` makes it more of them: the goal is stated for a thousand.

use serde_json::{Value, json};

use crate::support::{Cluster, images, ready};

const IMAGES: u64 = 50;

#[test]
fn memory_for_many_nodes_with_fifty_images() {
    let nodes: u64 =
        std::env::var("LARDER_TEST_NODES").ok().and_then(|number| number.parse().ok()).unwrap_or(200);
    let cluster = Cluster::start();
    let name = |number: u64| format!("node-{number:05}");
    create(&cluster, (0..nodes).map(|number| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name(number), "labels": {"pool": "web"}}})
    }));
    let operator = cluster.alone();
    operator.program.start().unwrap();
    operator.wait_ready(200, "leading");
    let names: Vec<String> = (0..IMAGES)
        .map(|number| format!("registry.example.com/team/service-{number:02}:v1.0.{number}"))
        .collect();
    cluster.apply("web", &images("web", &names.iter().map(String::as_str).collect::<Vec<_>>()));
    let all = (nodes * IMAGES) as f64;
    operator.wait_metric(r#"larder_node_images{state="unreported"}"#, all);

    let standings: Vec<Value> =
        (0..).zip(&names).map(|(number, name)| ready(name, 50_000_000 + number)).collect();
    report(&cluster, (0..nodes).map(name), &standings);
    cluster.wait_reason("web", "AllImagesReady");
    operator.wait_metric(r#"larder_node_images{state="ready"}"#, all);
    let working = memory(operator.program.id().unwrap());

    operator.program.restart().unwrap();
    operator.wait_ready(200, "leading");
    operator.wait_metric(r#"larder_node_images{state="ready"}"#, all);
    operator.wait_metric("larder_queue_keys", 0.0);
    let restarted = memory(operator.program.id().unwrap());
    println!(
        "{nodes} nodes, {IMAGES} images: resident now and at most, in KiB: {working:?}, restarted {restarted:?}"
    );
    // The restart found every node told already.
    assert_eq!(operator.metric(r#"larder_writes_total{kind="node_image_cache",outcome="ok"}"#), None);
    for (_, peak) in [working, restarted] {
        // 100 MiB for a thousand.
        assert!(peak < (35 << 10) + nodes * 65, "{peak} KiB for {nodes} nodes");
    }
}

fn create(cluster: &Cluster, objects: impl Iterator<Item = Value>) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()});
    cluster.plane.try_kubectl(&["create", "-f", "-"], &list.to_string()).unwrap().ok().unwrap();
}

/// Has all nodes report the same, as agents do that have nothing left to do.
fn report(cluster: &Cluster, nodes: impl Iterator<Item = String>, images: &[Value]) {
    let list = cluster.plane.get(&["nodeimagecaches"]).unwrap();
    let generation = |name: &str| {
        let items = list["items"].as_array().unwrap();
        items.iter().find(|item| item["metadata"]["name"] == name).unwrap()["metadata"]["generation"].clone()
    };
    let items: Vec<Value> = nodes
        .map(|name| {
            json!({"apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCache", "metadata": {"name": name},
                "status": {"observedGeneration": generation(&name), "images": images,
                    "agent": {"version": "0.1.0", "platform": "linux/amd64"}}})
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let args = [
        "apply",
        "--server-side",
        "--field-manager=larder-agent",
        "--subresource=status",
        "--validate=false",
        "-f",
        "-",
    ];
    cluster.plane.try_kubectl(&args, &list).unwrap().ok().unwrap();
}

/// Resident memory of a process in KiB: now, and at most.
fn memory(process: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}
