//! What a schema cannot say, the operator says: `Stalled`, with one message that names the field. Nothing is taken off the
//! nodes for it.

use larder_tests::{ControlPlane, Scratch, larder, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::{image_cache, with};

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

#[test]
fn what_contradicts_itself_is_one_clear_message() {
    let cluster = ControlPlane::start().unwrap();
    cluster.install_crds().unwrap();
    let scratch = Scratch::new("validation").unwrap();
    let operator = larder::operator(cluster.kubeconfig(), scratch.path()).unwrap();
    operator.start().unwrap();
    let images = |images: Value| json!({"images": images});
    let cases = [
        (
            "two-spellings",
            images(json!([{"image": "ubuntu"}, {"image": "docker.io/library/ubuntu:latest"}])),
            "spec.images[1].image: \"docker.io/library/ubuntu:latest\" is the same image as spec.images[0]",
        ),
        (
            "wanted-and-removed",
            with(&json!({"remove": [{"image": "docker.io/library/app:v1"}]})),
            "spec.remove[0].image: \"app:v1\" is both wanted (spec.images) and to be removed",
        ),
        (
            "everything",
            with(&json!({"remove": [{"image": "[a-z]*/**"}]})),
            "spec.remove[0].image: \"[a-z]*/**\" matches every image",
        ),
        (
            "no-pattern",
            with(&json!({"remove": [{"image": "app:[v"}]})),
            "spec.remove[0].image: invalid pattern \"app:[v\"",
        ),
        (
            "no-exception",
            with(&json!({"remove": [{"image": "app:*", "except": ["app:[v"]}]})),
            "spec.remove[0].except[0]: invalid pattern",
        ),
        (
            "never",
            with(&json!({"refresh": {"schedule": "0 0 31 2 *"}})),
            "spec.refresh.schedule: \"0 0 31 2 *\" is no schedule: it never comes",
        ),
        (
            "no-cron",
            with(&json!({"refresh": {"schedule": "61 3 * * *"}})),
            "spec.refresh.schedule: \"61 3 * * *\" is no schedule",
        ),
        (
            "nowhere",
            with(&json!({"refresh": {"schedule": "0 3 * * *", "timeZone": "Europe/Atlantis"}})),
            "spec.refresh.timeZone: \"Europe/Atlantis\" is no time zone",
        ),
        (
            "tag-of-two",
            images(json!([{"image": "a", "tags": ["x:1"]}, {"image": "b", "tags": ["x:1"]}])),
            "spec.images[1].tags: docker.io/library/x:1 is the name of \"a\" already",
        ),
        (
            "tag-is-an-image",
            images(json!([{"image": "a", "tags": ["b"]}, {"image": "b"}])),
            "spec.images[0].tags: docker.io/library/b:latest is the name of \"b\" already",
        ),
        (
            "tag-with-a-digest",
            images(json!([{"image": "a", "tags": [format!("b@sha256:{}", "0".repeat(64))]}])),
            "a further name is a tag",
        ),
        (
            "file-of-two",
            images(
                json!([{"image": "a", "save": {"file": "x.tar"}}, {"image": "b", "save": {"file": "x.tar"}}]),
            ),
            "spec.images[1].save.file: x.tar holds \"a\" already",
        ),
    ];
    for (name, spec, _) in &cases {
        cluster.apply(&image_cache(name, spec)).unwrap();
    }
    for (name, _, expected) in &cases {
        let mut last = Value::Null;
        let stalled = until(&format!("{name} to be reported"), PATIENCE, || {
            last = cluster.get(&["imagecache", name]).ok()?;
            (condition(&last, "Stalled")["status"] == "True").then_some(())
        });
        stalled.unwrap_or_else(|error| panic!("{error}\n{last:#}"));
        let message = condition(&last, "Ready")["message"].as_str().unwrap();
        assert_eq!(condition(&last, "Stalled")["reason"], "InvalidSpec", "{last:#}");
        assert!(message.contains(expected), "{name}: {message}");
    }
}
