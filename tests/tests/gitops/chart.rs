//! The Helm chart beside kustomize: the same objects, and values that are checked.

use std::collections::BTreeSet;

use larder_tests::{ControlPlane, Scratch};
use serde_json::Value;

use crate::fixture::{AGENTS, Helm, SYSTEM, differences, dry_run, kustomize, manifests};

/// One API server for all of these: nothing but its two namespaces is written there.
fn cluster() -> ControlPlane {
    let cluster = ControlPlane::start().unwrap();
    for namespace in [SYSTEM, AGENTS] {
        cluster.kubectl(&["create", "namespace", namespace]).unwrap();
    }
    cluster
}

/// Overlays, and the values that stand for them.
const PAIRS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("overlays/all-nodes", &["--set", "agent.tolerations[0].operator=Exists"]),
    (
        "overlays/control-plane",
        &[
            "--set",
            "agent.tolerations[0].key=node-role.kubernetes.io/control-plane",
            "--set",
            "agent.tolerations[0].operator=Exists",
            "--set",
            "agent.tolerations[0].effect=NoSchedule",
        ],
    ),
    ("overlays/cri-o", &["--set", "agent.runtime.folder=/run/crio"]),
    ("overlays/high-availability", &["--set", "operator.replicas=2"]),
    (
        "overlays/allowed-registries",
        &["--set", "operator.allowedRegistries={registry.example.com,docker.io/library}"],
    ),
    ("overlays/metrics", &["--set", "operator.metricsService.create=true"]),
];

/// All that the API server would make of either, defaults included.
#[test]
fn chart_and_kustomize_give_the_same() {
    let cluster = cluster();
    let helm = Helm::new(None);
    for (overlay, values) in PAIRS {
        let base = dry_run(&cluster, &kustomize(&cluster, overlay));
        let chart =
            dry_run(&cluster, &helm.template(&[&["--set", "createNamespace=true"], *values].concat()));
        assert!(base.len() > 20, "{}", base.len());
        let found = differences(&base, &chart);
        assert_eq!(found, [] as [&str; 0], "{overlay}, kustomize ≠ chart");
    }
    // Where Helm makes the release's namespace itself.
    let base = dry_run(&cluster, &kustomize(&cluster, "base"));
    let chart = dry_run(&cluster, &helm.template(&[]));
    let missing: Vec<&String> = base.keys().filter(|name| !chart.contains_key(*name)).collect();
    assert_eq!(missing, [&format!("Namespace /{SYSTEM}")]);
    comparison_sees_differences(&cluster, &helm);
}

/// That the comparison would see a difference, at the place where it is.
fn comparison_sees_differences(cluster: &ControlPlane, helm: &Helm) {
    let base = dry_run(cluster, &kustomize(cluster, "base"));
    let one_more = ["--set", "createNamespace=true", "--set", "agent.extraArgs[0]=--check-interval=5"];
    let found = differences(&base, &dry_run(cluster, &helm.template(&one_more)));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(".DaemonSet larder-agents/larder-agent.spec.template.spec"), "{found:?}");
}

