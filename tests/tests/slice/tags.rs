//! Further names in the layer store, on a node without a container runtime: what they stand for, and what is a person's.

use larder_tests::{Registry, RegistryOptions, larder::binary, process::run, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Larder, image};

/// No registry answers for it.
const BASE: &str = "registry.example/base/app:1";

fn spec(image: &str, policy: &str, tags: &[&str]) -> Value {
    json!({"images": [{"image": image, "pullPolicy": policy, "tags": tags}]})
}

/// Runs `larder` on the store of a node.
fn by_hand(larder: &Larder, args: &[&str]) {
    let store = larder.store("n1");
    let place = ["--store", store.to_str().unwrap(), "--runtime", "none"];
    run(&binary("larder").unwrap(), &[&place, args].concat(), &[], b"").unwrap().ok().unwrap();
}

/// What a name stands for in the store.
fn digest(larder: &Larder, name: &str) -> Option<String> {
    let index = std::fs::read(larder.store("n1").join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == name;
    index["manifests"].as_array()?.iter().find(named)?["digest"].as_str().map(str::to_owned)
}

fn wait_digest(larder: &Larder, name: &str, wanted: &str) {
    until(&format!("{name} to be {wanted}"), PATIENCE, || (digest(larder, name)? == wanted).then_some(()))
        .unwrap_or_else(|error| panic!("{error}: {:?}", digest(larder, name)));
}

#[test]
fn a_name_moves_with_its_image() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let old = registry.push(&image(&[(1, 60_000)]), "app", "v1").unwrap();
    let larder = Larder::start(&[("n1", &[])]);
    larder.apply("app", &spec(&old.name, "Always", &[BASE, "short"]));
    larder.wait_ready("app", 1);
    larder.wait_held("n1", &[&old.name, BASE, "docker.io/library/short:latest"]);
    assert_eq!(digest(&larder, BASE).unwrap(), old.digest.as_str());

    let new = registry.push(&image(&[(2, 60_000)]), "app", "v1").unwrap();
    larder.agent("n1").restart().unwrap();
    for name in [new.name.as_str(), BASE, "docker.io/library/short:latest"] {
        wait_digest(&larder, name, new.digest.as_str());
    }
    larder.wait_ready("app", 1);

    // Killed, edited meanwhile: the store alone knows which of its names are further ones.
    let own = registry.push(&image(&[(3, 60_000)]), "own", "v1").unwrap();
    larder.apply("app", &spec(&new.name, "IfNotPresent", &[&own.name]));
    larder.wait_ready("app", 1);
    larder.wait_held("n1", &[&new.name, &own.name]);
    assert_eq!(digest(&larder, &own.name).unwrap(), new.digest.as_str());
    larder.agent("n1").kill();
    larder.apply("app", &json!({"images": [{"image": own.name}]}));
    larder.agent("n1").start().unwrap();
    wait_digest(&larder, &own.name, own.digest.as_str());
    larder.wait_ready("app", 1);
    larder.wait_held("n1", &[&own.name]);
    larder.delete("app");
    larder.wait_held("n1", &[]);
}

#[test]
fn a_name_that_a_person_has_given_stays_the_persons() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(10, 60_000)]), "app", "v1").unwrap();
    let mine = registry.push(&image(&[(11, 60_000)]), "mine", "v1").unwrap();
    let larder = Larder::start(&[("n1", &[])]);
    larder.apply("app", &spec(&app.name, "IfNotPresent", &[]));
    larder.wait_ready("app", 1);
    by_hand(&larder, &["pull", "--quiet", &mine.name]);
    by_hand(&larder, &["tag", &mine.name, BASE]);

    larder.apply("app", &spec(&app.name, "IfNotPresent", &["free", BASE]));
    let failure = larder.wait_failure("app", &app.name, "NameConflict");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains(BASE) && message.contains(&format!("larder rm {BASE}")), "{message}");
    wait_digest(&larder, "docker.io/library/free:latest", app.digest.as_str());
    assert_eq!(digest(&larder, BASE).unwrap(), mine.digest.as_str(), "nothing was taken from anybody");
    assert_eq!(digest(&larder, &app.name).unwrap(), app.digest.as_str());

    // The person gives it up.
    by_hand(&larder, &["rm", BASE]);
    larder.wait_ready("app", 1);
    wait_digest(&larder, BASE, app.digest.as_str());
    // What the agent looks after, it goes on looking after, whatever a person does.
    by_hand(&larder, &["tag", &mine.name, BASE]);
    wait_digest(&larder, BASE, app.digest.as_str());
    by_hand(&larder, &["rm", "--force", BASE]);
    wait_digest(&larder, BASE, app.digest.as_str());
    // A person may have given the image the same name before, and keeps it.
    by_hand(&larder, &["tag", &app.name, "copy"]);
    larder.apply("app", &spec(&app.name, "IfNotPresent", &["copy"]));
    larder.wait_ready("app", 1);
    larder.delete("app");
    larder.wait_held("n1", &[&mine.name, "docker.io/library/copy:latest"]);
}
