//! Tags are looked up again when their time has come: what moved is followed, or shown.

use larder_tests::{Registry, RegistryOptions, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Node, image, standing};

/// What the ImageCache's status says of an image.
fn summary(node: &Node, cache: &str, image: &str) -> Value {
    let cache = node.cluster.get(&["imagecache", cache]).unwrap();
    let images = cache["status"]["images"].as_array().cloned().unwrap_or_default();
    images.into_iter().find(|summary| summary["image"] == image).unwrap_or_default()
}

#[test]
fn a_tag_that_moved_is_followed_or_shown_and_the_old_image_stays_while_in_use() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let push = |seed, name| registry.push(&image(&[(seed, 60_000)]), name, "v1").unwrap();
    let (old_app, old_tool) = (push(1, "app"), push(2, "tool"));
    let (app, tool) = (old_app.name.as_str(), old_tool.name.as_str());
    let node = Node::start();
    let spec = json!({
        "images": [{"image": app, "pullPolicy": "Always"}, {"image": tool}],
        "refresh": {"schedule": "* * * * *", "timeZone": "Asia/Kathmandu"},
    });
    node.apply_spec("web", &spec);
    node.wait_ready(2);
    node.containerd.ctr(&["containers", "create", app, "job-1", "/bin/true"]).unwrap();

    let (new_app, new_tool) = (push(3, "app"), push(4, "tool"));
    let mark = registry.mark().unwrap();
    node.wait("the one to be followed and the other to be shown", |status| {
        let (app, tool) = (standing(status, app), standing(status, tool));
        app["digest"] == new_app.digest.as_str()
            && app["state"] == "Ready"
            && tool["newDigest"] == new_tool.digest.as_str()
    });
    let status = node.status().unwrap();
    assert_eq!(standing(&status, tool)["digest"], old_tool.digest.as_str(), "{status:#}");
    assert!(standing(&status, app)["newDigest"].is_null(), "{status:#}");
    assert!(standing(&status, tool)["refreshTime"].is_string(), "{status:#}");
    let requests = registry.requests_since(mark).unwrap();
    let of_tool: Vec<_> = requests.iter().filter(|request| request.path.contains("/tool/")).collect();
    assert!(of_tool.iter().all(|request| request.method == "HEAD"), "{of_tool:?}");
    let shown = until("the ImageCache to show both digests", PATIENCE, || {
        let shown = summary(&node, "web", tool);
        (shown["newDigest"] == new_tool.digest.as_str()).then_some(shown)
    });
    assert_eq!(shown.unwrap()["digest"], old_tool.digest.as_str());
    // (Of the one that is followed it is told only if the new image takes longer than the next status.)
    node.wait_event("TagMoved", tool);

    // What only the old one needed is reclaimed: in the store are the manifest and the configuration of each image.
    until("the old one's blobs to go", PATIENCE, || (node.blobs().len() == 4).then_some(())).unwrap();

    // The container's image is there, under its digest; its tag is the new one's.
    let digest_name = format!("{}@{}", old_app.repository, old_app.digest);
    assert!(node.names().contains(&digest_name), "{:?}", node.names());
    assert_eq!(
        node.cri_image(app).unwrap()["repoDigests"],
        json!([format!("{}@{}", new_app.repository, new_app.digest)])
    );

    // Told to follow, it does, without waiting for the next time.
    let spec = json!({"images": [{"image": tool, "pullPolicy": "Always"}], "refresh": {"interval": "1h"}});
    node.apply_spec("tools", &spec);
    node.wait("the other to be followed", |status| {
        let tool = standing(status, tool);
        tool["digest"] == new_tool.digest.as_str() && tool["newDigest"].is_null()
    });
}

/// What was written down before a restart counts: it is looked up when its time has come, and not before.
#[test]
fn a_restarted_agent_goes_on_where_it_was() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let old = registry.push(&image(&[(1, 60_000)]), "app", "v1").unwrap();
    let app = old.name.as_str();
    let node = Node::start();
    node.apply_spec("web", &json!({"images": [{"image": app}], "refresh": {"interval": "2h"}}));
    let status = node.wait("it to be ready", |status| standing(status, app)["refreshTime"].is_string());
    let before = standing(&status, app)["refreshTime"].clone();
    let new = registry.push(&image(&[(2, 60_000)]), "app", "v1").unwrap();

    let mark = registry.mark().unwrap();
    node.agent.restart().unwrap();
    node.apply_spec("web", &json!({"images": [{"image": app}], "refresh": {"interval": "3h"}}));
    let status = node.wait("the edit to be taken up", |_| true);
    assert_eq!(standing(&status, app)["refreshTime"], before);
    assert_eq!(registry.requests_since(mark).unwrap().to_vec(), [], "its time has not come");

    // Three hours later.
    node.agent.terminate().unwrap();
    let patch =
        json!([{"op": "replace", "path": "/status/images/0/refreshTime", "value": "2020-02-29T12:00:00Z"}]);
    let patch = patch.to_string();
    node.cluster
        .kubectl(&["patch", "nodeimagecache", "n1", "--subresource=status", "--type=json", "-p", &patch])
        .unwrap();
    node.agent.start().unwrap();
    let status = node.wait("the tag to be looked up", |status| !standing(status, app)["newDigest"].is_null());
    let standing = standing(&status, app);
    assert_eq!((&standing["digest"], &standing["newDigest"]), (&json!(old.digest), &json!(new.digest)));
}
