//! Single images out of archives with many.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::collections::BTreeSet;

use common::{Folder, Image, Tar, folder, image, index};
use larder_archive::{ArchiveError, LoadOptions, LoadedImage, Only, Pick, Source, load};
use larder_oci::{Digest, ImageKey};
use larder_store::Claim;
use serde_json::json;

fn key(name: &str, platform: &str) -> ImageKey {
    ImageKey { name: name.parse().unwrap(), platform: platform.parse().unwrap() }
}

fn pick(name: &str) -> Pick {
    Pick { key: key(name, "linux/amd64"), claim: Claim::Delete }
}

fn pick_from(
    to: &Folder,
    archive: Vec<u8>,
    wanted: Pick,
    along: &[&str],
) -> Result<Vec<LoadedImage>, ArchiveError> {
    let along = along.iter().map(|name| pick(name)).collect();
    let options = LoadOptions { only: Some(Only { wanted, along }), ..LoadOptions::default() };
    let stream = Source::Stream(Box::new(std::io::Cursor::new(archive)));
    load(&to.store, stream, &options, &|| false)
}

/// An archive of several images, each under its name.
fn archive(images: &[(&str, &Image)]) -> Tar {
    let mut tar = Tar::default();
    let listed: Vec<_> = images.iter().map(|(name, image)| image.descriptor(Some(name))).collect();
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    tar.file("index.json", index(&listed).as_bytes());
    let mut there = BTreeSet::new();
    for (path, bytes) in images.iter().flat_map(|(_, image)| image.blob_entries()) {
        if there.insert(path.clone()) {
            tar.file(&path, &bytes);
        }
    }
    tar
}

/// The blobs of images, as the store names them.
fn blobs(images: &[&Image]) -> BTreeSet<String> {
    let all = images.iter().flat_map(|image| image.blobs.iter().chain([&image.manifest]));
    all.map(|bytes| Digest::sha256(bytes).hex().to_owned()).collect()
}

fn three() -> [Image; 3] {
    [image(&[b"base", b"one"]), image(&[b"base", b"two"]), image(&[b"base", b"three"])]
}

#[test]
fn one_is_taken_and_the_others_leave_nothing() {
    let [one, two, three] = three();
    let tar = archive(&[("one:v1", &one), ("two:v1", &two), ("registry.corp/three:v1", &three)]).finish();
    let to = folder();
    let loaded = pick_from(&to, tar.clone(), pick("two:v1"), &[]).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!((&loaded[0].key, &loaded[0].target), (&pick("two:v1").key, &two.digest()));
    assert_eq!(to.store.images().unwrap()[0].claim, Claim::Delete);
    to.assert_clean(&blobs(&[&two]));

    // What is wanted too comes along, if it is there.
    let along = ["registry.corp/three:v1", "four:v1"];
    let loaded = pick_from(&to, tar, pick("one:v1"), &along).unwrap();
    assert_eq!(
        loaded.iter().map(|image| image.target.clone()).collect::<Vec<_>>(),
        [one.digest(), three.digest()]
    );
    to.assert_clean(&blobs(&[&one, &two, &three]));
}

#[test]
fn docker_archives_too() {
    let [one, two, _] = three();
    let mut tar = Tar::default();
    let mut items = Vec::new();
    for (name, image) in [("one:v1", &one), ("two:v1", &two)] {
        let config = format!("{}.json", Digest::sha256(&image.blobs[0]).hex());
        let layers: Vec<String> = image.blobs[1..]
            .iter()
            .map(|layer| format!("{name}/{}.tar", Digest::sha256(layer).hex()))
            .collect();
        tar.file(&config, &image.blobs[0]);
        for (path, layer) in layers.iter().zip(&image.blobs[1..]) {
            tar.file(path, layer);
        }
        items.push(json!({"Config": config, "RepoTags": [name], "Layers": layers}));
    }
    tar.file("manifest.json", json!(items).to_string().as_bytes());
    let to = folder();
    let loaded = pick_from(&to, tar.clone().finish(), pick("docker.io/library/two:v1"), &[]).unwrap();
    assert_eq!(loaded[0].id, Digest::sha256(&two.blobs[0]));
    assert_eq!(to.store.images().unwrap().len(), 1);
    assert!(!to.blobs().contains(Digest::sha256(&one.blobs[2]).hex()), "one's own layer");
    let error = pick_from(&to, tar.finish(), pick("three:v1"), &[]).unwrap_err().to_string();
    assert_eq!(error, "the archive has no image three:v1; it holds one:v1, two:v1");
}

