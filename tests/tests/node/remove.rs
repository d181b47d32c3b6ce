//! Rules that take images off the node: `spec.remove`.

use larder_tests::{Layer, Pushed, Registry, RegistryOptions, larder::binary, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Node, image};

impl Node {
    /// A node whose agent takes away at once what nobody uses.
    fn without_grace(interface: &str) -> Self {
        let mut node = Self::new(interface);
        node.agent = node.agent.args(["--removal-grace", "0"]);
        node.agent.start().unwrap();
        node
    }

    /// As kubelet does it.
    fn pull(&self, name: &str) {
        self.containerd.crictl(&["pull", name]).unwrap();
    }

    /// A further name, given by somebody with `ctr`.
    fn tag(&self, name: &str, new: &str) {
        self.containerd.ctr(&["images", "tag", name, new]).unwrap();
    }

    fn has(&self, name: &str) -> bool {
        self.names().iter().any(|found| found == name)
    }

    fn wait_names(&self, names: &[&str]) {
        let is_tag = |name: &String| name.contains('/') && !name.contains('@');
        let mut last = Vec::new();
        until(&format!("just {names:?} to be there"), PATIENCE, || {
            last = self.names().into_iter().filter(is_tag).collect();
            last.sort();
            (last == names).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}: {last:?}\n{:#}", self.status().unwrap_or_default()));
    }

    /// Waits until something is true of what the node says of the first rule that it says anything of.
    fn wait_rule(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let status = self.wait(what, |status| is(&status["removals"][0]));
        status["removals"][0].clone()
    }

    fn clean(&self, rule: &Value) {
        self.apply_spec("clean", &json!({"remove": [rule]}));
    }
}

/// A registry with tags of a repository, each an image of its own, the first made first.
fn repository(registry: &Registry, name: &str, tags: &[&str], seed: u64) -> Vec<Pushed> {
    let push = |(number, tag): (u64, &&str)| {
        let layer = Layer::random(seed + number, 40_000).unwrap();
        let made = format!("2026-01-0{}T00:00:00Z", number + 1);
        let image = larder_tests::Image::builder().layer(&layer).created(&made).build().unwrap();
        registry.push(&image, name, tag).unwrap()
    };
    (0..).zip(tags).map(push).collect()
}

#[test]
fn what_a_rule_matches_goes_and_nothing_else() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let node = Node::without_grace("containerd");
    let apps = repository(&registry, "team/app", &["v1", "v2", "v3", "v4"], 100);
    let [old, excepted, wanted, pinned] = [0, 1, 2, 3].map(|number: usize| apps[number].name.as_str());
    let tool = repository(&registry, "team/sub/tool", &["v1"], 200).remove(0).name;
    let used = repository(&registry, "team/job", &["v1"], 300).remove(0).name;
    for name in [old, excepted, pinned, &tool, &used] {
        node.pull(name);
    }
    node.containerd.ctr(&["images", "label", pinned, "io.cri-containerd.pinned=pinned"]).unwrap();
    node.containerd.ctr(&["containers", "create", &used, "job-1", "/bin/true"]).unwrap();
    node.apply("wants", &[wanted]);
    node.wait_ready(1);

    let repository = old.split_once('/').unwrap().0.to_owned() + "/team/*";
    let mut rule = json!({"image": repository, "except": [excepted], "dryRun": true});
    node.clean(&rule);
    let told = node.wait_rule("the dry run to tell", |rule| rule["images"] == 1 && rule["inUse"] == 1);
    assert_eq!((&told["dryRun"], &told["names"]), (&json!(true), &json!([old, used])), "{told:#}");
    let before = node.names();
    until("the ImageCache to say so too", PATIENCE, || {
        let summary = node.cluster.get(&["imagecache", "clean"]).ok()?["status"]["removals"][0].clone();
        (summary["nodes"] == 1 && summary["names"] == json!([old, used])).then_some(())
    })
    .unwrap();

    rule["dryRun"] = json!(false);
    node.clean(&rule);
    let told = node.wait_rule("the rule to have been applied", |rule| rule["removed"] == 1);
    assert_eq!((&told["images"], &told["inUse"], &told["names"]), (&json!(0), &json!(1), &json!([used])));
    let gone: Vec<_> = before.iter().filter(|name| !node.has(name)).collect();
    // Its tag, its digest, its ID.
    assert_eq!(gone.len(), 3, "{gone:?}");
    assert!(!node.has(old) && gone.iter().any(|name| name.contains('@')), "{gone:?}");
    node.wait_names(&{
        let mut names = [excepted, wanted, pinned, &tool, &used];
        names.sort_unstable();
        names
    });
    until("its content to go", PATIENCE, || {
        (!node.content().contains(&apps[0].digest.to_string())).then_some(())
    })
    .unwrap();
    assert!(node.is_pinned(wanted) && node.is_pinned(pinned));
    assert_eq!(node.wait_event("RemovedByRule", old), 1);

    // Somebody pulls it again.
    node.pull(old);
    node.wait_rule("it to be removed again", |rule| rule["removed"] == 2);
    // What was counted is not forgotten by an agent that is restarted, and what a container used goes with the container.
    node.agent.restart().unwrap();
    node.containerd.ctr(&["containers", "rm", "job-1"]).unwrap();
    let told = node.wait_rule("the image that was used to go", |rule| rule["removed"] == 3);
    assert_eq!((&told["images"], &told["inUse"]), (&json!(0), &json!(0)), "{told:#}");

    // Without the rule nothing more goes.
    node.delete("clean");
    node.wait("the rule to be forgotten", |status| status["removals"].is_null());
    node.pull(old);
    node.apply("wants", &[wanted, &tool]);
    node.wait_ready(2);
    assert!(node.has(old));
}

#[test]
fn a_name_goes_and_the_image_goes_with_its_last_one() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let node = Node::without_grace("containerd");
    let app = repository(&registry, "team/app", &["v1"], 400).remove(0);
    node.pull(&app.name);
    let (kept, gone) = ("corp.test/base/app:v1", "corp.test/old/app:v1");
    node.tag(&app.name, kept);
    node.tag(&app.name, gone);
    node.clean(&json!({"image": "corp.test/old/*"}));
    node.wait_names(&[app.name.as_str(), kept]);
    assert!(node.has(&format!("{}@{}", app.repository, app.digest)), "{:?}", node.names());
    assert!(node.content().contains(&app.digest.to_string()));
    // A wanted image keeps all of its names.
    node.tag(&app.name, gone);
    node.apply("wants", &[&app.name]);
    node.clean(&json!({"image": "corp.test/**"}));
    node.wait_ready(1);
    node.agent.restart().unwrap();
    node.wait_ready(1);
    assert!(node.has(kept));
    // Not wanted any more, it is kubelet's again, and only its name is the rule's.
    node.delete("wants");
    node.wait_names(&[app.name.as_str()]);
    node.clean(&json!({"image": app.name}));
    until("all of it to go", PATIENCE, || {
        (node.names().is_empty() && node.content().is_empty()).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", node.names()));
}

#[test]
fn the_newest_stay() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let node = Node::without_grace("containerd");
    // They come in another order than that in which they were made.
    let apps = repository(&registry, "team/app", &["c", "a", "b", "d"], 500);
    let tools = repository(&registry, "team/tool", &["v1"], 600);
    for image in apps.iter().rev().chain(&tools) {
        node.pull(&image.name);
    }
    node.tag(&apps[3].name, &apps[3].name.replace(":d", ":stable"));
    let stable = apps[3].name.replace(":d", ":stable");
    let host = registry.host();
    node.clean(&json!({"image": format!("{host}/team/*"), "keepNewest": 2}));
    let told = node.wait_rule("two images to go", |rule| rule["removed"] == 2);
    assert_eq!(told["images"], 0, "{told:#}");
    let mut left = [apps[2].name.as_str(), &apps[3].name, &stable, &tools[0].name];
    left.sort_unstable();
    node.wait_names(&left);
}

/// What a person has put into the store is an admin's to remove, who names it.
#[test]
fn a_rule_takes_a_persons_image_out_of_the_store_too() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let node = Node::without_grace("containerd");
    let app = repository(&registry, "team/app", &["v1"], 700).remove(0).name;
    let tool = repository(&registry, "team/tool", &["v1"], 800).remove(0).name;
    let larder = |args: &[&str]| {
        let socket = node.containerd.socket().to_str().unwrap().to_owned();
        let store = node.store();
        let own =
            ["--store", store.to_str().unwrap(), "--runtime", "containerd", "--runtime-endpoint", &socket];
        let ran =
            larder_tests::process::run(&binary("larder").unwrap(), &[&own[..], args].concat(), &[], b"");
        ran.unwrap().ok().unwrap().stdout
    };
    larder(&["pull", "--quiet", &app]);
    larder(&["deliver", &app]);
    larder(&["pull", "--quiet", &tool]);
    node.clean(&json!({"image": app}));
    until("it to go from store and runtime", PATIENCE, || {
        let stored = larder(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        (stored.trim() == tool && !node.has(&app)).then_some(())
    })
    .unwrap();
    until("its content to go", PATIENCE, || node.content().is_empty().then_some(())).unwrap();
    let leases = node.containerd.ctr(&["leases", "ls"]).unwrap();
    assert!(!leases.contains("larder/image"), "{leases}");
}

/// kubelet pulls an image a while before there is a container: what has just come stays for now.
#[test]
fn what_has_just_come_stays_for_a_while() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let node = Node::start();
    let app = repository(&registry, "team/app", &["v1"], 900).remove(0).name;
    node.pull(&app);
    node.clean(&json!({"image": app}));
    let told = node.wait_rule("it to be seen", |rule| rule["images"] == 1);
    assert_eq!((&told["names"], &told["removed"]), (&json!([app]), &json!(0)), "{told:#}");
    // It is looked at again, and stays.
    let tool = registry.push(&image(&[(950, 60_000)]), "tool", "v1").unwrap().name;
    node.apply("tool", &[&tool]);
    node.wait_ready(1);
    assert!(node.has(&app));
    // The same agent without a grace.
    node.agent.kill();
    let agent =
        larder_tests::larder::agent(node.cluster.kubeconfig(), "n1", &node.store(), node.scratch.path());
    let socket = node.containerd.socket().to_str().unwrap();
    let agent = agent.unwrap().args(["--runtime", "containerd", "--runtime-endpoint", socket]);
    let agent = agent.args(["--removal-grace", "0"]);
    agent.start().unwrap();
    node.wait_rule("it to go", |rule| rule["removed"] == 1);
    assert!(!node.has(&app));
}

/// Through CRI alone, which has no digests of configurations and no times.
#[test]
fn through_cri_alone() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let node = Node::without_grace("cri");
    let apps = repository(&registry, "team/app", &["v1", "v2", "v3"], 1000);
    for image in &apps {
        node.pull(&image.name);
    }
    node.containerd.ctr(&["images", "label", &apps[0].name, "io.cri-containerd.pinned=pinned"]).unwrap();
    until("the pin to be seen", PATIENCE, || node.is_pinned(&apps[0].name).then_some(())).unwrap();
    // There the agent looks by the clock alone, or when it is told something.
    node.clean(&json!({"image": format!("{}/team/*", registry.host()), "keepNewest": 1}));
    node.wait_rule("one to go", |rule| rule["removed"] == 1);
    node.wait_names(&[apps[0].name.as_str(), &apps[2].name]);
}
