//! What Argo CD is given: health checks with their tests, waves, an Application.

use std::{collections::BTreeSet, path::PathBuf};

use larder_tests::ControlPlane;
use serde_json::{Value, json};

use crate::fixture::{
    AGENTS, SYSTEM, argocd_sees, dry_run, gitops, health_tests, kustomize, manifests, name,
};

/// Argo CD's own tests, run by its own code. kstatus has to agree on the same objects.
#[test]
fn the_health_checks_pass_their_tests() {
    let tests = health_tests();
    for (file, expected, said) in &tests {
        assert_eq!(&said.argocd, expected, "{}", file.display());
        assert!(said.agree(), "{}: {said:?}", file.display());
    }
    let states: BTreeSet<&str> = tests.iter().map(|(_, expected, _)| expected.status.as_str()).collect();
    assert_eq!(states, ["Degraded", "Healthy", "Progressing", "Suspended"].into());
    // No test data lies there unused.
    let used: BTreeSet<PathBuf> = tests.into_iter().map(|(file, ..)| file).collect();
    let mut there = BTreeSet::new();
    for kind in ["ImageCache", "NodeImageCache"] {
        let folder = format!("argocd/resource_customizations/larder.dev/{kind}/testdata");
        for entry in std::fs::read_dir(manifests(&folder)).unwrap() {
            there.insert(entry.unwrap().path());
        }
    }
    assert_eq!(used, there);
}

/// Definitions and namespaces, then rights and policies, then programs.
#[test]
fn each_wave_needs_only_those_before_it() {
    let cluster = ControlPlane::start().unwrap();
    for namespace in [SYSTEM, AGENTS] {
        cluster.kubectl(&["create", "namespace", namespace]).unwrap();
    }
    let objects = dry_run(&cluster, &kustomize(&cluster, "argocd/larder"));
    assert!(objects.len() > 20);
    for (name, object) in objects {
        let wave = &object["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"];
        let expected = match object["kind"].as_str().unwrap() {
            "CustomResourceDefinition" | "Namespace" => json!("-2"),
            "Deployment" | "DaemonSet" => Value::Null,
            _ => json!("-1"),
        };
        assert_eq!(wave, &expected, "{name}");
    }

    cluster.install_crds().unwrap();
    let caches =
        dry_run(&cluster, &std::fs::read_to_string(manifests("argocd/image-caches/web.yaml")).unwrap());
    for (name, object) in caches {
        assert_eq!(object["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"], "1", "{name}");
    }
}

/// Once all is applied, Argo CD finds nothing to apply, however it compares.
#[test]
fn what_is_applied_is_in_sync() {
    let cluster = ControlPlane::start().unwrap();
    let manifests = kustomize(&cluster, "argocd/larder");
    let kubectl = |args: &[&str]| cluster.try_kubectl(args, &manifests).unwrap().ok().unwrap();
    kubectl(&["apply", "-f", "-"]);
    let written =
        kubectl(&["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"]).stdout;
    let written = serde_json::Deserializer::from_str(&written).into_iter::<Value>().map(Result::unwrap);
    let live = kubectl(&["get", "-o", "json", "-f", "-"]).json().unwrap()["items"].take();
    let live = live.as_array().unwrap();
    let pairs: Vec<(Value, Value)> = written
        .flat_map(|object| match object["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![object],
        })
        .map(|object| {
            let live = live.iter().find(|live| name(live) == name(&object)).unwrap().clone();
            (object, live)
        })
        .collect();
    assert!(pairs.len() > 20, "{}", pairs.len());
    assert_eq!(argocd_sees(&pairs), [] as [Value; 0]);

    // That it would see one.
    let (mut manifest, live) = pairs.into_iter().find(|(object, _)| object["kind"] == "DaemonSet").unwrap();
    manifest["spec"]["minReadySeconds"] = json!(11);
    assert_eq!(argocd_sees(&[(manifest, live)]).len(), 1);
}

/// Argo CD's `ConfigMap` holds much else, which somebody else wrote.
#[test]
fn the_health_checks_are_added_to_what_is_configured() {
    let cluster = ControlPlane::start().unwrap();
    cluster.kubectl(&["create", "namespace", "argocd"]).unwrap();
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm", "namespace": "argocd"},
        "data": {"url": "https://argocd.example.com", "admin.enabled": "false"},
    });
    cluster.apply(&theirs.to_string()).unwrap();
    let ours = manifests("argocd/argocd-cm.yaml");
    let patch = ["patch", "configmap", "argocd-cm", "--type=merge", "--patch-file", &ours];
    cluster.kubectl(&[&["--namespace=argocd"], &patch[..]].concat()).unwrap();
    let merged = cluster.get(&["configmap", "argocd-cm", "--namespace=argocd"]).unwrap();
    let keys: Vec<&String> = merged["data"].as_object().unwrap().keys().collect();
    let checks = ["ImageCache", "NodeImageCache"]
        .map(|kind| format!("resource.customizations.health.larder.dev_{kind}"));
    assert_eq!(keys, [&"admin.enabled".to_owned(), &checks[0], &checks[1], &"url".to_owned()]);
}

/// Read by Argo CD's own types, which know every field in it.
#[test]
fn the_application_names_what_there_is() {
    let application = gitops(&["application", &manifests("argocd/application.yaml")], "").remove(0);
    for source in application["spec"]["sources"].as_array().unwrap() {
        let path = source["path"].as_str().unwrap().strip_prefix("manifests/").unwrap();
        assert!(PathBuf::from(manifests(path)).is_dir(), "{path}");
    }
}
