//! Real agents, a real registry.

use larder_tests::{Image, Layer, Registry, RegistryOptions, larder};
use serde_json::{Value, json};

use crate::{
    agents::latest,
    observer::Observer,
    support::{Cluster, images},
};

const NODES: [&str; 3] = ["a", "b", "c"];

#[test]
fn one_node_after_the_other_and_a_lost_object_empties_none() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let layer = Layer::random(1, 200_000).unwrap();
    let app = registry.push(&Image::builder().layer(&layer).build().unwrap(), "app", "v1").unwrap().name;
    let cluster = Cluster::start();
    let observer = Observer::start(&cluster);
    let operator = cluster.alone();
    operator.program.start().unwrap();
    let mut agents = Vec::new();
    for node in NODES {
        cluster.plane.create_node(node, &[("pool", "web")]).unwrap();
        let store = cluster.scratch.path().join(format!("store-{node}"));
        let agent = larder::agent(cluster.plane.kubeconfig(), node, &store, cluster.scratch.path()).unwrap();
        agent.start().unwrap();
        agents.push(agent);
    }
    let mut spec = images("web", &[&app]);
    spec["rollout"] = json!({"maxConcurrentNodes": 1});
    cluster.apply("web", &spec);
    let is_done = |object: &Value| object["status"]["nodes"]["ready"] == NODES.len();
    cluster.wait(&["imagecache", "web"], "on all nodes", is_done);
    let objects = cluster.plane.get(&["nodeimagecaches"]).unwrap()["items"].as_array().unwrap().clone();
    let busy = observer.busy("web", &latest(&objects));
    assert_eq!(busy.iter().max(), Some(&1), "{busy:?}");

    // Somebody deletes what the nodes have been told. It comes back with one node's turn after the other, and nobody
    // fetches anything: those that wait keep what they have.
    let mark = registry.mark().unwrap();
    operator.program.kill();
    cluster.plane.kubectl(&["delete", "nodeimagecaches", "--all"]).unwrap();
    operator.program.start().unwrap();
    cluster.wait(&["nodeimagecache", "c"], "the last node's turn", |object| {
        object["status"]["images"][0]["state"] == "Ready"
    });
    cluster.wait(&["imagecache", "web"], "on all nodes again", is_done);
    assert_eq!(registry.requests_since(mark).unwrap().to_vec(), []);
}
