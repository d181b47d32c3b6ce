//! Installing with Helm, on a real API server.

use std::collections::BTreeMap;

use larder_tests::{ControlPlane, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{AGENTS, Helm, Objects, SYSTEM, differences, kustomize, manifests, name};

/// The resource versions of all that the release consists of.
fn versions(cluster: &ControlPlane, helm: &Helm) -> BTreeMap<String, Value> {
    let rendered = helm.run(&["get", "manifest", "larder", "--namespace", SYSTEM]).stdout;
    let there = cluster.try_kubectl(&["get", "-f", "-", "-o", "json"], &rendered).unwrap().ok().unwrap();
    let there = there.json().unwrap();
    let items = there["items"].as_array().unwrap().iter();
    items.map(|object| (name(object), object["metadata"]["resourceVersion"].clone())).collect()
}

fn image_cache() -> String {
    json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
        "metadata": {"name": "kept"}, "spec": {"images": [{"image": "app:v1"}]},
    })
    .to_string()
}

#[test]
fn installed_upgraded_uninstalled() {
    let cluster = ControlPlane::start().unwrap();
    let helm = Helm::new(Some(&cluster));
    let chart = manifests("helm/larder");
    let release = ["larder", &chart, "--namespace", SYSTEM];
    let installed = helm.run(&[&["install"], &release[..], &["--create-namespace"]].concat());
    assert!(installed.stdout.contains("kubectl get imagecaches --watch"), "{}", installed.stdout);
    assert_eq!(installed.stderr, "");
    until("an ImageCache to be accepted", PATIENCE, || cluster.apply(&image_cache()).ok()).unwrap();

    // What is there already stays as it is.
    let before = versions(&cluster, &helm);
    assert!(before.len() > 20, "{before:?}");
    helm.run(&[&["upgrade"], &release[..]].concat());
    assert_eq!(versions(&cluster, &helm), before);

    // One value changed is one object changed: the DaemonSet.
    helm.run(&[&["upgrade"], &release[..], &["--set", "agent.logLevel=debug"]].concat());
    let after = versions(&cluster, &helm);
    let changed: Vec<&String> = after.keys().filter(|name| after[*name] != before[*name]).collect();
    assert_eq!(changed, [&format!("DaemonSet {AGENTS}/larder-agent")]);

    // Uninstalling leaves the definitions and with them what people wrote; installing again takes them over.
    let uninstalled = helm.run(&["uninstall", "larder", "--namespace", SYSTEM]);
    assert!(uninstalled.stdout.contains("kept due to the resource policy"), "{}", uninstalled.stdout);
    assert_eq!(cluster.get(&["imagecache", "kept"]).unwrap()["spec"]["images"][0]["image"], "app:v1");
    assert!(cluster.get(&["daemonset", "larder-agent", "--namespace", AGENTS]).is_err());
    // Who empties namespaces, the controller manager, is not here.
    finalize(&cluster, AGENTS);
    helm.run(&[&["install"], &release[..]].concat());
    assert_eq!(cluster.get(&["imagecache", "kept"]).unwrap()["spec"]["images"][0]["image"], "app:v1");
}

fn finalize(cluster: &ControlPlane, namespace: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}, "spec": {"finalizers": []}});
    let path = format!("/api/v1/namespaces/{namespace}/finalize");
    cluster.try_kubectl(&["replace", "--raw", &path, "-f", "-"], &object.to_string()).unwrap().ok().unwrap();
    until("the namespace to go", PATIENCE, || cluster.get(&["namespace", namespace]).is_err().then_some(()))
        .unwrap();
}

/// A cluster that has it from kustomize is taken over without an interruption: no object is made anew, no pod replaced.
#[test]
fn helm_takes_over_what_kustomize_installed() {
    let cluster = ControlPlane::start().unwrap();
    let helm = Helm::new(Some(&cluster));
    let base = kustomize(&cluster, "base");
    cluster.try_kubectl(&["apply", "--server-side", "-f", "-"], &base).unwrap().ok().unwrap();
    let there = || -> Objects {
        let there = cluster.try_kubectl(&["get", "-f", "-", "-o", "json"], &base).unwrap().ok().unwrap();
        let mut there = there.json().unwrap();
        let objects = there["items"].as_array_mut().unwrap().iter_mut();
        // What tells that it is the same object; and of workloads the template of their pods.
        let identity = |object: &mut Value| {
            (name(object), json!([object["metadata"]["uid"], object["spec"]["template"]]))
        };
        objects.map(identity).collect()
    };
    let before = there();
    let chart = manifests("helm/larder");
    let refused = helm.try_run(&["install", "larder", &chart, "--namespace", SYSTEM]);
    assert!(refused.stderr.contains("invalid ownership metadata"), "{}", refused.stderr);
    helm.run(&["install", "larder", &chart, "--namespace", SYSTEM, "--take-ownership"]);
    assert_eq!(differences(&before, &there()), [] as [&str; 0]);
}
