//! Pull secrets on a node whose runtime pulls by itself.

use larder_tests::{Registry, RegistryOptions};
use serde_json::json;

use crate::fixture::{Node, image};

#[test]
fn a_runtime_that_pulls_by_itself_is_given_the_login() {
    let options = RegistryOptions {
        login: Some(("alice".to_owned(), "hunter2".to_owned())),
        ..RegistryOptions::default()
    };
    let registry = Registry::start(options).unwrap();
    let app = registry.push(&image(&[(1, 60_000)]), "team/app", "v1").unwrap().name;
    let node = Node::new("cri");
    node.agent.start().unwrap();
    node.cluster.kubectl(&["create", "namespace", "larder-system"]).unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "regcred", "namespace": "larder-system"},
        "stringData": {".dockerconfigjson": registry.docker_config()},
    });
    node.cluster.apply(&secret.to_string()).unwrap();
    node.apply_spec("team", &json!({"images": [{"image": app}], "pullSecrets": [{"name": "regcred"}]}));
    node.wait_ready(1);
    assert!(node.cri_image(&app).is_some(), "kubelet sees it");
    assert!(!node.agent.log().unwrap().contains("hunter2"));
}