#[test]
fn the_only_one_is_taken_whatever_its_name() {
    let [one, ..] = three();
    let nameless = {
        let mut tar = Tar::default();
        tar.file("index.json", index(&[one.descriptor(None)]).as_bytes());
        one.blob_entries().iter().for_each(|(path, bytes)| tar.file(path, bytes));
        tar.finish()
    };
    let two_names = archive(&[("one:v1", &one), ("registry.corp/one:v1", &one)]).finish();
    for tar in [one.oci("other:v9").finish(), nameless, two_names, one.docker(&json!(["other:v9"])).finish()]
    {
        let to = folder();
        let loaded = pick_from(&to, tar, pick("registry.corp/app:v1"), &[]).unwrap();
        assert_eq!(loaded[0].key, pick("registry.corp/app:v1").key);
        let stored = to.store.images().unwrap();
        assert_eq!(stored.len(), 1);
        assert!(to.store.is_complete(&stored[0]).unwrap());
    }
}

#[test]
fn what_is_not_there_is_an_error_that_says_what_is() {
    let [one, two, _] = three();
    let tar = archive(&[("one:v1", &one), ("registry.corp/two:v1", &two)]).finish();
    let to = folder();
    let error = pick_from(&to, tar.clone(), pick("app:v1"), &[]).unwrap_err().to_string();
    assert_eq!(error, "the archive has no image app:v1; it holds one:v1, registry.corp/two:v1");
    to.assert_clean(&BTreeSet::new());
    let arm = Pick { key: key("one:v1", "linux/arm64"), claim: Claim::Delete };
    let error = pick_from(&to, tar, arm, &[]).unwrap_err();
    assert!(matches!(error, ArchiveError::NoPlatform { .. }), "{error}");
    to.assert_clean(&BTreeSet::new());
}

#[test]
fn a_name_with_a_digest_is_held_to_it() {
    let [one, two, three] = three();
    let tar = archive(&[("one:v1", &one), ("two:v1", &two)]).finish();
    let to = folder();
    let named = format!("registry.corp/app:v1@{}", two.digest());
    let loaded = pick_from(&to, tar.clone(), pick(&named), &[]).unwrap();
    assert_eq!((loaded[0].key.name.as_str(), &loaded[0].target), (named.as_str(), &two.digest()));
    let error =
        pick_from(&to, tar, pick(&format!("one:v1@{}", three.digest())), &[]).unwrap_err().to_string();
    assert!(error.contains(one.digest().as_str()) && error.contains("has no image one:v1@"), "{error}");
}

#[test]
fn what_is_wrong_with_the_others_does_not_matter() {
    let [one, two, _] = three();
    let mut tar = Tar::default();
    let listed = [one.descriptor(Some("one:v1")), two.descriptor(Some("two:v1"))];
    tar.file("index.json", index(&listed).as_bytes());
    one.blob_entries().iter().for_each(|(path, bytes)| tar.file(path, bytes));
    let tar = tar.finish();
    let to = folder();
    assert!(matches!(to.load(tar.clone()), Err(ArchiveError::Missing { .. })), "all of them are not there");
    pick_from(&to, tar.clone(), pick("one:v1"), &[]).unwrap();
    to.assert_clean(&blobs(&[&one]));
    assert!(matches!(pick_from(&to, tar, pick("two:v1"), &[]), Err(ArchiveError::Missing { .. })));
    to.assert_clean(&blobs(&[&one]));
}
