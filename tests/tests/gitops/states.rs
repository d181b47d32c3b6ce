//! Every state that an `ImageCache` goes through, as kstatus and Argo CD see it: they agree with each other and with us.

use std::{collections::BTreeSet, path::PathBuf};

use larder_tests::{
    Answer, ControlPlane, Image, Layer, Program, Proxy, Registry, RegistryOptions, Rule, Scratch, larder,
    until, wait::PATIENCE,
};
use serde_json::{Value, json};

use crate::fixture::{Verdicts, judge};

/// A registry behind a proxy, a control plane, and on it what a test starts.
struct Stage {
    // In this order: programs end before what they talk to.
    operator: Program,
    agent: Program,
    watch: Program,
    watched: PathBuf,
    cluster: ControlPlane,
    proxy: Proxy,
    registry: Registry,
    _scratch: Scratch,
    seen: Vec<Seen>,
}

/// An object at a moment, and what is to be said of it.
struct Seen {
    what: &'static str,
    object: Value,
    kstatus: &'static str,
    argocd: &'static str,
}

impl Stage {
    /// Nothing runs yet but the API server, the registry, and somebody who watches.
    fn new() -> Self {
        let registry = Registry::start(RegistryOptions::default()).unwrap();
        let proxy = Proxy::start(&registry.host()).unwrap();
        let cluster = ControlPlane::start().unwrap();
        cluster.install_crds().unwrap();
        let scratch = Scratch::new("states").unwrap();
        let folder = scratch.path();
        let watched = folder.join("watched.json");
        let watch = Program::new("watch", cluster.kubectl_program(), folder)
            .args(["get", "imagecaches", "--watch", "--output=json"])
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("KUBECACHEDIR", folder.join("kubectl-cache"))
            .stdout(&watched);
        let agent = larder::agent(cluster.kubeconfig(), "a", &folder.join("store"), folder).unwrap();
        Self {
            operator: larder::operator(cluster.kubeconfig(), folder).unwrap(),
            agent: agent.args(["--max-backoff", "2", "--check-interval", "2"]),
            watch,
            watched,
            cluster,
            proxy,
            registry,
            _scratch: scratch,
            seen: Vec::new(),
        }
    }

    /// Pushes an image of one layer, and gives the name under which nodes find it.
    fn push(&self, name: &str, seed: u64, size: usize) -> String {
        let image = Image::builder().layer(&Layer::random(seed, size).unwrap()).build().unwrap();
        self.registry.push(&image, name, "v1").unwrap();
        self.name(name)
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}:v1", self.proxy.host())
    }

    fn apply(&self, spec: &Value) {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": "web"}, "spec": spec,
        });
        self.cluster.apply(&object.to_string()).unwrap();
    }

    /// Waits until an object is so, and keeps what it was then.
    fn see(
        &mut self,
        what: &'static str,
        object: &[&str],
        (kstatus, argocd): (&'static str, &'static str),
        is: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let found = until(&format!("{object:?}: {what}"), PATIENCE, || {
            last = self.cluster.get(object).ok()?;
            is(&last).then_some(())
        });
        found.unwrap_or_else(|error| panic!("{error}\n{last:#}"));
        self.seen.push(Seen { what, object: last.clone(), kstatus, argocd });
        last
    }

    /// Waits until the ImageCache is ready, or not, for this reason, and the operator has seen its last change.
    fn see_cache(&mut self, reason: &'static str, verdicts: (&'static str, &'static str)) -> Value {
        self.see(reason, &["imagecache", "web"], verdicts, |object| {
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
                && condition(object, "Ready")["reason"] == reason
        })
    }

    fn see_node(&mut self, what: &'static str, verdicts: (&'static str, &'static str), ready: &str) {
        self.see(what, &["nodeimagecache", "a"], verdicts, |object| {
            let status = &object["status"];
            let is_fresh = status["observedGeneration"].is_null()
                || status["observedGeneration"] == object["metadata"]["generation"];
            is_fresh && condition(object, "Ready")["status"] == ready
        });
    }

    /// Every version of the ImageCache that somebody who watches has got.
    fn watched(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.watched).unwrap();
        // The last one may not be written to its end.
        let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        objects.map_while(Result::ok).collect()
    }
}

fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

/// What we mean by the conditions, as docs/gitops.md says it, in kstatus' words.
fn meant(object: &Value) -> &'static str {
    let holds = |kind: &str| condition(object, kind)["status"] == "True";
    let observed = &object["status"]["observedGeneration"];
    if object["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating";
    }
    if observed != &object["metadata"]["generation"] {
        return "InProgress";
    }
    match (holds("Ready"), holds("Reconciling"), holds("Stalled")) {
        (true, false, false) => "Current",
        (false, true | false, false) => "InProgress",
        (false, false, true) => "Failed",
        contradiction => panic!("{contradiction:?} in {object:#}"),
    }
}

const DONE: (&str, &str) = ("Current", "Healthy");
const WORKING: (&str, &str) = ("InProgress", "Progressing");
const PAUSED: (&str, &str) = ("InProgress", "Suspended");
const FAILED: (&str, &str) = ("Failed", "Degraded");

#[test]
fn every_state_is_read_alike_by_all() {
    let mut stage = Stage::new();
    stage.watch.start().unwrap();
    new_and_working(&mut stage);
    failing(&mut stage);
    paused(&mut stage);
    unusual(&mut stage);
    deleted(&mut stage);

    let verdicts = judge(stage.seen.iter().map(|seen| &seen.object));
    for (seen, said) in stage.seen.iter().zip(&verdicts) {
        let pair = (said.kstatus.status.as_str(), said.argocd.status.as_str());
        assert_eq!(pair, (seen.kstatus, seen.argocd), "{}: {:#}", seen.what, seen.object);
        if seen.object["kind"] == "ImageCache" {
            assert_eq!(meant(&seen.object), seen.kstatus, "{}: {:#}", seen.what, seen.object);
        }
        assert!(!said.argocd.message.is_empty(), "{}", seen.what);
    }
    assert_messages(&stage.seen, &verdicts);
    watched_states_are_read_alike(&stage);
}

/// No operator, then one without agents, then an agent that fetches, then all there.
fn new_and_working(stage: &mut Stage) {
    let app = stage.push("app", 1, 3_000_000);
    stage.apply(&json!({"images": [{"image": app}]}));
    stage.see("new", &["imagecache", "web"], WORKING, |_| true);
    stage.operator.start().unwrap();
    stage.see_cache("NoAgents", WORKING);

    stage.cluster.create_node("a", &[("pool", "web")]).unwrap();
    stage.see_node("a node without an agent", WORKING, "Unknown");
    stage.proxy.limit_rate(Some(200_000));
    stage.agent.start().unwrap();
    stage.see("fetching", &["imagecache", "web"], WORKING, |object| {
        condition(object, "Reconciling")["reason"] == "ImagesProgressing"
            && object["status"]["bytes"]["present"].as_i64().unwrap_or_default() > 0
    });
    stage.see_node("a node that fetches", WORKING, "False");
    stage.proxy.limit_rate(None);
    stage.see_cache("AllImagesReady", DONE);
    stage.see_node("a node that is done", DONE, "True");
}

/// A registry that fails for a while; an image that there is not, until somebody pushes it.
fn failing(stage: &mut Stage) {
    let app = stage.name("app");
    let flaky = stage.push("flaky", 2, 50_000);
    stage.proxy.add(Rule::any("/v2/flaky/").then(Answer::status(503)));
    stage.operator.kill();
    stage.apply(&json!({"images": [{"image": app}, {"image": flaky}]}));
    stage.see("changed while no operator runs", &["imagecache", "web"], WORKING, |object| {
        condition(object, "Ready")["status"] == "True" && object["metadata"]["generation"] == 2
    });
    stage.operator.start().unwrap();
    let failing = stage.see_cache("ImagesFailing", WORKING);
    assert_eq!(condition(&failing, "Degraded")["status"], "True");
    stage.see_node("a node on which it fails", WORKING, "False");
    stage.proxy.clear();
    stage.see_cache("AllImagesReady", DONE);

    let later = stage.name("later");
    stage.apply(&json!({"images": [{"image": app}, {"image": later}]}));
    stage.see_cache("ImagesUnavailable", FAILED);
    stage.push("later", 3, 50_000);
    stage.see_cache("AllImagesReady", DONE);
}

