//! Operator and agent at work with the rights that the manifests give them, and no other.

use larder_tests::{Image, Layer, Program, Registry, RegistryOptions, larder, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Installed, SYSTEM};

fn agent(installed: &Installed, node: &str, token_of: &str) -> Program {
    let folder = installed.scratch.path();
    let identity = installed.agent(Some(token_of));
    let agent = larder::agent(&identity.kubeconfig, node, &folder.join(format!("store-{node}")), folder);
    agent.unwrap().args(["--max-backoff", "2", "--check-interval", "2"])
}

fn ready(installed: &Installed, what: &str, is: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    until(what, PATIENCE, || {
        last = installed.cluster.get(&["ic", "web"]).ok()?["status"].clone();
        is(&last).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{last:#}"));
}

#[test]
fn they_do_their_work() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let image = Image::builder().layer(&Layer::random(1, 80_000).unwrap()).build().unwrap();
    let app = registry.push(&image, "app", "v1").unwrap().name;
    let installed = Installed::without_nodes();
    let cluster = &installed.cluster;
    for node in ["n1", "n2"] {
        cluster.create_node(node, &[]).unwrap();
    }
    let folder = installed.scratch.path();
    // As in its pod, where it finds the namespace by itself.
    let operator = larder::operator(&installed.operator().kubeconfig, folder).unwrap();
    let operator = operator.args(["--leader-election-namespace", SYSTEM]);
    operator.start().unwrap();
    let agents = ["n1", "n2"].map(|node| agent(&installed, node, node));
    for agent in &agents {
        agent.start().unwrap();
    }
    let cache = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
        "metadata": {"name": "web"}, "spec": {"images": [{"image": app}]},
    });
    cluster.apply(&cache.to_string()).unwrap();
    ready(&installed, "both nodes to be ready", |status| status["nodes"]["ready"] == 2);

    let lease = cluster.get(&["lease", "larder-operator", "--namespace", SYSTEM]).unwrap();
    assert_ne!(lease["spec"]["holderIdentity"].as_str().unwrap_or_default(), "", "{lease:#}");
    for (object, name, author) in [("ic", "web", "larder-operator"), ("nic", "n1", "larder-agent")] {
        until(&format!("an event of {author}"), PATIENCE, || {
            let described = cluster.kubectl(&["describe", object, name]).ok()?.stdout;
            let (_, events) = described.split_once("\nEvents:")?;
            events.contains(author).then_some(())
        })
        .unwrap();
    }

    // A node goes: the operator deletes what was its.
    cluster.kubectl(&["delete", "node", "n2"]).unwrap();
    until("n2's NodeImageCache to go", PATIENCE, || cluster.get(&["nic", "n2"]).is_err().then_some(()))
        .unwrap();
    ready(&installed, "one node to be ready", |status| status["nodes"]["selected"] == 1);

    for program in agents.iter().chain([&operator]) {
        program.ensure_running().unwrap();
        let log = program.log().unwrap();
        let lacking = log.lines().find(|line| line.to_lowercase().contains("forbidden"));
        assert_eq!(lacking, None, "a right is missing");
    }
}

/// The real program under another node's name, as somebody who has captured a node would run it.
#[test]
fn an_agent_under_another_nodes_name_gets_nowhere() {
    let installed = Installed::start();
    let agent = agent(&installed, "n2", "n1");
    agent.start().unwrap();
    let why = "this token is for node n1, the NodeImageCache is n2's";
    until("the refusal in its log", PATIENCE, || agent.log().ok()?.contains(why).then_some(())).unwrap();
    assert_eq!(installed.cluster.get(&["nic", "n2"]).unwrap()["status"]["agent"], Value::Null);
}

/// What else agents and operator write must not keep the operator from renewing its Lease.
#[test]
fn the_operators_lease_has_a_place_of_its_own_in_the_api_servers_queues() {
    let installed = Installed::without_nodes();
    let schema = installed.cluster.get(&["flowschema", "larder-operator-leader-election"]).unwrap();
    let uid = schema["metadata"]["uid"].as_str().unwrap();
    let operator = installed.operator();
    // An answer says in a header by which FlowSchema its request was classified; kubectl shows headers at this level.
    let is_in_it = |arguments: &[&str], object: &Value| {
        let ran = operator.try_kubectl(&[arguments, &["-v=8"]].concat(), object);
        let (_, after) = ran
            .stderr
            .to_lowercase()
            .split_once("flowschema-uid")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        Some(after.lines().next()?.contains(uid))
    };
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases");
    let lease = format!("{leases}/larder-operator");
    let object = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "larder-operator", "namespace": SYSTEM},
    });
    let read: (&[&str], &Value) = (&["get", "--raw", &lease], &Value::Null);
    until("the FlowSchema to be in force", PATIENCE, || is_in_it(read.0, read.1).filter(|is| *is)).unwrap();
    assert_eq!(is_in_it(&["create", "--raw", &leases, "-f", "-"], &object), Some(true));
    assert_eq!(is_in_it(&["replace", "--raw", &lease, "-f", "-"], &object), Some(true), "what renews it");
    let others = ["get", "--raw", "/apis/larder.dev/v1alpha1/imagecaches"];
    assert_eq!(is_in_it(&others, &Value::Null), Some(false), "only the Lease goes before all others");
}
