//! Names that move from one image to another.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use common::{Folder, Image, folder, image, key};
use larder_oci::ImageKey;
use larder_store::{Claim, Store, StoreError, StoredImage};

fn put_by_hand(store: &Store, image: &Image) -> Option<larder_store::Untagged> {
    let lease = store.lease(&image.key).unwrap();
    image.fetch(store, &lease);
    lease.commit_by_hand(image.new_image(Claim::None)).unwrap()
}

fn names(store: &Store) -> Vec<String> {
    let mut names: Vec<_> = store.images().unwrap().iter().map(|image| image.key.name.to_string()).collect();
    names.sort();
    names
}

fn stored(store: &Store, name: &str) -> StoredImage {
    store.image(&key(name)).unwrap().unwrap()
}

#[test]
fn an_image_whose_tag_moves_stays_under_its_digest() {
    let Folder { dir: _dir, store } = &folder();
    let (old, new) = (image("app", &[b"old"]), image("app", &[b"new"]));
    assert_eq!(put_by_hand(store, &old), None);
    let before = stored(store, "app");
    let untagged = put_by_hand(store, &new).unwrap();
    assert_eq!(untagged.was, old.key);
    let digest = &before.target;
    assert_eq!(untagged.now.key.name.to_string(), format!("docker.io/library/app@{digest}"));
    assert_eq!(names(store), ["docker.io/library/app:latest", untagged.now.key.name.as_str()]);
    assert!(store.is_complete(&untagged.now).unwrap());
    assert!(store.collect(&larder_store::CollectOptions::default()).unwrap().blobs.is_empty());
    // The same once more changes nothing.
    assert_eq!(put_by_hand(store, &new), None);
    // Back again: the name is there, and the image that it now leaves has lost its own.
    let back = put_by_hand(store, &old).unwrap();
    assert_eq!(back.was, new.key);
    assert_eq!(stored(store, "app").target, *digest);
    assert_eq!(names(store).len(), 3);
}

#[test]
fn an_image_with_another_name_is_not_kept_under_its_digest() {
    let Folder { dir: _dir, store } = &folder();
    put_by_hand(store, &image("app", &[b"old"]));
    store.tag(&[key("app")], &"backup:1".parse().unwrap()).unwrap();
    assert_eq!(put_by_hand(store, &image("app", &[b"new"])), None);
    assert_eq!(names(store), ["docker.io/library/app:latest", "docker.io/library/backup:1"]);
}

#[test]
fn the_agents_claim_on_a_name_outlives_what_people_do() {
    let Folder { dir: _dir, store } = &folder();
    put_by_hand(store, &image("app", &[b"old"]));
    store.set_claim(&[key("app")], Claim::Delete).unwrap();
    let untagged = put_by_hand(store, &image("app", &[b"new"])).unwrap();
    assert_eq!(stored(store, "app").claim, Claim::Delete);
    assert_eq!(untagged.now.claim, Claim::Delete, "the agent clears away what it brought");
    put_by_hand(store, &image("other", &[b"other"]));
    store.tag(&[key("other")], &key("app").name).unwrap();
    assert_eq!(stored(store, "app").claim, Claim::Delete);
    // A further name is the person's own.
    store.tag(&[key("app")], &"copy".parse().unwrap()).unwrap();
    assert_eq!(stored(store, "copy").claim, Claim::None);
}

