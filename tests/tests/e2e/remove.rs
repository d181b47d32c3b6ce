//! `spec.remove`: rules that take images off real nodes, from under nobody. `cargo xtask e2e remove:: -- --nocapture` prints
//! what an administrator sees, and docs/use/clean-nodes.md shows it.

use larder_tests::{
    Image, Kubectl, Layer, Node, Pod, PodOptions, kubernetes::images::PAUSE, until, wait::PATIENCE,
};
use serde_json::{Value, json};

use crate::{
    fixture::{PULL_SECRET, alone},
    larder::{AGENTS, ImageCache, Larder, push, runtime_image, stored},
};

/// Agents that take away at once what nobody uses, until this is dropped.
struct WithoutGrace<'a> {
    kubectl: &'a Kubectl,
    larder: &'a Larder,
}

impl<'a> WithoutGrace<'a> {
    fn new(kubectl: &'a Kubectl, larder: &'a Larder) -> Self {
        let this = Self { kubectl, larder };
        this.set("LARDER_REMOVAL_GRACE=0").unwrap();
        this.larder.wait_rolled_out();
        this
    }

    fn set(&self, variable: &str) -> larder_tests::Result<()> {
        let set = ["set", "env", "daemonset/larder-agent", "--namespace", AGENTS, variable];
        self.kubectl.kubectl(&set).map(drop)
    }
}

impl Drop for WithoutGrace<'_> {
    fn drop(&mut self) {
        let set = self.set("LARDER_REMOVAL_GRACE-");
        if !std::thread::panicking() {
            set.unwrap();
            self.larder.wait_rolled_out();
        }
    }
}

/// An `ImageCache` named `clean`, for one node, of nothing but rules. Dropping it deletes it.
struct Rules<'a> {
    kubectl: &'a Kubectl,
    node: &'static str,
}

impl Rules<'_> {
    fn apply(&self, rules: &Value) {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": "clean"},
            "spec": {"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": self.node}}, "remove": rules},
        });
        self.kubectl.apply(&object.to_string()).unwrap();
    }

    /// Waits until something is true of what the `ImageCache` says of its rules.
    fn wait(&self, larder: &Larder, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = until(what, PATIENCE, || {
            last = self.kubectl.get(&["imagecache", "clean"]).ok()?;
            let current = last["status"]["observedGeneration"] == last["metadata"]["generation"];
            (current && is(&last["status"]["removals"])).then(|| last["status"]["removals"].clone())
        });
        found.unwrap_or_else(|error| panic!("{error}\n{last:#}\n{}", larder.describe()))
    }
}

impl Drop for Rules<'_> {
    fn drop(&mut self) {
        self.kubectl.try_kubectl(&["delete", "imagecache", "clean", "--ignore-not-found"], "").ok();
    }
}

/// Brings an image to a node as if somebody had built it there; the number says when it was made.
fn bring(node: &Node, name: &str, number: u64) {
    let layer = Layer::random(7000 + number, 40_000).unwrap();
    let made = format!("2026-01-{number:02}T00:00:00Z");
    node.import(&Image::builder().layer(&layer).created(&made).build().unwrap(), name).unwrap();
}

fn seen(kubectl: &Kubectl, args: &[&str]) {
    println!("$ kubectl {}\n{}", args.join(" "), kubectl.kubectl(args).unwrap().stdout);
}

