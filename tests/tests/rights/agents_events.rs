//! An agent tells events of its own node, in its own name.

use serde_json::{Value, json};

use crate::fixture::{Installed, event};

const CREATE: &[&str] = &["create", "-f", "-"];
const PATCH: &[&str] =
    &["apply", "--server-side", "--force-conflicts", "--field-manager=larder-agent", "-f", "-"];
const WHY: &str = "an agent writes events of its own node's NodeImageCache only, with larder-agent as their reportingController";

/// The same event, seen once more, as kube's recorder counts it.
fn again(mut event: Value) -> Value {
    event["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"});
    event
}

/// One control plane for all of it, which takes seconds to start.
#[test]
fn what_an_agent_tells() {
    let installed = Installed::start();
    of_its_own_node(&installed);
    of_no_other_node_and_in_nobody_elses_name(&installed);
    those_that_others_wrote_stay_as_they_are(&installed);
    in_no_other_namespace_and_none_deleted(&installed);
}

fn of_its_own_node(installed: &Installed) {
    let agent = installed.agent(Some("n1"));
    let mut event = event("n1.1", "n1");
    event["regarding"]["uid"] = installed.cluster.get(&["nic", "n1"]).unwrap()["metadata"]["uid"].clone();
    agent.may(CREATE, &event);
    agent.may(PATCH, &again(event));
    let described = installed.cluster.kubectl(&["describe", "nic", "n1"]).unwrap().stdout;
    assert!(described.contains("an image is here"), "{described}");
    let stored = installed.cluster.get(&["events.events.k8s.io", "n1.1"]).unwrap();
    assert_eq!(stored["series"]["count"], 2);
}

fn of_no_other_node_and_in_nobody_elses_name(installed: &Installed) {
    let agent = installed.agent(Some("n1"));
    agent.may_not(CREATE, &event("n2.0", "n2"), WHY);
    let mut as_kubelet = event("n1.2", "n1");
    as_kubelet["reportingController"] = "kubelet".into();
    agent.may_not(CREATE, &as_kubelet, WHY);
    let mut of_the_node = event("n1.3", "n1");
    of_the_node["regarding"] = json!({"apiVersion": "v1", "kind": "Node", "name": "n1"});
    agent.may_not(CREATE, &of_the_node, WHY);
    installed.agent(None).may_not(CREATE, &event("n1.4", "n1"), "the agent's token names no node");
}

/// Neither counted on nor taken over: that the object of an event never changes is the API server's own rule.
fn those_that_others_wrote_stay_as_they_are(installed: &Installed) {
    installed.agent(Some("n2")).may(CREATE, &event("n2.1", "n2"));
    let agent = installed.agent(Some("n1"));
    agent.may_not(PATCH, &again(event("n2.1", "n2")), WHY);
    let taken_over = agent.try_kubectl(PATCH, &again(event("n2.1", "n1")));
    assert!(!taken_over.status.success(), "{}", taken_over.stdout);
    let stored = installed.cluster.get(&["events.events.k8s.io", "n2.1"]).unwrap();
    assert_eq!(stored["regarding"]["name"], "n2");
    assert_eq!(stored["series"], Value::Null);
}

fn in_no_other_namespace_and_none_deleted(installed: &Installed) {
    let agent = installed.agent(Some("n1"));
    let mut elsewhere = event("n1.5", "n1");
    elsewhere["metadata"]["namespace"] = "kube-system".into();
    agent.may_not(CREATE, &elsewhere, "cannot create resource \"events\"");
    agent.may(CREATE, &event("n1.5", "n1"));
    let delete = ["delete", "events.events.k8s.io", "n1.5", "--namespace=default"];
    agent.may_not(&delete, &Value::Null, "cannot delete resource \"events\"");
}
