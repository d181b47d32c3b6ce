//! An agent writes the status of its own node's `NodeImageCache`, and of nothing else.

use larder_tests::{until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{APPLY_STATUS, Installed, node_image_cache, status};

fn version(installed: &Installed, node: &str) -> Value {
    installed.cluster.get(&["nic", node]).unwrap()["status"]["agent"]["version"].clone()
}

/// One control plane for all of it, which takes seconds to start.
#[test]
fn what_an_agent_writes_and_reads() {
    let installed = Installed::start();
    its_own_nodes_and_no_other(&installed);
    a_status_carries_nothing_else_with_it(&installed);
    it_reads_what_nodes_are_to_hold_and_nothing_else(&installed);
    it_changes_no_specification_and_makes_and_deletes_nothing(&installed);
    an_administrator_is_warned(&installed);
    nor_does_it_with_a_wider_role(&installed);
}

fn its_own_nodes_and_no_other(installed: &Installed) {
    let agent = installed.agent(Some("n1"));
    agent.may(APPLY_STATUS, &status("n1", "from-n1"));
    assert_eq!(version(installed, "n1"), "from-n1");
    installed.agent_bound_to_node("n1").may(APPLY_STATUS, &status("n1", "from-n1-itself"));
    assert_eq!(version(installed, "n1"), "from-n1-itself");

    agent.may_not(
        APPLY_STATUS,
        &status("n2", "from-n1"),
        "an agent writes its own node's status only: this token is for node n1, the NodeImageCache is n2's",
    );
    installed.agent(None).may_not(
        APPLY_STATUS,
        &status("n1", "from-nowhere"),
        "the agent's token names no node, so that it may write no status; it has to be the token of a pod that runs on a node",
    );
    assert_eq!(version(installed, "n2"), Value::Null);
    assert_eq!(version(installed, "n1"), "from-n1-itself");
}

/// What else is in the body of a status has no effect: the API server's rule, on which the policy stands.
fn a_status_carries_nothing_else_with_it(installed: &Installed) {
    let before = installed.cluster.get(&["nic", "n1"]).unwrap();
    let mut more = status("n1", "v1");
    more["spec"] = json!({"images": [], "released": [{"image": "docker.io/library/evil:v1"}]});
    more["metadata"]["labels"] = json!({"pool": "web"});
    more["metadata"]["annotations"] = json!({"evil": "yes"});
    more["metadata"]["finalizers"] = json!(["larder.dev/never"]);
    installed.agent(Some("n1")).may(APPLY_STATUS, &more);
    let after = installed.cluster.get(&["nic", "n1"]).unwrap();
    assert_eq!(after["status"]["agent"]["version"], "v1");
    assert_eq!(after["spec"], before["spec"]);
    for field in ["labels", "annotations", "finalizers", "ownerReferences", "generation"] {
        assert_eq!(after["metadata"][field], before["metadata"][field], "{field}");
    }
}

fn it_reads_what_nodes_are_to_hold_and_nothing_else(installed: &Installed) {
    let agent = installed.agent(Some("n1"));
    agent.may(&["get", "nic", "n1"], &Value::Null);
    agent.may(&["get", "nic", "--field-selector=metadata.name=n1"], &Value::Null);
    agent.may(&["get", "nic", "n1", "--watch", "--request-timeout=1s"], &Value::Null);
    for kind in
        ["imagecaches", "nodes", "pods", "secrets", "configmaps", "serviceaccounts", "leases", "events"]
    {
        let why = format!("cannot list resource \"{kind}\"");
        agent.may_not(&["get", kind, "--all-namespaces"], &Value::Null, &why);
    }
    for namespace in ["larder-agents", "larder-system", "kube-system", "default"] {
        let get = ["get", "secret", "larder-registry-logins", "--namespace", namespace];
        agent.may_not(&get, &Value::Null, "cannot get resource \"secrets\"");
    }
    let token = ["create", "token", "larder-agent", "--namespace", "larder-agents"];
    agent.may_not(&token, &Value::Null, "cannot create resource \"serviceaccounts/token\"");
}

const CHANGES: [(&str, &[&str]); 3] = [
    ("patch", &["apply", "--server-side", "--force-conflicts", "--field-manager=larder-agent", "-f", "-"]),
    ("create", &["create", "-f", "-"]),
    ("delete", &["delete", "-f", "-"]),
];

fn it_changes_no_specification_and_makes_and_deletes_nothing(installed: &Installed) {
    let agent = installed.agent(Some("n1"));
    installed.cluster.create_node("n3", &[]).unwrap();
    for (verb, arguments) in CHANGES {
        let node = if verb == "create" { "n3" } else { "n1" };
        let why = format!("cannot {verb} resource \"nodeimagecaches\" in API group \"larder.dev\"");
        agent.may_not(arguments, &node_image_cache(node), &why);
    }
    let every = ["delete", "nic", "--all"];
    agent.may_not(&every, &Value::Null, "cannot delete");
}

/// A role that somebody widens, by mistake or with a bad heart, opens one lock of two.
fn nor_does_it_with_a_wider_role(installed: &Installed) {
    let account = "--serviceaccount=larder-agents:larder-agent";
    let wide = ["create", "clusterrolebinding", "wide", "--clusterrole=cluster-admin", account];
    installed.cluster.kubectl(&wide).unwrap();
    until("the role to be in force", PATIENCE, || {
        let ran = installed.agent(Some("n1")).try_kubectl(&["get", "secrets"], &Value::Null);
        ran.status.success().then_some(())
    })
    .unwrap();
    let why = "an agent writes nothing of a NodeImageCache but its status";
    let agent = installed.agent(Some("n1"));
    for node in ["n1", "n2", "n3"] {
        for (verb, arguments) in CHANGES {
            if (verb == "create") == (node == "n3") {
                agent.may_not(arguments, &node_image_cache(node), why);
            }
        }
    }
    for node in ["n1", "n2"] {
        installed.cluster.get(&["nic", node]).unwrap();
    }
    let update = ["replace", "--subresource=status", "-f", "-"];
    let mut other = installed.cluster.get(&["nic", "n2"]).unwrap();
    other["status"] = status("n2", "from-n1")["status"].clone();
    agent.may_not(&update, &other, "this token is for node n1");
}

/// People who may do everything get a word; the operator, whose business it is, gets none.
fn an_administrator_is_warned(installed: &Installed) {
    let warning = "Warning: Validation failed for ValidatingAdmissionPolicy 'larder-written-by-the-operator'";
    let advice = "the operator writes NodeImageCaches and will overwrite this; to put images on nodes, write an ImageCache";
    let mut object = node_image_cache("n1");
    object["spec"]["released"] = json!([{"image": "docker.io/library/app:v1"}]);
    let dry_run = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    until("the warning", PATIENCE, || {
        let ran = installed.cluster.try_kubectl(&dry_run, &object.to_string()).unwrap().ok().unwrap();
        (ran.stderr.contains(warning) && ran.stderr.contains(advice)).then_some(())
    })
    .unwrap();
    let labelled = installed.cluster.kubectl(&["label", "nic", "n1", "seen=yes"]).unwrap();
    assert_eq!(labelled.stderr, "");
    let by_the_operator = installed.operator().may(&dry_run, &object);
    assert_eq!(by_the_operator.stderr, "");
}
