//! Applying the same manifest twice changes nothing, and nobody but the user ever writes the user's specification.

use std::{collections::BTreeSet, path::Path};

use larder_tests::{
    ControlPlane, Image, Layer, Registry, RegistryOptions, Scratch, larder, until, wait::PATIENCE,
};
use serde_json::{Value, json};

use crate::fixture::argocd_sees;

fn image_cache(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": name}, "spec": spec})
}

/// Both ways of applying, with a specification that leaves out all that has a default, and one that says all.
#[test]
fn the_same_manifest_again() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let image = Image::builder().layer(&Layer::random(1, 50_000).unwrap()).build().unwrap();
    let app = registry.push(&image, "app", "v1").unwrap().name;
    let cluster = ControlPlane::start().unwrap();
    cluster.install_crds().unwrap();
    let scratch = Scratch::new("twice").unwrap();
    let folder: &Path = scratch.path();
    let operator = larder::operator(cluster.kubeconfig(), folder).unwrap();
    operator.start().unwrap();
    let agent = larder::agent(cluster.kubeconfig(), "a", &folder.join("store"), folder).unwrap();
    cluster.create_node("a", &[("pool", "web")]).unwrap();
    agent.start().unwrap();

    let short = image_cache("short", &json!({"images": [{"image": app}]}));
    let long = image_cache(
        "long",
        &json!({
            "nodeSelector": {"matchLabels": {"pool": "web"}, "matchExpressions": []},
            "images": [{"image": app, "platform": "linux/amd64", "pullPolicy": "IfNotPresent"}],
            "deletionPolicy": "Delete",
            "rollout": {"maxConcurrentNodes": "20%"},
            "paused": false,
        }),
    );
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [short, long]}).to_string();
    for (args, unchanged) in [
        (&["apply", "-f", "-"] as &[&str], " unchanged"),
        (
            &["apply", "--server-side", "--field-manager=argocd-controller", "--force-conflicts", "-f", "-"],
            "serverside-applied",
        ),
    ] {
        let apply = || cluster.try_kubectl(args, &list).unwrap().ok().unwrap();
        apply();
        let before = settled(&cluster);
        let again = apply();
        assert!(again.stdout.lines().all(|line| line.ends_with(unchanged)), "{}", again.stdout);
        assert_eq!(again.stderr, "");
        // What would be written now is what is there.
        let diff = cluster.try_kubectl(&["diff", "-f", "-"], &list).unwrap();
        assert_eq!((diff.status.code(), diff.stdout.as_str()), (Some(0), ""), "{}", diff.stderr);
        assert_eq!(settled(&cluster), before, "{args:?}");
    }

    for manifest in [&short, &long] {
        let object = cluster.get(&["imagecache", manifest["metadata"]["name"].as_str().unwrap()]).unwrap();
        assert_eq!(object["metadata"]["generation"], 1, "{object:#}");
        assert_eq!(object["spec"], with_defaults(&manifest["spec"]));
        assert_eq!(argocd_sees(&[(manifest.clone(), object)]), [] as [Value; 0]);
    }
    assert_writers(&cluster);
}

/// The user's words and the schema's defaults, and nothing else.
fn with_defaults(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let [definition, _] = larder_crds::definitions();
    let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    let fields = schema.properties.unwrap()["spec"].properties.clone().unwrap();
    for (name, default) in fields.iter().filter_map(|(name, field)| Some((name, field.default.as_ref()?))) {
        if spec[name].is_null() {
            spec[name] = default.0.clone();
        }
    }
    spec
}

/// Both objects, once they are ready and nothing is written to them any more: their versions.
fn settled(cluster: &ControlPlane) -> Vec<Value> {
    let mut last = Vec::new();
    until("both to be ready, and to stay as they are", PATIENCE, || {
        let objects = cluster.get(&["imagecaches"]).ok()?;
        let objects = objects["items"].as_array()?.clone();
        let ready = |object: &Value| {
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
                && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        if objects.len() != 2 || !objects.iter().all(ready) {
            return None;
        }
        let versions: Vec<Value> =
            objects.iter().map(|object| object["metadata"]["resourceVersion"].clone()).collect();
        // Seen twice with a pause of this loop between.
        let is_same = versions == last;
        last.clone_from(&versions);
        is_same.then_some(versions)
    })
    .unwrap()
}

/// The API server's own record of who wrote what.
fn assert_writers(cluster: &ControlPlane) {
    let objects = cluster.get(&["imagecaches", "--show-managed-fields"]).unwrap();
    for object in objects["items"].as_array().unwrap() {
        let mut managers = BTreeSet::new();
        for entry in object["metadata"]["managedFields"].as_array().unwrap() {
            let manager = entry["manager"].as_str().unwrap().to_owned();
            if manager.starts_with("larder") {
                assert_eq!(entry["subresource"], "status", "{entry:#}");
                let fields: Vec<&String> = entry["fieldsV1"].as_object().unwrap().keys().collect();
                assert_eq!(fields, ["f:status"], "{entry:#}");
            } else {
                assert!(entry["fieldsV1"]["f:status"].is_null(), "{entry:#}");
            }
            managers.insert(manager);
        }
        let expected = ["argocd-controller", "kubectl-client-side-apply", "larder-operator"];
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        // kubectl moves what it applied by itself to whoever applies on the server.
        let is_expected = managers.is_subset(&expected) && managers.contains("larder-operator");
        assert!(is_expected && managers.len() >= 2, "{managers:?}");
    }
}