/// Every value is used, and gives objects that the API server takes.
#[test]
fn all_values_have_an_effect() {
    let cluster = cluster();
    for namespace in ["elsewhere", "its-agents"] {
        cluster.kubectl(&["create", "namespace", namespace]).unwrap();
    }
    let helm = Helm::new(None);
    let chart = manifests("helm/larder");
    let template = |args: &[&str]| {
        let common = ["template", "larder", &chart, "--namespace", "elsewhere"];
        helm.run(&[&common[..], args].concat()).stdout
    };
    let plain = template(&[]);
    assert!(plain.contains("- --secrets-namespace=elsewhere"), "{plain}");
    for (values, expected) in [
        ("crds.install=false", ""),
        ("crds.keep=false", ""),
        ("imagePullSecrets[0].name=own-registry", "name: own-registry"),
        ("operator.image.digest=sha256:DIGEST", "/larder-operator@sha256:DIGEST"),
        ("operator.image.tag=v9", "/larder-operator:v9"),
        ("operator.image.repository=registry.example.com/op", "image: registry.example.com/op:v"),
        ("operator.image.pullPolicy=Always", "imagePullPolicy: Always"),
        ("operator.resources.limits.cpu=2", "cpu: 2"),
        ("operator.nodeSelector.pool=infra", "pool: infra"),
        ("operator.tolerations[0].operator=Exists", "operator: Exists"),
        ("operator.affinity.podAntiAffinity.a=b", ""),
        ("operator.priorityClassName=system-cluster-critical", "priorityClassName: system-cluster-critical"),
        ("operator.podLabels.team=platform", "team: platform"),
        ("operator.podAnnotations.note=here", "note: here"),
        ("operator.logLevel=debug", "value: \"debug\""),
        ("operator.extraArgs[0]=--workers=32", "- --workers=32"),
        ("operator.allowedRegistries[0]=registry.corp/team", "- --allow-registry=registry.corp/team"),
        (
            "operator.metricsService.create=true,operator.metricsService.labels.scrape=yes,operator.metricsService.annotations.by=all",
            "scrape: \"yes\"",
        ),
        ("agent.namespace=its-agents", "system:serviceaccount:its-agents:larder-agent"),
        ("agent.createNamespace=false", ""),
        ("agent.image.tag=v9", "/larder-agent:v9"),
        ("agent.resources.limits.memory=1Gi", "memory: 1Gi"),
        ("agent.nodeSelector.pool=gpu", "pool: gpu"),
        ("agent.affinity.nodeAffinity.a=b", ""),
        ("agent.maxUnavailable=1", "maxUnavailable: 1"),
        (
            "agent.priorityClass.create=false,agent.priorityClass.name=system-node-critical",
            "priorityClassName: system-node-critical",
        ),
        ("agent.priorityClass.value=7", "value: 7"),
        ("agent.runtime.endpoint=unix:///run/k3s/containerd/odd.sock", "path: /run/k3s/containerd\n"),
        ("agent.runtime.interface=cri", "- --runtime=cri"),
        ("agent.storeFolder=/data/larder", "path: /data/larder"),
        ("agent.importFolder=/data/import", "path: /data/import"),
        ("agent.exportFolder=/data/export", "path: /data/export"),
        ("agent.registriesFolder=/etc/registries", "- --hosts-dir=/etc/registries"),
        ("agent.loginsSecret=logins", "secretName: logins"),
        ("agent.podLabels.team=platform", "team: platform"),
        ("agent.podAnnotations.note=here", "note: here"),
        ("agent.logLevel=debug", "value: \"debug\""),
        ("agent.extraArgs[0]=--max-backoff=60", "- --max-backoff=60"),
    ] {
        let digest = "0".repeat(64);
        let [values, expected] = [values, expected].map(|text| text.replace("DIGEST", &digest));
        let made = template(&["--set", &values]);
        assert_ne!(made, plain, "{values}");
        assert!(made.contains(&expected), "{values}: {made}");
        // An affinity of nonsense shows that it arrives; the rest has to be right.
        if !values.contains("affinity") {
            dry_run(&cluster, &made);
        }
    }
}

