//! Space on a node with a runtime: what unpacking takes counts, and what is refused leaves nothing in the runtime.

use larder_tests::{Registry, RegistryOptions};
use serde_json::{Value, json};

use crate::fixture::{Node, image};

#[test]
fn unpacking_counts_and_what_is_refused_leaves_nothing_in_the_runtime() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let built = image(&[(390, 200_000)]);
    let app = registry.push(&built, "app", "v1").unwrap().name;
    let mark = registry.mark().unwrap();
    let node = Node::start();
    let spec = |reserve: Value| json!({"images": [{"image": app}], "diskReserve": reserve, "retry": {"initialDelay": "1h"}});
    node.apply_spec("tight", &spec(json!("900Ti")));
    let failed = node.wait_state(&app, Some("Failed"));
    assert_eq!(failed["reason"], "InsufficientDisk", "{failed}");
    let message = failed["message"].as_str().unwrap();
    assert!(message.contains("to fetch, about") && message.contains("to unpack it"), "{message}");
    assert_eq!(registry.requests_since(mark).unwrap().blob_gets(), 0);
    assert_eq!((node.names(), node.content(), node.blobs()), (vec![], vec![], vec![]));
    let leases = node.containerd.ctr(&["leases", "ls", "-q"]).unwrap();
    assert_eq!(leases.trim(), "");

    node.apply_spec("tight", &spec(json!("1k")));
    node.wait_ready(1);
    // All of it is there: an image that shares its layer takes next to nothing, and one that needs space is refused.
    let half = image(&[(390, 200_000), (391, 150_000)]);
    let half = registry.push(&half, "half", "v1").unwrap().name;
    node.apply_spec("tight", &json!({"images": [{"image": app}, {"image": half}], "diskReserve": "900Ti"}));
    let message = node.wait_state(&half, Some("Failed"))["message"].as_str().unwrap().to_owned();
    let fetched =
        message.split_once('(').unwrap().1.split_once(" KiB to fetch").unwrap().0.parse::<f64>().unwrap();
    assert!((140.0..190.0).contains(&fetched), "only the layer that is not there: {message}");
}