/// What a person holds back.
fn paused(stage: &mut Stage) {
    let images = json!([{"image": stage.name("app")}, {"image": stage.push("held-back", 4, 50_000)}]);
    stage.apply(&json!({"paused": true, "images": images}));
    stage.see_cache("Paused", PAUSED);
    stage.apply(&json!({"images": images}));
    stage.see_cache("AllImagesReady", DONE);
    stage.apply(&json!({"paused": true, "images": images}));
    stage.see("paused with nothing to do", &["imagecache", "web"], DONE, |object| {
        object["status"]["observedGeneration"] == object["metadata"]["generation"]
    });
}

/// What is wrong at once, and what is finished at once.
fn unusual(stage: &mut Stage) {
    let app = stage.name("app");
    let images = json!([{"image": app}]);
    let wrong = json!({"matchExpressions": [{"key": "pool", "operator": "Inn", "values": ["web"]}]});
    stage.apply(&json!({"nodeSelector": wrong, "images": images}));
    stage.see_cache("InvalidSpec", FAILED);
    stage.apply(&json!({"nodeSelector": {"matchLabels": {"pool": "none"}}, "images": images}));
    stage.see_cache("NoMatchingNodes", DONE);
    stage.apply(&json!({"images": []}));
    stage.see_cache("AllImagesReady", DONE);
}

/// As Argo CD deletes: what is owned goes first. Who sees to that, the controller manager, is not here.
fn deleted(stage: &mut Stage) {
    stage.cluster.kubectl(&["delete", "imagecache", "web", "--cascade=foreground", "--wait=false"]).unwrap();
    stage.see("being deleted", &["imagecache", "web"], ("Terminating", "Progressing"), |object| {
        object["metadata"]["deletionTimestamp"].is_string()
    });
}

/// What people read in Argo CD is what `kubectl describe` shows.
fn assert_messages(seen: &[Seen], verdicts: &[Verdicts]) {
    for (what, part) in [
        ("new", "Waiting for the operator"),
        ("NoAgents", "Waiting for the first node's agent"),
        ("a node without an agent", "Waiting for the node's agent"),
        ("fetching", "1 is fetching"),
        ("AllImagesReady", "The node holds the image"),
        ("changed while no operator runs", "take up the last change"),
        ("ImagesFailing", "First failure: "),
        ("ImagesUnavailable", "/later:v1"),
        ("Paused", "since spec.paused is true"),
        ("InvalidSpec", "nodeSelector"),
        ("NoMatchingNodes", "The selector matches no node"),
        ("being deleted", "Pending deletion"),
    ] {
        let (_, said) = seen.iter().zip(verdicts).find(|(seen, _)| seen.what == what).unwrap();
        assert!(said.argocd.message.contains(part), "{what}: {said:?}");
    }
}

/// The states above are those that a test waits for. Nor does any between them look like another to one of the tools.
fn watched_states_are_read_alike(stage: &Stage) {
    let objects = until("the deletion to be seen by who watches", PATIENCE, || {
        let objects = stage.watched();
        let is_over = objects.last()?["metadata"]["deletionTimestamp"].is_string();
        is_over.then_some(objects)
    })
    .unwrap();
    let verdicts = judge(&objects);
    for (object, said) in objects.iter().zip(&verdicts) {
        assert!(said.agree(), "{said:?} of {object:#}");
        assert_eq!(said.kstatus.status, meant(object), "{object:#}");
    }
    let words: BTreeSet<&str> = verdicts.iter().map(|said| said.kstatus.status.as_str()).collect();
    assert_eq!(words, ["Current", "Failed", "InProgress", "Terminating"].into());
}
