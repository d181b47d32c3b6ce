//! What nodes keep when an ImageCache goes.

use larder_tests::{Proxy, Registry, RegistryOptions, larder::binary, process::run, until, wait::PATIENCE};
use serde_json::json;

use crate::fixture::{Larder, image, images};

#[test]
fn delete_takes_the_images_along_unless_another_wants_them() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(60, 50_000)]), "app", "v1").unwrap().name;
    let tool = registry.push(&image(&[(61, 50_000)]), "tool", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("one", &images(None, &[&app, &tool]));
    larder.apply("two", &images(None, &[&app]));
    larder.wait_ready("one", 1);
    larder.wait_ready("two", 1);
    larder.delete("one");
    larder.wait_held("a", &[&app]);
    larder.delete("two");
    larder.wait_held("a", &[]);
    until("the blobs to go", PATIENCE, || {
        let blobs = std::fs::read_dir(larder.store("a").join("blobs/sha256")).unwrap();
        (blobs.count() == 0).then_some(())
    })
    .unwrap();
}

#[test]
fn retain_keeps_them_even_if_nobody_was_there_when_it_went() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(70, 50_000)]), "app", "v1").unwrap().name;
    let gone = registry.push(&image(&[(71, 50_000)]), "gone", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    let retain = |images: &[&str]| {
        let images: Vec<_> = images.iter().map(|image| json!({"image": image})).collect();
        json!({"images": images, "deletionPolicy": "Retain"})
    };
    larder.apply("keep", &retain(&[&app, &gone]));
    larder.wait_ready("keep", 1);
    // Taken out by an edit: that image goes in any case.
    larder.apply("keep", &retain(&[&app]));
    larder.wait_held("a", &[&app]);

    larder.operator.kill();
    larder.agent("a").kill();
    larder.delete("keep");
    larder.agent("a").start().unwrap();
    larder.operator.start().unwrap();
    let object = until("the handover to be complete", PATIENCE, || {
        let object = larder.cluster.get(&["nodeimagecache", "a"]).ok()?;
        let spec = &object["spec"];
        let empty = |list: &serde_json::Value| list.as_array().is_none_or(Vec::is_empty);
        let settled = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        (empty(&spec["images"]) && empty(&spec["released"]) && settled).then_some(object)
    })
    .unwrap();
    assert_eq!(object["status"]["summary"]["images"], "0/0");
    larder.wait_held("a", &[&app]);

    // Wanted again, it is fetched from nowhere; and it goes with the last one to want it.
    let mark = registry.mark().unwrap();
    larder.apply("again", &images(None, &[&app]));
    larder.wait_ready("again", 1);
    assert_eq!(registry.requests_since(mark).unwrap().to_vec(), []);
    larder.delete("again");
    larder.wait_held("a", &[]);
}

/// The agent and the command line work on one store: neither takes away what the other put there.
#[test]
fn a_person_and_the_agent_share_a_store() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(75, 50_000)]), "app", "v1").unwrap().name;
    let mine = registry.push(&image(&[(75, 50_000), (76, 60_000)]), "mine", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("app", &images(None, &[&app]));
    larder.wait_ready("app", 1);

    let store = larder.store("a");
    let command = |args: &[&str]| {
        let args = [&["--store", store.to_str().unwrap()], args].concat();
        run(&binary("larder").unwrap(), &args, &[], b"").unwrap()
    };
    command(&["pull", &mine]).ok().unwrap();
    larder.wait_held("a", &[&app, &mine]);
    let refused = command(&["rm", &app]);
    assert!(
        !refused.status.success() && refused.stderr.contains("kept by an ImageCache"),
        "{}",
        refused.stderr
    );
    command(&["prune", "--all", "--force", "--except", &mine]).ok().unwrap();
    larder.wait_held("a", &[&app, &mine]);

    larder.delete("app");
    larder.wait_held("a", &[&mine]);
    command(&["verify", "--no-mend"]).ok().unwrap();
    command(&["rm", &mine]).ok().unwrap();
    larder.wait_held("a", &[]);
}

/// An image that is given up while it arrives leaves nothing behind: no bytes, and no claim on them.
#[test]
fn given_up_in_the_middle_nothing_stays() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    registry.push(&image(&[(77, 3_000_000), (78, 3_000_000)]), "slow", "v1").unwrap();
    proxy.limit_rate(Some(200_000));
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("slow", &images(None, &[&format!("{}/slow:v1", proxy.host())]));
    let files = |folder: &str| {
        let entries = std::fs::read_dir(larder.store("a").join(".larder").join(folder));
        entries.map_or(0, Iterator::count)
    };
    until("bytes to arrive", PATIENCE, || (files("partial/sha256") > 0).then_some(())).unwrap();
    larder.delete("slow");
    until("bytes and leases to go", PATIENCE, || {
        (files("partial/sha256") == 0 && files("leases") == 0).then_some(())
    })
    .unwrap();
}
