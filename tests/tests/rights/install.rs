//! Applying the manifests, as people and programs do it.

use std::collections::BTreeMap;

use larder_tests::ControlPlane;
use serde_json::{Value, json};

use crate::fixture::manifests;

/// The resource versions of all that the base consists of.
fn versions(cluster: &ControlPlane) -> BTreeMap<String, Value> {
    let objects = cluster.get(&["-k", &manifests("base")]).unwrap();
    let items = objects["items"].as_array().unwrap().iter();
    let name = |item: &Value| {
        format!("{} {} {}", item["kind"], item["metadata"]["namespace"], item["metadata"]["name"])
    };
    items.map(|item| (name(item), item["metadata"]["resourceVersion"].clone())).collect()
}

fn wait_for_definitions(cluster: &ControlPlane) {
    let wait = ["wait", "--for=condition=Established", "--timeout=120s", "crd", "--all"];
    cluster.kubectl(&wait).unwrap();
}

/// Both ways of applying: each accepts every object without a warning, and the second time changes none of them.
#[test]
fn applying_it_twice_changes_nothing() {
    for (arguments, changed) in
        [(vec!["apply", "--server-side"], "serverside-applied"), (vec!["apply"], "created")]
    {
        let cluster = ControlPlane::start().unwrap();
        let base = manifests("base");
        let apply = [arguments.as_slice(), &["-k", &base]].concat();
        let first = cluster.kubectl(&apply).unwrap();
        assert_eq!(first.stderr, "", "{apply:?}");
        wait_for_definitions(&cluster);
        let before = versions(&cluster);
        assert_eq!(first.stdout.lines().filter(|line| line.ends_with(changed)).count(), before.len());
        let second = cluster.kubectl(&apply).unwrap();
        if changed == "created" {
            assert!(second.stdout.lines().all(|line| line.ends_with("unchanged")), "{}", second.stdout);
        }
        assert_eq!(versions(&cluster), before, "{apply:?}");
    }
}

#[test]
fn overlays_and_samples_are_accepted_and_uninstalling_leaves_nothing() {
    let cluster = ControlPlane::start().unwrap();
    let count = || -> usize {
        let kinds = "crd,deploy,ds,sa,role,rolebinding,clusterrole,clusterrolebinding,validatingadmissionpolicy,\
            validatingadmissionpolicybinding,priorityclass,flowschema,pdb,secret";
        let found = cluster.kubectl(&["get", kinds, "--all-namespaces", "-o", "name"]).unwrap().stdout;
        found.lines().filter(|name| name.contains("larder")).count()
    };
    cluster.kubectl(&["apply", "-k", &manifests("base")]).unwrap();
    wait_for_definitions(&cluster);
    let installed = count();
    assert!(installed > 20, "{installed}");
    for (overlay, path, wanted) in [
        ("all-nodes", "tolerations", json!([{"operator": "Exists"}])),
        (
            "control-plane",
            "tolerations",
            json!([{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}]),
        ),
        ("cri-o", "tolerations", Value::Null),
        ("allowed-registries", "tolerations", Value::Null),
        ("high-availability", "tolerations", Value::Null),
    ] {
        let applied = cluster.kubectl(&["apply", "-k", &manifests(&format!("overlays/{overlay}"))]).unwrap();
        assert_eq!(applied.stderr, "", "{overlay}");
        let agents = cluster.get(&["daemonset", "larder-agent", "--namespace=larder-agents"]).unwrap();
        assert_eq!(agents["spec"]["template"]["spec"][path], wanted, "{overlay}");
        let crio = agents.to_string().contains("/run/crio");
        let containerd = agents.to_string().contains("/run/containerd");
        // The annotation that kubectl apply leaves repeats the object, and says the same.
        assert_eq!((crio, containerd), (overlay == "cri-o", overlay != "cri-o"), "{overlay}");
    }
    let operators = cluster.get(&["deployment", "larder-operator", "--namespace=larder-system"]).unwrap();
    assert_eq!(operators["spec"]["replicas"], 2);
    for sample in ["samples/imagecache.yaml", "samples/registry-logins.yaml"] {
        cluster.kubectl(&["apply", "-f", &manifests(sample)]).unwrap();
    }
    assert_eq!(count(), installed + 2, "a disruption budget and a Secret");

    cluster.kubectl(&["delete", "--wait=false", "-f", &manifests("samples/registry-logins.yaml")]).unwrap();
    // Namespaces stay, being deleted: who empties them, the controller manager, is not here.
    let overlay = manifests("overlays/high-availability");
    cluster.kubectl(&["delete", "--wait=false", "-k", &overlay]).unwrap();
    larder_tests::until("everything to be gone", larder_tests::wait::PATIENCE, || {
        (count() == 0).then_some(())
    })
    .unwrap();
}