#[test]
fn the_agents_further_names_move_and_a_persons_stay() {
    let Folder { dir: _dir, store } = &folder();
    let put = |image: &Image| {
        let lease = store.lease(&image.key).unwrap();
        image.fetch(store, &lease);
        lease.commit(image.new_image(Claim::Delete)).unwrap();
    };
    put(&image("app", &[b"old"]));
    put_by_hand(store, &image("mine", &[b"mine"]));
    let names_of_app = [(key("copy"), key("app")), (key("mine"), key("app")), (key("lost"), key("nowhere"))];
    assert_eq!(store.tag_for_agent(&names_of_app).unwrap(), [key("copy")]);
    assert_eq!(store.tag_for_agent(&names_of_app).unwrap(), []);
    let copy = stored(store, "copy");
    assert!(copy.is_same_as(&stored(store, "app")) && copy.further && copy.claim == Claim::Delete);
    assert!(!stored(store, "app").further && !stored(store, "mine").is_same_as(&copy));

    // It is written down, and stays so whoever looks after it and whatever a person gives the name to.
    store.set_claim(&[key("copy")], Claim::Retain).unwrap();
    store.tag(&[key("mine")], &key("copy").name).unwrap();
    let taken = stored(&Store::open(store.root()).unwrap(), "copy");
    assert!(taken.further && taken.claim == Claim::Retain && taken.is_same_as(&stored(store, "mine")));
    store.tag(&[key("copy")], &key("persons").name).unwrap();
    assert!(!stored(store, "persons").further, "a copy that a person makes is the person's");

    // Its image has moved: nothing keeps the old one.
    put(&image("app", &[b"new"]));
    assert_eq!(store.tag_for_agent(&names_of_app).unwrap(), [key("copy")]);
    let copy = stored(store, "copy");
    assert!(copy.is_same_as(&stored(store, "app")) && copy.claim == Claim::Delete);
    let collected = store.collect(&larder_store::CollectOptions::default()).unwrap().blobs;
    assert!(image("app", &[b"old"]).digests().iter().any(|digest| collected.contains(digest)));

    // Once it has been fetched by its own name, that is what it is.
    put(&image("copy", &[b"own"]));
    assert!(!stored(store, "copy").further);
}

#[test]
fn a_tag_moves_for_all_platforms_at_once() {
    let Folder { dir: _dir, store } = &folder();
    let arm = |name: &str, layer: &[u8]| {
        let mut image = image(name, &[layer]);
        image.key = ImageKey { platform: "linux/arm64".parse().unwrap(), ..image.key };
        image
    };
    put_by_hand(store, &image("app", &[b"old"]));
    let old_arm = arm("app", b"old arm");
    put_by_hand(store, &old_arm);
    put_by_hand(store, &image("new", &[b"new"]));
    let untagged = store.tag(&[key("new")], &key("app").name).unwrap();
    assert_eq!(untagged.len(), 2, "{untagged:?}");
    assert_eq!(stored(store, "app").target, stored(store, "new").target);
    assert!(store.image(&old_arm.key).unwrap().is_none(), "the name stands for the new image alone");
    assert_eq!(store.images().unwrap().len(), 4);
}

#[test]
fn tagging_what_is_gone_changes_nothing() {
    let Folder { dir: _dir, store } = &folder();
    put_by_hand(store, &image("app", &[b"app"]));
    let error = store.tag(&[key("app"), key("gone")], &"copy".parse().unwrap()).unwrap_err();
    assert!(matches!(error, StoreError::NoImage { .. }), "{error}");
    assert_eq!(names(store), ["docker.io/library/app:latest"]);
}

#[test]
fn several_names_go_at_once_and_only_those_that_may() {
    let Folder { dir: _dir, store } = &folder();
    for name in ["a", "b", "c"] {
        put_by_hand(store, &image(name, &[name.as_bytes()]));
    }
    store.set_claim(&[key("b")], Claim::Retain).unwrap();
    let keys = [key("a"), key("b"), key("gone")];
    let removed = store.remove_all(&keys, |image| image.claim == Claim::None).unwrap();
    assert_eq!(removed, [key("a")]);
    assert_eq!(names(store), ["docker.io/library/b:latest", "docker.io/library/c:latest"]);
}

#[test]
fn the_inventory_counts_what_lies_there() {
    let folder = folder();
    put_by_hand(&folder.store, &image("app", &[b"layer"]));
    let lease = folder.store.lease(&key("other")).unwrap();
    let digest = larder_oci::Digest::sha256(b"hello world");
    lease.protect([&digest]).unwrap();
    common::writer(&lease, &digest, 11).write(b"hello").unwrap();
    let inventory = folder.store.inventory().unwrap();
    assert_eq!(inventory.blobs.keys().cloned().collect::<std::collections::BTreeSet<_>>(), folder.blobs());
    assert!(inventory.blobs.values().any(|size| *size == 5));
    assert_eq!((inventory.partials, inventory.partial_bytes), (1, 5));
}
