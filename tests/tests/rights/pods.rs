//! The pods: what pod security says of them, and what the programs say of their arguments.

use larder_tests::{larder::binary, process, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{AGENTS, Installed, SYSTEM};

/// A pod from the template of a workload, in this namespace.
fn pod(workload: &Value, namespace: &str) -> Value {
    let template = &workload["spec"]["template"];
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}});
    pod["metadata"]["namespace"] = namespace.into();
    pod["metadata"]["labels"] = template["metadata"]["labels"].clone();
    pod["spec"] = template["spec"].clone();
    pod
}

/// What the API server says to it.
fn create(installed: &Installed, pod: &Value) -> String {
    let create = ["create", "--dry-run=server", "-f", "-"];
    let ran = installed.cluster.try_kubectl(&create, &pod.to_string()).unwrap();
    assert_eq!(ran.status.success(), ran.stderr.is_empty(), "{}", ran.stderr);
    ran.stderr
}

fn workloads(installed: &Installed) -> (Value, Value) {
    let get = |kind, name, namespace| installed.cluster.get(&[kind, name, "--namespace", namespace]).unwrap();
    (get("deployment", "larder-operator", SYSTEM), get("daemonset", "larder-agent", AGENTS))
}

/// One control plane for all of it, which takes seconds to start.
#[test]
fn what_the_pods_may() {
    let installed = Installed::without_nodes();
    the_operator_is_restricted_and_the_agent_is_but_for_what_it_needs(&installed);
    the_agent_uses_nothing_else_of_its_level(&installed);
    the_programs_know_their_arguments(&installed);
}

fn the_operator_is_restricted_and_the_agent_is_but_for_what_it_needs(installed: &Installed) {
    let (operator, agent) = workloads(installed);
    // The namespace enforces the level `restricted`.
    assert_eq!(create(installed, &pod(&operator, SYSTEM)), "");
    // Its priority class is a moment old.
    until("the agent's pod to be accepted", PATIENCE, || {
        create(installed, &pod(&agent, AGENTS)).is_empty().then_some(())
    })
    .unwrap();

    let refused = create(installed, &pod(&agent, SYSTEM));
    let violations = refused.split_once("violates PodSecurity \"restricted:latest\": ").unwrap().1.trim();
    assert_eq!(
        violations,
        "restricted volume types (volumes \"store\", \"runtime\", \"registries\", \"import\", \"export\" use restricted volume type \"hostPath\"), \
         runAsNonRoot != true (pod or container \"agent\" must set securityContext.runAsNonRoot=true), \
         runAsUser=0 (pod must not set runAsUser=0)"
    );
}

/// What the level `privileged` would let pass.
fn the_agent_uses_nothing_else_of_its_level(installed: &Installed) {
    let (_, agent) = workloads(installed);
    let spec = &agent["spec"]["template"]["spec"];
    for field in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
        assert_eq!(spec[field], Value::Null, "{field}");
    }
    let [container] = spec["containers"].as_array().unwrap().as_slice() else {
        panic!("one container: {spec}")
    };
    let wanted = json!({
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], wanted);
    assert_eq!(container["ports"], Value::Null);
    let writable = container["volumeMounts"].as_array().unwrap().iter();
    let writable: Vec<_> = writable.filter(|mount| mount["readOnly"] != true).collect();
    let expected = [("store", "/var/lib/larder"), ("export", "/var/lib/larder-export")];
    assert_eq!(writable.len(), expected.len());
    for (mount, (name, path)) in writable.into_iter().zip(expected) {
        assert_eq!(*mount, json!({"name": name, "mountPath": path}));
    }
}

/// An argument that a program does not know ends its pod at the start.
fn the_programs_know_their_arguments(installed: &Installed) {
    let (operator, agent) = workloads(installed);
    for (workload, program) in [(operator, "larder-operator"), (agent, "larder-agent")] {
        let arguments = workload["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        let arguments: Vec<String> = serde_json::from_value(arguments).unwrap_or_default();
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // Read last, so that what comes before is looked at.
        arguments.push("--help");
        process::run(&binary(program).unwrap(), &arguments, &[], b"").unwrap().ok().unwrap();
    }
}