#[test]
fn wrong_values_are_refused_in_one_message() {
    let helm = Helm::new(None);
    let chart = manifests("helm/larder");
    for (values, message) in [
        ("agnet.namespace=x", "'agnet' not allowed"),
        ("agent.tolerations=all", "at '/agent/tolerations': got string, want array"),
        ("agent.runtime.interface=docker", "must be one of '', 'auto', 'containerd', 'cri', 'none'"),
        ("agent.runtime.endpoint=/containerd.sock", "at '/agent/runtime/endpoint'"),
        ("agent.runtime.folder=/", "at '/agent/runtime/folder'"),
        ("agent.maxUnavailable=0%", "at '/agent/maxUnavailable'"),
        ("agent.image.digest=sha256:abc", "at '/agent/image/digest'"),
        ("agent.namespace=larder-system", "which is the operator's namespace too"),
        ("agent.priorityClass.name=", "agent.priorityClass.name is empty"),
        ("operator.replicas=two", "at '/operator/replicas': got string, want integer"),
        ("operator.extraArgs[0]=workers", "at '/operator/extraArgs/0'"),
        ("operator.allowedRegistries[0]=https://registry.corp", "at '/operator/allowedRegistries/0'"),
    ] {
        let args = ["template", "larder", &chart, "--namespace", SYSTEM, "--set", values];
        let ran = helm.try_run(&args);
        assert!(!ran.status.success(), "accepted: {values}");
        assert!(ran.stderr.contains(message), "{values}: {}", ran.stderr);
    }
    let old = helm.try_run(&["template", "larder", &chart, "--kube-version", "1.29.9"]);
    assert!(old.stderr.contains("chart requires kubeVersion: >=1.30.0-0"), "{}", old.stderr);
}

/// The schema knows every value, and none that there is not.
#[test]
fn the_schema_is_that_of_the_values() {
    fn keys(path: &str, value: &Value, found: &mut BTreeSet<String>) {
        let Some(fields) = value.as_object() else { return };
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            // What is in these is Kubernetes', not ours.
            let is_foreign = ["resources", "affinity", "nodeSelector"].contains(&name.as_str());
            found.insert(path.clone());
            if !is_foreign {
                keys(&path, value, found);
            }
        }
    }
    fn properties(path: &str, schema: &Value, root: &Value, found: &mut BTreeSet<String>) {
        let schema = match schema["$ref"].as_str() {
            Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
            None => schema,
        };
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            found.insert(path.clone());
            properties(&path, schema, root, found);
        }
    }
    let schema = std::fs::read_to_string(manifests("helm/larder/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut known = BTreeSet::new();
    properties("", &schema, &schema, &mut known);
    // Helm hands it to every chart.
    assert!(known.remove(".global"));
    let mut there = BTreeSet::new();
    keys("", &values(), &mut there);
    assert_eq!(known, there);
}

/// The chart's defaults, read by Helm itself: a chart of one line prints them.
fn values() -> Value {
    let scratch = Scratch::new("values").unwrap();
    let templates = scratch.folder("printer/templates").unwrap();
    let write = |name: &str, text: &str| std::fs::write(templates.join(name), text).unwrap();
    write("../Chart.yaml", "{apiVersion: v2, name: printer, version: 1.0.0}");
    write("values.yaml", "values: {{ .Values | toJson }}");
    let folder = scratch.path().join("printer");
    let defaults = manifests("helm/larder/values.yaml");
    let template = ["template", "x", folder.to_str().unwrap(), "--values", &defaults];
    let made = Helm::new(None).run(&template).stdout;
    let json = made.lines().find_map(|line| line.strip_prefix("values: ")).unwrap();
    serde_json::from_str(json).unwrap()
}

#[test]
fn helm_finds_nothing_to_say_against_it() {
    let ran = Helm::new(None).run(&["lint", "--strict", &manifests("helm/larder")]);
    let said: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(said, ["[INFO] Chart.yaml: icon is recommended"]);
}

/// A packaged chart, as it is pushed to a registry, lacks nothing.
#[test]
fn the_package_gives_what_the_folder_gives() {
    let helm = Helm::new(None);
    let folder = Scratch::new("package").unwrap();
    helm.run(&["package", &manifests("helm/larder"), "--destination", folder.path().to_str().unwrap()]);
    let package = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let package = package.to_str().unwrap();
    let made = helm.run(&["template", "larder", package, "--namespace", SYSTEM]).stdout;
    assert!(made.contains("name: imagecaches.larder.dev"));
    assert_eq!(made, helm.template(&[]));
}
