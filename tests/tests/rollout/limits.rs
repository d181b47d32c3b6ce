//! Never more nodes are busy than may be, whatever happens to operators and nodes.

use larder_tests::{until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::{
    agents::{Agents, latest, told},
    observer::Observer,
    support::{Cluster, Replica, images},
};

const NODES: usize = 12;

fn name(number: usize) -> String {
    format!("n{number:02}")
}

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    let nodes: Vec<Value> = (0..NODES)
        .map(|number| {
            json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name(number), "labels": {"pool": "web"}}})
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": nodes}).to_string();
    cluster.plane.try_kubectl(&["create", "-f", "-"], &list).unwrap().ok().unwrap();
    cluster
}

/// This image, on so many nodes at a time.
fn roll_out(cluster: &Cluster, image: &str, limit: &Value) {
    let mut spec = images("web", &[image]);
    spec["rollout"] = json!({"maxConcurrentNodes": limit});
    cluster.apply("web", &spec);
}

fn has_all(objects: &[Value], image: &str) -> bool {
    let has = |object: &Value| {
        let images = object["status"]["images"].as_array().cloned().unwrap_or_default();
        images.iter().any(|held| held["image"] == image && held["state"] == "Ready")
    };
    objects.len() == NODES && objects.iter().all(has)
}

#[test]
fn it_holds_while_the_operator_is_killed_and_nodes_come_and_go() {
    let cluster = cluster();
    let observer = Observer::start(&cluster);
    let operator = cluster.alone();
    operator.program.start().unwrap();
    operator.wait_ready(200, "leading");
    let mut agents = Agents::new(&cluster);
    roll_out(&cluster, "quay.io/app:v1", &json!(3));
    agents.run_until("the first roll-out to end", |objects| has_all(objects, "quay.io/app:v1"));
    cluster.wait_reason("web", "AllImagesReady");

    // Killed with nodes on their way; meanwhile agents go on.
    agents.failing.insert((name(1), "app:v2"));
    roll_out(&cluster, "quay.io/app:v2", &json!("25%"));
    agents.run_until("four nodes to be told", |objects| told(objects, "quay.io/app:v2") >= 4);
    for at_least in [6, 8] {
        operator.program.kill();
        agents.step();
        operator.program.start().unwrap();
        agents.run_until("more nodes to be told", |objects| told(objects, "quay.io/app:v2") >= at_least);
    }
    let status = cluster.plane.get(&["imagecache", "web"]).unwrap();
    assert_eq!(status["status"]["nodes"]["selected"], NODES);

    // The next version in the middle of it, two nodes out of service, and the operator killed once more.
    roll_out(&cluster, "quay.io/app:v3", &json!("25%"));
    agents.run_until("two nodes to be told", |objects| told(objects, "quay.io/app:v3") >= 2);
    cluster.plane.kubectl(&["cordon", &name(2)]).unwrap();
    set_ready(&cluster, &name(11), "Unknown");
    operator.program.restart().unwrap();
    let others = NODES - 2;
    agents.run_until("all others to be told", |objects| told(objects, "quay.io/app:v3") >= others);
    let object = cluster.wait(&["imagecache", "web"], "done without those two", |object| {
        agents.step();
        object["status"]["nodes"]["unavailable"] == 2
            && object["status"]["conditions"][0]["reason"] == "AllImagesReady"
    });
    assert_eq!(object["status"]["summary"]["nodes"], "10/12");
    cluster.plane.kubectl(&["uncordon", &name(2)]).unwrap();
    set_ready(&cluster, &name(11), "True");
    let objects = agents.run_until("all to have it", |objects| has_all(objects, "quay.io/app:v3"));
    cluster.wait(&["imagecache", "web"], "12/12", |object| object["status"]["summary"]["nodes"] == "12/12");

    let busy = observer.busy("web", &latest(&objects));
    // 25% of twelve nodes are three.
    assert_eq!(busy.iter().max(), Some(&3), "{busy:?}");
    assert_eq!(busy.last(), Some(&0));
}

fn set_ready(cluster: &Cluster, node: &str, status: &str) {
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}).to_string();
    let args = ["patch", "node", node, "--subresource=status", "--type=merge", "-p", &patch];
    cluster.plane.kubectl(&args).unwrap();
}

/// The leader is killed with starts on their way, the next one stops; each time another replica goes on.
#[test]
fn it_holds_across_replicas() {
    let cluster = cluster();
    let observer = Observer::start(&cluster);
    let replicas = ["one", "two"].map(|name| cluster.replica(name));
    for replica in &replicas {
        replica.program.start().unwrap();
    }
    let agents = Agents::new(&cluster);
    roll_out(&cluster, "quay.io/app:v1", &json!(2));
    let told_at_least = |number: usize| {
        agents.run_until("nodes to be told", |objects| told(objects, "quay.io/app:v1") >= number)
    };
    told_at_least(4);
    let killed = leader(&replicas);
    killed.program.kill();
    agents.step();
    told_at_least(7);
    killed.program.start().unwrap();
    killed.wait_ready(200, "standby");
    let next = leader(&replicas);
    assert!(next.program.terminate().unwrap().success(), "{}", next.program.log_tail());
    let objects = agents.run_until("all to have it", |objects| has_all(objects, "quay.io/app:v1"));
    let busy = observer.busy("web", &latest(&objects));
    assert_eq!(busy.iter().max(), Some(&2), "{busy:?}");
}

fn leader(replicas: &[Replica; 2]) -> &Replica {
    until("a replica to lead", PATIENCE, || replicas.iter().find(|replica| replica.readiness() == "leading"))
        .unwrap()
}
