//! A private registry whose login is in a Secret that an ImageCache names, as a user does it.

use larder_tests::{Pod, PodOptions, Registry, RegistryOptions, until, wait::PATIENCE};
use serde_json::json;

use crate::{
    fixture::{E2e, together},
    larder::{ImageCache, SYSTEM, push},
};

const SECRET: &str = "e2e-team";
const PASSWORD: &str = "s3cret-of-the-team";

/// A registry that nobody's node has a login for.
fn private<T>(e2e: &E2e<T>, password: &str) -> Registry {
    let login = |user: &str, password: &str| (user.to_owned(), password.to_owned());
    let options = RegistryOptions {
        login: Some(login("pusher", "push")),
        other_logins: vec![login("team", password)],
        tls: true,
        ..RegistryOptions::default()
    };
    e2e.cluster.start_registry(options).unwrap()
}

fn create_secret<T>(e2e: &E2e<T>, registry: &Registry, password: &str) {
    let delete = ["delete", "secret", SECRET, "--namespace", SYSTEM, "--ignore-not-found"];
    e2e.cluster.kubectl(&delete).unwrap();
    let server = format!("--docker-server={}", registry.host());
    let password = format!("--docker-password={password}");
    let create = ["create", "secret", "docker-registry", SECRET, "--namespace", SYSTEM];
    e2e.cluster.kubectl(&[&create[..], &[&server, "--docker-username=team", &password]].concat()).unwrap();
}

/// What the agents' account may read.
fn may_read<T>(e2e: &E2e<T>, secret: &str) -> bool {
    let what = format!("secret/{secret}");
    let ask = ["auth", "can-i", "get", &what, "--namespace", SYSTEM];
    let agent = ["--as=system:serviceaccount:larder-agents:larder-agent"];
    e2e.cluster.try_kubectl(&[&ask[..], &agent].concat(), "").unwrap().status.success()
}

#[test]
fn an_image_cache_names_the_secret_that_fetches_its_images() {
    let e2e = together();
    let larder = e2e.larder();
    let registry = private(&e2e, PASSWORD);
    let app = push(&registry, "team/app", 7100).name;
    let tool = push(&registry, "team/tool", 7110).name;
    let spec = json!({"pullSecrets": [{"name": SECRET}]});
    let cache = ImageCache::with_spec(&e2e.cluster, "e2e-secrets", spec, &[&app]);
    let missing = until("the Secret to be missed", PATIENCE, || {
        let status = cache.get()["status"].to_string();
        (status.contains("PullSecretUnavailable")
            && status.contains("Secret larder-system/e2e-team is not there; create it"))
        .then_some(())
    });
    missing.unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));

    create_secret(&e2e, &registry, PASSWORD);
    cache.wait_ready(larder);
    assert!(may_read(&e2e, SECRET) && !may_read(&e2e, "another"));
    // The image is on the node, and any pod there may run it.
    let options = PodOptions::new("team-app").image(&app).pull_policy("Never").node("node-2");
    Pod::start(&e2e.cluster, &options).unwrap().delete().unwrap();

    // Rotated: what is there stays ready, and what comes is fetched with what the Secret says now.
    let rotated = "an0ther-s3cret";
    registry.set_other_logins(&[("team".to_owned(), rotated.to_owned())]).unwrap();
    create_secret(&e2e, &registry, rotated);
    cache.edit(&[&app, &tool]);
    cache.wait_ready(larder);

    for text in [
        larder.agent_log("node-1"),
        larder.agent_log("node-2"),
        cache.get().to_string(),
        larder.node("node-1").unwrap().to_string(),
    ] {
        assert!(!text.contains(PASSWORD) && !text.contains(rotated), "{text}");
    }
    cache.delete();
    until("agents not to be let read it any more", PATIENCE, || (!may_read(&e2e, SECRET)).then_some(()))
        .unwrap();
    let delete = ["delete", "secret", SECRET, "--namespace", SYSTEM];
    e2e.cluster.kubectl(&delete).unwrap();
}
