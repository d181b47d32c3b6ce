//! What a container uses stays, and says why.

use larder_tests::{Registry, RegistryOptions, until, wait::PATIENCE};

use crate::fixture::{Node, image};

#[test]
fn an_image_in_use_stays_until_its_container_is_gone() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(1, 60_000)]), "app", "v1").unwrap().name;
    let tool = registry.push(&image(&[(2, 60_000)]), "tool", "v1").unwrap().name;
    let node = Node::start();
    node.apply("app", &[&app, &tool]);
    node.wait_ready(2);
    node.containerd.ctr(&["containers", "create", &app, "job-1", "/bin/true"]).unwrap();

    node.delete("app");
    let standing = node.wait_state(&app, Some("InUse"));
    let message = standing["message"].as_str().unwrap();
    assert!(
        message.contains("container job-1 (stopped)") && message.contains("once the container is gone"),
        "{message}"
    );
    let status = node.wait("the other to go", |_| node.cri_image(&tool).is_none());
    assert_eq!(status["summary"]["images"], "0/0", "it is not wanted");
    assert_eq!(status["conditions"][0]["status"], "True", "{status:#}");
    assert!(node.is_pinned(&app));
    node.wait_event("ImageInUse", "job-1");

    // It is not forgotten by an agent that is restarted, and nothing is told anew.
    node.agent.restart().unwrap();
    node.wait_state(&app, Some("InUse"));
    assert!(node.is_pinned(&app));

    // Wanted again, it just stays.
    let mark = registry.mark().unwrap();
    node.apply("again", &[&app]);
    node.wait_state(&app, Some("Ready"));
    assert_eq!(registry.requests_since(mark).unwrap().to_vec(), []);
    node.delete("again");
    node.wait_state(&app, Some("InUse"));

    node.containerd.ctr(&["containers", "rm", "job-1"]).unwrap();
    node.wait_state(&app, None);
    until("it to be gone", PATIENCE, || (node.names().is_empty() && node.blobs().is_empty()).then_some(()))
        .unwrap();
    node.wait_event("ImageRemoved", &app);
    assert_eq!(node.wait_event("ImageInUse", "job-1"), 2, "{:?}", node.events());
}
