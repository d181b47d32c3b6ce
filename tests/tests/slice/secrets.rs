//! Pull secrets: read when an image has to be fetched, changed, broken and gone.

use std::time::Duration;

use larder_tests::{Registry, RegistryOptions, registry::TokenOptions, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Larder, condition, image};

/// The operator's namespace.
const SYSTEM: &str = "larder-system";

impl Larder {
    fn create_namespace(&self) {
        self.cluster.kubectl(&["create", "namespace", SYSTEM]).unwrap();
    }

    /// Creates a Secret, or replaces the one of this name.
    fn put_secret(&self, name: &str, kind: &str, config: &Value) {
        self.delete_secret(name);
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {"name": name, "namespace": SYSTEM},
            "stringData": {".dockerconfigjson": config.to_string()},
        });
        self.cluster.apply(&object.to_string()).unwrap();
    }

    fn put_login(&self, name: &str, registry: &str, user: &str, password: &str) {
        self.put_secret(name, LOGINS, &config(registry, user, password));
    }

    fn delete_secret(&self, name: &str) {
        let delete = ["delete", "secret", name, "--namespace", SYSTEM, "--ignore-not-found"];
        self.cluster.kubectl(&delete).unwrap();
    }

    /// Waits until an image fails with this reason and a message with this in it.
    fn wait_message(&self, cache: &str, reason: &str, part: &str) {
        let status = self.wait_cache(cache, &format!("{reason}: {part}"), |status| {
            let failures = status["failures"].as_array().cloned().unwrap_or_default();
            failures.iter().any(|failure| {
                failure["reason"] == reason && failure["message"].as_str().is_some_and(|m| m.contains(part))
            })
        });
        assert_eq!(condition(&status["status"], "Stalled")["status"], "True", "{status:#}");
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const LOGINS: &str = "kubernetes.io/dockerconfigjson";

fn config(registry: &str, user: &str, password: &str) -> Value {
    json!({"auths": {registry: {"username": user, "password": password}}})
}

fn login(user: &str, password: &str) -> (String, String) {
    (user.to_owned(), password.to_owned())
}

fn private(other: &[(&str, &str)]) -> Registry {
    Registry::start(RegistryOptions {
        login: Some(login("pusher", "push")),
        other_logins: other.iter().map(|(user, password)| login(user, password)).collect(),
        ..RegistryOptions::default()
    })
    .unwrap()
}

fn spec(images: &[&str], secrets: &[&str]) -> Value {
    let images: Vec<_> = images.iter().map(|image| json!({"image": image})).collect();
    let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
    json!({"images": images, "pullSecrets": secrets})
}

#[test]
fn one_that_cannot_be_used_is_one_clear_message_until_it_can() {
    let registry = private(&[("alice", "hunter2")]);
    let app = registry.push(&image(&[(1, 50_000)]), "team/app", "v1").unwrap().name;
    let open = Registry::start(RegistryOptions::default()).unwrap();
    let public = open.push(&image(&[(2, 50_000)]), "public", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    larder.create_namespace();
    let mark = registry.mark().unwrap();
    larder.apply("private", &spec(&[&app], &["regcred"]));
    larder.apply("public", &spec(&[&public], &[]));
    larder.wait_message(
        "private",
        "PullSecretUnavailable",
        "Secret larder-system/regcred is not there; create it: kubectl create secret docker-registry regcred \
         --namespace larder-system",
    );
    larder.wait_ready("public", 1);

    larder.put_secret("regcred", "Opaque", &config(&registry.host(), "alice", "hunter2"));
    let why = "is of type Opaque and not kubernetes.io/dockerconfigjson; delete it, and create it anew";
    larder.wait_message("private", "PullSecretUnavailable", why);
    let mut broken = config(&registry.host(), "alice", "hunter2");
    broken["auths"][registry.host()] = json!({"auth": "hunter2"});
    larder.put_secret("regcred", LOGINS, &broken);
    let why = format!("auths: {}: auth is not user:password in base64", registry.host());
    larder.wait_message("private", "PullSecretUnavailable", &why);
    larder.put_secret("regcred", LOGINS, &json!({"credsStore": "desktop", "auths": {registry.host(): {}}}));
    larder.wait_message("private", "PullSecretUnavailable", "there is no login in it");
    let asked = registry.requests_since(mark).unwrap();
    assert_eq!(asked.to_vec(), [], "nobody is asked without the login that is meant");

    larder.put_login("regcred", &registry.host(), "alice", "wrong");
    larder.wait_message("private", "Unauthorized", "refuses the login");
    larder.put_login("regcred", &registry.host(), "alice", "hunter2");
    larder.wait_ready("private", 1);

    let log = larder.agent("a").log().unwrap();
    let lines = log.lines().filter(|line| line.contains("larder-system/regcred")).count();
    let tries = log.lines().filter(|line| line.contains("pull failed")).count();
    assert!(lines <= tries, "no line but that of each try: {log}");
    let status = larder.cluster.get(&["imagecache,nodeimagecache,events", "--all-namespaces"]).unwrap();
    for text in [log, larder.operator.log().unwrap(), status.to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn one_that_is_rotated_is_read_again_before_anybody_is_told_of_a_failure() {
    let registry = private(&[("alice", "first")]);
    let [app, tool] = [(10, "app"), (11, "tool")].map(|(seed, name)| {
        registry.push(&image(&[(seed, 50_000)]), &format!("team/{name}"), "v1").unwrap().name
    });
    let larder = Larder::start(&[("a", &[])]);
    larder.create_namespace();
    larder.put_login("regcred", &registry.host(), "alice", "first");
    larder.apply("team", &spec(&[&app], &["regcred"]));
    larder.wait_ready("team", 1);

    // Read a moment ago, and out of date.
    registry.set_other_logins(&[login("alice", "second")]).unwrap();
    larder.put_login("regcred", &registry.host(), "alice", "second");
    larder.apply("team", &spec(&[&app, &tool], &["regcred"]));
    larder.wait_ready("team", 1);
    let log = larder.agent("a").log().unwrap();
    assert!(!log.contains("pull failed"), "{log}");
}

#[test]
fn what_is_there_needs_no_login() {
    let registry = private(&[("alice", "first")]);
    let app = registry.push(&image(&[(20, 50_000)]), "team/app", "v1").unwrap().name;
    let mut larder = Larder::start(&[("a", &[])]);
    larder.create_namespace();
    larder.put_login("regcred", &registry.host(), "alice", "first");
    larder.apply("team", &spec(&[&app], &["regcred"]));
    larder.wait_ready("team", 1);
    larder.delete_secret("regcred");
    let mark = registry.mark().unwrap();
    larder.agent("a").kill();
    larder.start_agent("a", &[]);
    // A new generation, so that it is the new agent that has looked.
    let mut next = spec(&[&app], &["regcred"]);
    next["pin"] = json!(false);
    larder.apply("team", &next);
    larder.wait_ready("team", 1);
    assert_eq!(registry.requests_since(mark).unwrap().to_vec(), []);
    let failed = larder.agent("a").log().unwrap().lines().any(|line| line.contains("regcred"));
    assert!(!failed, "nobody asks for Secrets either");
}

/// Of two ImageCaches, each with its own login for one registry; and the choice among several.
#[test]
fn each_repository_is_fetched_with_what_its_images_name() {
    let registry = private(&[("alice", "a"), ("bob", "b")]);
    let host = registry.host();
    let push =
        |seed, repository: &str| registry.push(&image(&[(seed, 50_000)]), repository, "v1").unwrap().name;
    let (of_a, of_b) = (push(30, "a/app"), push(31, "b/app"));
    let (deep, several) = (push(32, "c/deep/app"), push(33, "several/app"));
    let larder = Larder::start(&[("n", &[])]);
    larder.create_namespace();
    larder.put_login("alice", &host, "alice", "a");
    larder.put_login("bob", &host, "bob", "b");
    larder.put_login("wrong", &host, "alice", "wrong");
    larder.put_login("elsewhere", "other.corp", "nobody", "x");
    let longest = config(&format!("{host}/c/deep"), "bob", "b");
    larder.put_secret("zz-longest", LOGINS, &longest);
    larder.apply("a", &spec(&[&of_a], &["alice"]));
    larder.apply("b", &spec(&[&of_b], &["bob"]));
    // The key that names most of the path, whatever the Secret is called.
    larder.apply("deep", &spec(&[&deep], &["wrong", "zz-longest"]));
    // The first by name that has a login for the registry.
    larder.apply("several", &spec(&[&several], &["wrong", "bob", "elsewhere"]));
    for cache in ["a", "b", "deep", "several"] {
        larder.wait_ready(cache, 1);
    }
    // Refused: the next one is not tried in its place.
    let first = push(34, "first/app");
    larder.put_login("aa-wrong", &host, "alice", "wrong");
    larder.apply("first", &spec(&[&first], &["aa-wrong", "bob"]));
    larder.wait_message("first", "Unauthorized", "refuses the login");
    larder.apply("first", &spec(&[&first], &["bob"]));
    larder.wait_ready("first", 1);
}

/// A token server gives other tokens to other logins.
#[test]
fn where_the_registry_has_a_token_server() {
    let registry = Registry::start(RegistryOptions {
        login: Some(login("alice", "hunter2")),
        tokens: Some(TokenOptions { holds: HOUR, says: HOUR }),
        ..RegistryOptions::default()
    })
    .unwrap();
    let app = registry.push(&image(&[(40, 50_000)]), "team/app", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    larder.create_namespace();
    larder.put_login("regcred", &registry.host(), "alice", "wrong");
    larder.apply("team", &spec(&[&app], &["regcred"]));
    larder.wait_message("team", "Unauthorized", "refuses the login");
    larder.put_login("regcred", &registry.host(), "alice", "hunter2");
    larder.wait_ready("team", 1);
}

/// Where the node's own logins and the Secret both know the registry, the Secret counts; where it doesn't, the node's do.
#[test]
fn the_nodes_own_logins_come_last() {
    let registry = private(&[("alice", "a")]);
    let [app, tool] = [(50, "app"), (51, "tool")]
        .map(|(seed, name)| registry.push(&image(&[(seed, 50_000)]), name, "v1").unwrap().name);
    let larder = Larder::start(&[("a", &[])]);
    larder.create_namespace();
    let file = larder.scratch.path().join("logins.json");
    std::fs::write(file, config(&registry.host(), "alice", "a").to_string()).unwrap();
    larder.put_login("elsewhere", "other.corp", "nobody", "x");
    larder.put_login("wrong", &registry.host(), "alice", "wrong");
    larder.apply("app", &spec(&[&app], &["elsewhere"]));
    larder.apply("tool", &spec(&[&tool], &["wrong"]));
    larder.wait_ready("app", 1);
    larder.wait_message("tool", "Unauthorized", "refuses the login");
    until("the operator to say that there is no Role", PATIENCE, || {
        let log = larder.operator.log().ok()?;
        log.contains("there is no Role larder-system/larder-agent-pull-secrets").then_some(())
    })
    .unwrap();
}
