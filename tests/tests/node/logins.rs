//! Private registries: the node's logins come, change and go while the agent runs.

use std::os::unix::fs::symlink;

use larder_tests::{Registry, RegistryOptions};
use serde_json::json;

use crate::fixture::{Node, image};

impl Node {
    /// Writes the logins as kubelet writes a secret: a folder a version, and a link that is replaced.
    fn login(&self, version: u32, registry: &str, password: &str) {
        let at = |name: &str| self.scratch.path().join(name);
        let folder = at(&format!("logins-{version}"));
        std::fs::create_dir(&folder).unwrap();
        let content = json!({"auths": {registry: {"username": "user", "password": password}}});
        std::fs::write(folder.join("file"), content.to_string()).unwrap();
        symlink(folder.join("file"), at("logins-new")).unwrap();
        std::fs::rename(at("logins-new"), at("logins.json")).unwrap();
    }
}

#[test]
fn a_login_is_used_as_soon_as_it_is_there() {
    let options = RegistryOptions {
        login: Some(("user".to_owned(), "hunter2".to_owned())),
        ..RegistryOptions::default()
    };
    let registry = Registry::start(options).unwrap();
    let app = registry.push(&image(&[(1, 60_000)]), "app", "v1").unwrap().name;
    let tool = registry.push(&image(&[(2, 60_000)]), "tool", "v1").unwrap().name;
    let node = Node::start();
    node.apply("app", &[&app]);
    let failed = node.wait_state(&app, Some("Failed"));
    assert_eq!(failed["reason"], "Unauthorized");
    node.wait_event("ImageFailed", &app);

    node.login(1, &registry.host(), "hunter2");
    node.wait_state(&app, Some("Ready"));

    // Rotated to one that the registry refuses, and back. What is here needs no login.
    node.login(2, &registry.host(), "hunter3");
    node.agent.restart().unwrap();
    node.apply("tool", &[&app, &tool]);
    let failed = node.wait_state(&tool, Some("Failed"));
    assert_eq!(failed["reason"], "Unauthorized");
    node.wait_state(&app, Some("Ready"));
    node.login(3, &registry.host(), "hunter2");
    node.wait_ready(2);
    for text in
        [node.agent.log().unwrap(), format!("{:?}", node.events()), node.status().unwrap().to_string()]
    {
        assert!(!text.contains("hunter"), "{text}");
    }
}