#[test]
fn rules_take_images_off_a_node_from_under_nobody() {
    let e2e = alone();
    let (larder, kubectl) = (e2e.larder(), &*e2e.cluster);
    let node = e2e.cluster.node("node-1").unwrap();
    let _grace = WithoutGrace::new(kubectl, larder);
    let has = |name: &str| runtime_image(&node, name).is_some();
    let app = |tag: &str| format!("registry.corp/team/app:{tag}");
    for (number, tag) in (1..).zip(["v0-lts", "v1", "v2", "v3", "v4"]) {
        bring(&node, &app(tag), number);
    }
    bring(&node, "registry.corp/base/system:v1", 10);
    node.ctr(&["images", "label", &app("v0-lts"), "io.cri-containerd.pinned=pinned"]).unwrap();
    // One that kubelet pulled, and that a pod runs.
    let web = push(&e2e.registry, "remove/web", 7500).name;
    let pod = PodOptions::new("remove-web").image(&web).node("node-1");
    let pod = Pod::start(kubectl, &pod.pull_policy("IfNotPresent").pull_secret(PULL_SECRET)).unwrap();
    // One that is wanted.
    let wanted = push(&e2e.registry, "remove/wanted", 7600).name;
    let cache = ImageCache::apply_on(kubectl, "remove-wants", "node-1", &[&wanted]);
    cache.wait_ready(larder);
    let bystanders = [PAUSE, larder.own_images()[1], &wanted, "registry.corp/base/system:v1"];

    let rules = Rules { kubectl, node: "node-1" };
    let own = larder.own_images()[1].rsplit_once('/').unwrap().0.to_owned() + "/*";
    let mine = web.rsplit_once('/').unwrap().0.to_owned() + "/*";
    let spec = |dry_run: bool| {
        json!([
            {"image": "registry.corp/**", "except": ["registry.corp/base/*"], "keepNewest": 2, "dryRun": dry_run},
            {"image": mine},
            {"image": own},
            {"image": "larder.test/pause:*"},
        ])
    };
    rules.apply(&spec(true));
    let told = rules.wait(larder, "the rules to be told of", |told| {
        told[0]["images"] == 2 && told[1]["inUse"] == 1 && told[2]["inUse"] == 0
    });
    assert_eq!(told[0]["names"], json!([app("v1"), app("v2")]), "{told:#}");
    assert_eq!((&told[0]["nodes"], &told[0]["dryRun"]), (&json!(1), &json!(true)), "{told:#}");
    // The pod's image stays and is named.
    assert_eq!(told[1]["names"], json!([web]), "{told:#}");
    assert!(["v0-lts", "v1", "v2", "v3", "v4"].iter().all(|tag| has(&app(tag))) && has(&web));
    assert!(bystanders.iter().all(|name| has(name)));
    seen(kubectl, &["get", "imagecache", "clean", "--output", "yaml"]);

    rules.apply(&spec(false));
    rules
        .wait(larder, "the rule to be carried out", |told| told[0]["removed"] == 2 && told[0]["images"] == 0);
    assert!(!has(&app("v1")) && !has(&app("v2")));
    assert!(["v0-lts", "v3", "v4"].iter().all(|tag| has(&app(tag))) && has(&web));
    assert!(bystanders.iter().all(|name| has(name)));
    assert!(pod.exec(&["true"]).is_ok(), "it runs on");

    // Somebody brings one again: by event, not by the clock.
    bring(&node, &app("v1"), 2);
    rules.wait(larder, "it to go again", |told| told[0]["removed"] == 3);
    assert!(!has(&app("v1")));
    pod.delete().unwrap();
    rules.wait(larder, "the pod's image to go", |told| told[1]["removed"] == 1 && told[1]["inUse"] == 0);
    assert!(!has(&web) && !stored(&node).contains(&web));
    seen(kubectl, &["get", "imagecache", "clean", "--output", "yaml"]);
    let told = until("that to be told", PATIENCE, || {
        let told = larder.events("NodeImageCache", "node-1");
        told.iter().any(|(reason, note)| reason == "RemovedByRule" && note.contains(&web)).then_some(told)
    })
    .unwrap();
    seen(kubectl, &["get", "events", "--field-selector", "reason=RemovedByRule"]);
    let told: Vec<_> = told.iter().filter(|(reason, _)| reason == "RemovedByRule").collect();
    assert!(
        told.iter()
            .any(|(_, note)| note.contains("2 images are gone by ImageCache clean's rule registry.corp/**")),
        "{told:#?}"
    );

    // Without the rules nothing more goes.
    drop(rules);
    until("the agent to forget them", PATIENCE, || {
        let node = larder.node("node-1")?;
        let taken_up = node["status"]["observedGeneration"] == node["metadata"]["generation"];
        (taken_up && node["spec"]["remove"].is_null() && node["status"]["removals"].is_null()).then_some(())
    })
    .unwrap();
    bring(&node, &app("v1"), 2);
    let more = push(&e2e.registry, "remove/more", 7700).name;
    cache.edit(&[&wanted, &more]);
    cache.wait_ready(larder);
    assert!(has(&app("v1")) && bystanders.iter().all(|name| has(name)));
    cache.delete();
    for name in ["v0-lts", "v1", "v3", "v4"]
        .map(app)
        .iter()
        .map(String::as_str)
        .chain(["registry.corp/base/system:v1"])
    {
        node.crictl(&["rmi", name]).unwrap().ok().unwrap();
    }
}
