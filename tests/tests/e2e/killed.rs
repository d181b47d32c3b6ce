//! Agents that are killed while they pull.

use larder_tests::{Node, until, wait::PATIENCE};
use serde_json::Value;

use crate::{
    fixture::alone,
    larder::{AGENTS, ImageCache, Larder},
    slow::{Slow, is_usable},
};

/// Sends SIGKILL to the one process of a container that runs on a node.
pub fn kill_container(node: &Node, id: &str) {
    let inspect = ["inspect", "--output", "go-template", "--template", "{{.info.pid}}", id];
    let process = node.crictl(&inspect).unwrap().ok().unwrap().stdout;
    node.sh(&format!("kill -9 {}", process.trim())).unwrap();
}

/// The containers of this name that run on a node.
pub fn running(node: &Node, container: &str) -> Vec<String> {
    let name = format!("^{container}$");
    let listed = node.crictl(&["ps", "--quiet", "--state", "Running", "--name", &name]).unwrap();
    listed.ok().unwrap().stdout.lines().map(str::to_owned).collect()
}

/// Pod and container that the agent on a node is at this moment, once it runs.
pub fn incarnation(larder: &Larder, node: &str) -> (Value, Value) {
    let runs = || {
        let pod = larder.agent_pod(node)?;
        let status = &pod["status"]["containerStatuses"][0];
        let is_running = status["state"]["running"].is_object();
        is_running.then(|| (pod["metadata"]["uid"].clone(), status["containerID"].clone()))
    };
    until("the agent to run", PATIENCE, runs).unwrap()
}

#[test]
fn an_agent_that_is_killed_goes_on_where_it_was() {
    let e2e = alone();
    let (larder, node) = (e2e.larder(), e2e.cluster.node("node-1").unwrap());
    let slow = Slow::start(&e2e);
    let (image, pushed) = slow.push("e2e/killed", 500);
    let first = incarnation(larder, "node-1");
    let cache = ImageCache::apply_on(&e2e.cluster, "killed", "node-1", &[&pushed.name]);

    slow.wait_served(5_000_000);
    kill_container(&node, running(&node, "agent").first().unwrap());
    let second = until("another container", PATIENCE, || {
        Some(incarnation(larder, "node-1")).filter(|second| second.1 != first.1)
    })
    .unwrap();
    assert_eq!(second.0, first.0, "the same pod");
    assert!(!is_usable(&node, &pushed.name));

    slow.wait_served(12_000_000);
    let pod = larder.agent_pod("node-1").unwrap();
    let pod = pod["metadata"]["name"].as_str().unwrap();
    let delete = ["delete", "pod", pod, "--namespace", AGENTS, "--grace-period=0", "--force"];
    e2e.cluster.kubectl(&delete).unwrap();
    cache.wait_ready(larder);
    assert_ne!(incarnation(larder, "node-1").0, first.0, "another pod");
    assert!(is_usable(&node, &pushed.name));
    slow.assert_served_once(&image);
    // The pod that comes next is there when others begin.
    larder.wait_rolled_out();
}
