//! A runtime that is away: nobody says that images are ready, and nothing is done that would have to be done again.

use larder_tests::{Registry, RegistryOptions};

use crate::fixture::{Node, image};

#[test]
fn a_runtime_that_is_away_is_said_to_be_and_comes_back() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(1, 60_000)]), "app", "v1").unwrap().name;
    let tool = registry.push(&image(&[(2, 60_000)]), "tool", "v1").unwrap().name;
    let node = Node::start();
    node.apply("app", &[&app]);
    node.wait_ready(1);

    node.containerd.program().kill();
    let failed = node.wait_state(&app, Some("Failed"));
    assert_eq!(failed["reason"], "RuntimeUnavailable");
    assert!(failed["message"].as_str().unwrap().contains("containerd.sock"), "{failed:#}");
    assert_eq!(node.wait_event("RuntimeUnavailable", "containerd.sock"), 1);
    // Not fetched: containerd may have its layers.
    node.apply("app", &[&app, &tool]);
    node.wait_state(&tool, Some("Failed"));
    let mark = registry.mark().unwrap();
    node.containerd.restart().unwrap();
    node.wait_ready(2);
    assert!(node.is_pinned(&app) && node.is_pinned(&tool));
    assert_eq!(node.wait_event("RuntimeBack", "answers again"), 1);
    let requests = registry.requests_since(mark).unwrap();
    assert!(requests.iter().all(|request| request.path.contains("/tool/")), "{requests:?}");

    // A restart is no outage.
    node.containerd.restart().unwrap();
    node.agent.restart().unwrap();
    node.wait_ready(2);
    assert_eq!(node.wait_event("RuntimeUnavailable", "containerd.sock"), 1, "{:?}", node.events());
    assert_eq!(node.wait_event("ImageReady", &app), 1, "{:?}", node.events());
}

#[test]
fn an_agent_waits_for_its_runtime() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(10, 60_000)]), "app", "v1").unwrap().name;
    let mark = registry.mark().unwrap();
    let node = Node::new("auto");
    node.containerd.program().kill();
    node.agent.start().unwrap();
    node.apply("app", &[&app]);
    let failed = node.wait_state(&app, Some("Failed"));
    assert_eq!(failed["reason"], "RuntimeUnavailable");
    assert_eq!(registry.requests_since(mark).unwrap().to_vec(), []);
    node.containerd.restart().unwrap();
    node.wait_ready(1);
    assert!(node.is_pinned(&app));
}
