//! What a store does, one thing a test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use common::{Folder, category, descriptor, fetch_blob, folder, image, key, writer};
use larder_oci::{Digest, manifest};
use larder_store::{BlobState, Category, Claim, CollectOptions, Ingest, NewImage, Store, StoreError};
use serde_json::json;

#[test]
fn a_new_store_is_an_image_layout_and_opens_again() {
    let Folder { dir, store } = folder();
    let image = image("app", &[b"layer"]);
    image.put(&store);
    let again = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(again.images().unwrap(), store.images().unwrap());
    assert_eq!(
        fs::read_to_string(again.root().join("oci-layout")).unwrap(),
        r#"{"imageLayoutVersion":"1.0.0"}"#
    );
    let mode = |name: &str| fs::metadata(again.root().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(".larder"), 0o700);
    assert_eq!(mode("blobs/sha256") & 0o022, 0, "nobody else may write blobs");
}

#[test]
fn a_folder_that_holds_something_else_is_refused_and_untouched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    assert!(error.to_string().contains("thesis.txt"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
    fs::write(dir.path().join("blobs/sha256/x"), "").unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::NotAStore { .. })));

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("2.0.0"), "{error}");
}

#[test]
fn a_store_that_was_half_made_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join(".larder")).unwrap();
    fs::write(dir.path().join(".larder/lock"), "").unwrap();
    let store = Store::open(dir.path()).unwrap();
    image("app", &[b"layer"]).put(&store);
}

#[test]
fn a_blob_has_its_name_only_when_it_has_its_digest() {
    let folder = folder();
    let lease = folder.store.lease(&key("app")).unwrap();
    let digest = Digest::sha256(b"hello world");
    lease.protect([&digest]).unwrap();
    let mut blob = writer(&lease, &digest, 11);
    blob.write(b"hello ").unwrap();
    assert_eq!(folder.store.blob_size(&digest).unwrap(), None);
    blob.write(b"world").unwrap();
    assert_eq!(folder.store.blob_size(&digest).unwrap(), None);
    blob.finish().unwrap();
    assert_eq!(folder.store.read_blob(&digest, 11).unwrap(), b"hello world");
    assert!(matches!(
        folder.store.read_blob(&digest, 10),
        Err(StoreError::TooLarge { size: 11, max: 10, .. })
    ));
    assert!(matches!(lease.ingest(&digest, 11).unwrap(), Ingest::Present));
    assert_eq!(folder.partials(), 0);
}

#[test]
fn a_writer_goes_on_from_the_bytes_that_are_there() {
    let folder = folder();
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let digest = Digest::sha256(&bytes);
    let mut offset = 0;
    let mut tries = 0;
    while folder.store.blob_size(&digest).unwrap().is_none() {
        let lease = folder.store.lease(&key("app")).unwrap();
        lease.protect([&digest]).unwrap();
        let mut blob = writer(&lease, &digest, bytes.len());
        assert_eq!(blob.offset(), offset as u64, "not one byte is fetched twice");
        let end = bytes.len().min(offset + fastrand::usize(1..700_000));
        blob.write(&bytes[offset..end]).unwrap();
        offset = end;
        tries += 1;
        if offset == bytes.len() {
            blob.finish().unwrap();
        }
    }
    assert!(tries > 3);
    assert!(digest.matches(&fs::read(folder.store.blob_path(&digest)).unwrap()));
}

#[test]
fn a_damaged_beginning_is_found_and_dropped() {
    let folder = folder();
    let lease = folder.store.lease(&key("app")).unwrap();
    let digest = Digest::sha256(b"hello world");
    lease.protect([&digest]).unwrap();
    writer(&lease, &digest, 11).write(b"hellO ").unwrap();
    let mut blob = writer(&lease, &digest, 11);
    assert_eq!(blob.offset(), 6);
    blob.write(b"world").unwrap();
    let error = blob.finish().unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { resumed: true, .. }), "{error}");
    assert_eq!((folder.partials(), folder.blobs().len()), (0, 0));
    assert!(fetch_blob(&lease, b"hello world"));

    let other = Digest::sha256(b"other");
    lease.protect([&other]).unwrap();
    let mut blob = writer(&lease, &other, 5);
    blob.write(b"wrong").unwrap();
    assert!(matches!(blob.finish(), Err(StoreError::DigestMismatch { resumed: false, .. })));
}

#[test]
fn too_many_and_too_few_bytes_are_errors_that_lose_nothing() {
    let folder = folder();
    let lease = folder.store.lease(&key("app")).unwrap();
    let digest = Digest::sha256(b"hello world");
    lease.protect([&digest]).unwrap();
    let mut blob = writer(&lease, &digest, 11);
    blob.write(b"hello").unwrap();
    assert_eq!(category(blob.write(b" world!")), Category::SizeMismatch);
    assert_eq!(category(blob.finish()), Category::SizeMismatch);
    let mut blob = writer(&lease, &digest, 11);
    assert_eq!(blob.offset(), 5);
    blob.restart().unwrap();
    blob.write(b"hello world").unwrap();
    blob.finish().unwrap();
    // The blob is what its digest says, so a descriptor with another size lies.
    assert!(matches!(
        lease.ingest(&digest, 12),
        Err(StoreError::SizeMismatch { expected: 12, actual: 11, .. })
    ));
}

#[test]
fn a_longer_partial_than_the_blob_is_started_anew() {
    let folder = folder();
    let lease = folder.store.lease(&key("app")).unwrap();
    let digest = Digest::sha256(b"hello");
    lease.protect([&digest]).unwrap();
    writer(&lease, &digest, 100).write(b"something longer").unwrap();
    assert_eq!(folder.store.partial_size(&digest).unwrap(), 16);
    assert_eq!(writer(&lease, &digest, 5).offset(), 0);
    assert!(fetch_blob(&lease, b"hello"));
}

#[test]
fn an_empty_blob_and_a_sha512_blob_are_blobs() {
    let folder = folder();
    let lease = folder.store.lease(&key("app")).unwrap();
    let long: Digest = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f".parse().unwrap();
    let empty = Digest::sha256(b"");
    lease.protect([&long, &empty]).unwrap();
    let mut blob = writer(&lease, &long, 3);
    blob.write(b"abc").unwrap();
    blob.finish().unwrap();
    writer(&lease, &empty, 0).finish().unwrap();
    assert_eq!(folder.blobs().len(), 2);
}

#[test]
fn a_blob_has_one_writer() {
    let folder = folder();
    let lease = folder.store.lease(&key("app")).unwrap();
    let other = folder.store.lease(&key("other")).unwrap();
    let digest = Digest::sha256(b"hello");
    lease.protect([&digest]).unwrap();
    other.protect([&digest]).unwrap();
    let mut blob = writer(&lease, &digest, 5);
    blob.write(b"he").unwrap();
    assert!(matches!(other.ingest(&digest, 5).unwrap(), Ingest::Busy));
    drop(blob);
    let mut blob = writer(&other, &digest, 5);
    assert_eq!(blob.offset(), 2);
    blob.write(b"llo").unwrap();
    blob.finish().unwrap();
    assert!(matches!(lease.ingest(&digest, 5).unwrap(), Ingest::Present));
}

#[test]
fn a_blob_that_no_lease_protects_is_not_written() {
    let folder = folder();
    let lease = folder.store.lease(&key("app")).unwrap();
    let digest = Digest::sha256(b"hello");
    assert!(matches!(lease.ingest(&digest, 5), Err(StoreError::NotProtected { .. })));
    assert!(matches!(folder.store.put_blob(&lease, &digest, b"hello"), Err(StoreError::NotProtected { .. })));
    lease.protect([&digest]).unwrap();
    assert_eq!(category(folder.store.put_blob(&lease, &digest, b"wrong")), Category::DigestMismatch);
    folder.store.put_blob(&lease, &digest, b"hello").unwrap();
}

#[test]
fn damage_is_found_and_mended() {
    let folder = folder();
    let image = image("app", &[b"layer"]);
    let stored = image.put(&folder.store);
    let (layer, path) = (Digest::sha256(b"layer"), folder.store.blob_path(&Digest::sha256(b"layer")));
    assert_eq!(folder.store.discard_damaged(&layer).unwrap(), BlobState::Intact);

    fs::write(&path, b"lay").unwrap();
    assert!(!folder.store.is_complete(&stored).unwrap());
    image.put(&folder.store);
    assert_eq!(
        folder.store.check_blob(&layer).unwrap(),
        BlobState::Intact,
        "a wrong size is mended by a pull"
    );

    fs::write(&path, b"LAYER").unwrap();
    assert_eq!(category(folder.store.read_blob(&layer, 9).map(drop)), Category::Store);
    assert_eq!(folder.store.discard_damaged(&layer).unwrap(), BlobState::Damaged);
    assert_eq!(folder.store.check_blob(&layer).unwrap(), BlobState::Absent);
    image.put(&folder.store);
    assert!(folder.store.is_complete(&stored).unwrap());

    fs::write(folder.store.blob_path(&stored.manifest_digest), vec![0; image.manifest.len()]).unwrap();
    assert!(!folder.store.is_complete(&stored).unwrap());
    image.put(&folder.store);
    assert!(folder.store.is_complete(&stored).unwrap(), "put_blob mends what it finds damaged");
}

#[test]
fn an_image_is_named_only_when_it_is_whole() {
    let folder = folder();
    let image = image("app", &[b"one", b"two"]);
    let lease = folder.store.lease(&image.key).unwrap();
    let commit = || lease.commit(image.new_image(Claim::Delete));
    assert_eq!(category(commit()), Category::NotFound);
    lease.protect(&image.digests()).unwrap();
    folder.store.put_blob(&lease, &Digest::sha256(&image.manifest), &image.manifest).unwrap();
    for bytes in &image.blobs {
        assert_eq!(category(commit()), Category::NotFound);
        fetch_blob(&lease, bytes);
    }
    let wrong =
        NewImage { manifest: descriptor("application/pdf", &image.manifest), ..image.new_image(Claim::None) };
    assert_eq!(category(lease.commit(wrong)), Category::InvalidManifest);
    assert_eq!(folder.store.images().unwrap(), []);
    commit().unwrap();
    let stored = folder.store.image(&image.key).unwrap().unwrap();
    assert_eq!((stored.claim, &stored.target), (Claim::Delete, &Digest::sha256(&image.manifest)));
    let size = image.manifest.len() + image.blobs.iter().map(Vec::len).sum::<usize>();
    assert_eq!(folder.store.image_size(&stored).unwrap(), size as u64);
    assert!(folder.store.is_complete(&stored).unwrap());
}

#[test]
fn a_lying_layer_size_is_one_clear_error() {
    let folder = folder();
    let honest = image("app", &[b"layer"]);
    let text = String::from_utf8(honest.manifest.clone()).unwrap();
    let lying = common::Image { manifest: text.replace("\"size\":5", "\"size\":6").into_bytes(), ..honest };
    let lease = folder.store.lease(&lying.key).unwrap();
    lying.fetch(&folder.store, &lease);
    let error = lease.commit(lying.new_image(Claim::None)).unwrap_err();
    assert!(matches!(error, StoreError::SizeMismatch { expected: 6, actual: 5, .. }), "{error}");
}

#[test]
fn the_index_behind_an_image_is_kept_and_its_other_platforms_are_not_missed() {
    let folder = folder();
    let app = image("app", &[b"layer"]);
    let entry = descriptor(manifest::OCI_MANIFEST, &app.manifest);
    let absent = descriptor(manifest::OCI_MANIFEST, b"another platform's");
    let index = json!({"schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": [entry, absent]});
    let index = index.to_string().into_bytes();
    let lease = folder.store.lease(&app.key).unwrap();
    app.fetch(&folder.store, &lease);
    let described = Some(descriptor(manifest::OCI_INDEX, &index));
    let new = || NewImage { index: described.clone(), ..app.new_image(Claim::Retain) };
    assert_eq!(category(lease.commit(new())), Category::NotFound);
    let digest = Digest::sha256(&index);
    lease.protect([&digest]).unwrap();
    folder.store.put_blob(&lease, &digest, &index).unwrap();
    let posing = NewImage { index: Some(descriptor(manifest::OCI_INDEX, &app.manifest)), ..new() };
    assert_eq!(category(lease.commit(posing)), Category::InvalidManifest);
    lease.commit(new()).unwrap();
    drop(lease);
    let stored = folder.store.image(&app.key).unwrap().unwrap();
    assert_eq!(stored.target, digest);
    let collected = folder.collect_all();
    assert_eq!((collected.blobs.len(), collected.warnings.len()), (0, 0), "{collected:?}");
    assert!(folder.store.is_complete(&stored).unwrap());

    let descriptor = &folder.index()["manifests"][0];
    assert_eq!(descriptor["digest"], stored.manifest_digest.as_str());
    assert_eq!(descriptor["platform"], json!({"os": "linux", "architecture": "amd64"}));
    assert_eq!(
        descriptor["annotations"],
        json!({
            "org.opencontainers.image.ref.name": "docker.io/library/app:latest",
            "io.containerd.image.name": "docker.io/library/app:latest",
            "dev.larder.platform": "linux/amd64",
            "dev.larder.index.digest": digest.as_str(),
            "dev.larder.index.size": index.len().to_string(),
            "dev.larder.index.mediaType": manifest::OCI_INDEX,
            "dev.larder.claim": "retain",
        })
    );
}

#[test]
fn a_strangers_annotations_do_not_pose_as_ours() {
    let folder = folder();
    let app = image("app", &[b"layer"]);
    let lease = folder.store.lease(&app.key).unwrap();
    app.fetch(&folder.store, &lease);
    let mut new = app.new_image(Claim::None);
    let annotation = ("dev.larder.claim".to_owned(), "delete".to_owned());
    new.manifest.set_annotations(Some([annotation].into()));
    lease.commit(new).unwrap();
    assert_eq!(folder.store.images().unwrap()[0].claim, Claim::None);
    assert!(!fs::read_to_string(folder.root().join("index.json")).unwrap().contains("delete"));
}

#[test]
fn one_name_may_have_several_platforms_and_a_new_commit_replaces_the_same_one() {
    let folder = folder();
    let first = image("app", &[b"one"]);
    first.put(&folder.store);
    let mut arm = image("app", &[b"arm"]);
    arm.key.platform = "linux/arm64".parse().unwrap();
    arm.put(&folder.store);
    let second = image("app", &[b"two"]);
    second.put(&folder.store);
    assert_eq!(folder.store.images().unwrap().len(), 2);
    let text = fs::read(folder.root().join("index.json")).unwrap();
    second.put(&folder.store);
    assert_eq!(fs::read(folder.root().join("index.json")).unwrap(), text);
    folder.collect_all();
    assert_eq!(folder.blobs(), arm.digests().union(&second.digests()).cloned().collect());
    assert!(folder.store.remove(&second.key).unwrap());
    assert!(!folder.store.remove(&second.key).unwrap());
    folder.collect_all();
    assert_eq!(folder.blobs(), arm.digests());
}

#[test]
fn a_claim_that_does_not_change_is_not_written() {
    let folder = folder();
    let app = image("app", &[b"one"]);
    app.put(&folder.store);
    let keys = [app.key.clone(), key("absent")];
    assert!(folder.store.set_claim(&keys, Claim::Retain).unwrap());
    assert!(!folder.store.set_claim(&keys, Claim::Retain).unwrap());
    assert_eq!(folder.store.images().unwrap()[0].claim, Claim::Retain);
    assert!(folder.store.set_claim(&keys, Claim::None).unwrap());
    assert_eq!(folder.store.images().unwrap()[0].claim, Claim::None);
}

#[test]
fn what_other_tools_wrote_stays_as_it_is() {
    let folder = folder();
    let theirs = image("theirs", &[b"their layer"]);
    let lease = folder.store.lease(&theirs.key).unwrap();
    theirs.fetch(&folder.store, &lease);
    // Digests and numbers that we would write differently, fields that we do not know, and no descriptor at all.
    let digest = Digest::sha256(&theirs.manifest);
    let foreign = format!(
        r#"{{"zeta": 1.50, "mediaType":"{}","size":{},"digest":"{digest}","annotations":{{"x":"\u0041"}}}}"#,
        manifest::OCI_MANIFEST,
        theirs.manifest.len()
    );
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{foreign},"odd"],"custom":{{"b":1,"a":2}}}}"#);
    fs::write(folder.root().join("index.json"), text).unwrap();
    lease.release();

    let ours = image("ours", &[b"our layer"]);
    ours.put(&folder.store);
    assert_eq!(folder.store.images().unwrap().len(), 1);
    assert_eq!(folder.collect_all().blobs, []);
    assert!(folder.blobs().is_superset(&theirs.digests()));
    folder.store.set_claim(std::slice::from_ref(&ours.key), Claim::Delete).unwrap();
    folder.store.remove(&ours.key).unwrap();
    let text = fs::read_to_string(folder.root().join("index.json")).unwrap();
    assert!(text.contains(&foreign), "{text}");
    assert!(text.contains(r#""odd""#) && text.contains(r#"{"b":1,"a":2}"#), "{text}");
    folder.collect_all();
    assert_eq!(folder.blobs(), theirs.digests());
}

#[test]
fn images_of_other_tools_are_followed_through_nested_indexes() {
    let folder = folder();
    let lease = folder.store.lease(&key("any")).unwrap();
    let inner_image = image("inner", &[b"deep layer"]);
    inner_image.fetch(&folder.store, &lease);
    let put = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        lease.protect([&digest]).unwrap();
        folder.store.put_blob(&lease, &digest, bytes).unwrap();
    };
    let present = descriptor(manifest::OCI_MANIFEST, &inner_image.manifest);
    let absent = descriptor(manifest::OCI_MANIFEST, b"absent");
    let inner = json!({"schemaVersion": 2, "manifests": [absent, present]}).to_string().into_bytes();
    // A kind that nobody knows, malformed as an index, that mentions the inner one.
    let outer = json!({"schemaVersion": 2, "manifests": [{"digest": Digest::sha256(&inner)}]})
        .to_string()
        .into_bytes();
    put(&inner);
    put(&outer);
    let root = descriptor(manifest::OCI_INDEX, &outer);
    let text = json!({"schemaVersion": 2, "manifests": [root]}).to_string();
    fs::write(folder.root().join("index.json"), text).unwrap();
    lease.release();
    let before = folder.blobs();
    let collected = folder.collect_all();
    assert_eq!(folder.blobs(), before);
    assert_eq!(collected.warnings.len(), 1, "{collected:?}");
}

#[test]
fn an_unreadable_index_stops_collection_and_says_what_to_do() {
    let folder = folder();
    let app = image("app", &[b"layer"]);
    app.put(&folder.store);
    let path = folder.root().join("index.json");
    let good = fs::read(&path).unwrap();
    for bad in ["", "{", "[]", "{}", r#"{"schemaVersion":2}"#, r#"{"schemaVersion":1,"manifests":[]}"#] {
        fs::write(&path, bad).unwrap();
        for error in [
            folder.store.images().unwrap_err(),
            folder.store.collect(&CollectOptions { dead_lease_age: Duration::ZERO }).unwrap_err(),
            folder.store.remove(&app.key).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("index.json") && text.contains("restore it"), "{text}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
    fs::remove_file(&path).unwrap();
    assert!(folder.store.images().is_err());
    assert!(
        Store::open(folder.root()).unwrap().images().is_err(),
        "a lost index is not replaced by an empty one"
    );
    fs::write(&path, good).unwrap();
    assert_eq!(folder.blobs(), app.digests());
}

#[test]
fn where_a_manifest_cannot_be_read_no_blob_is_deleted() {
    let folder = folder();
    let app = image("app", &[b"layer"]);
    let stored = app.put(&folder.store);
    let gone = image("gone", &[b"garbage"]);
    gone.put(&folder.store);
    folder.store.remove(&gone.key).unwrap();
    let path = folder.store.blob_path(&stored.manifest_digest);
    fs::write(&path, "damaged").unwrap();
    let collected = folder.collect_all();
    assert_eq!(collected.blobs, []);
    assert_eq!(collected.warnings.len(), 2, "{collected:?}");
    fs::write(&path, &app.manifest).unwrap();
    assert_eq!(folder.collect_all().blobs.len(), gone.digests().len());
    assert_eq!(folder.blobs(), app.digests());
}

#[test]
fn a_lease_protects_until_it_is_released_forgotten_or_old() {
    let folder = folder();
    let digest = Digest::sha256(b"layer");
    let unfinished = Digest::sha256(b"unfinished");
    let begin = || {
        let lease = folder.store.lease(&key("app")).unwrap();
        lease.protect([&digest, &unfinished]).unwrap();
        fetch_blob(&lease, b"layer");
        let _ = writer(&lease, &unfinished, 10).write(b"unf");
        lease
    };
    let kept = || (folder.blobs().len(), folder.partials(), folder.leases());

    let lease = begin();
    folder.collect_all();
    assert_eq!(kept(), (1, 1, 1), "alive");
    lease.suspend();
    folder.store.collect(&CollectOptions::default()).unwrap();
    assert_eq!(kept(), (1, 1, 1), "dead and young");

    let lease = folder.store.lease(&key("app")).unwrap();
    assert!(matches!(lease.ingest(&digest, 5).unwrap(), Ingest::Present), "adopted, so it protects already");
    assert_eq!(folder.store.forget(&key("app")).unwrap(), 0, "alive");
    drop(lease);
    assert_eq!(folder.store.forget(&key("other")).unwrap(), 0);
    assert_eq!(folder.store.forget(&key("app")).unwrap(), 1);
    let collected = folder.collect_all();
    assert_eq!((collected.blobs.len(), collected.partials, collected.bytes), (1, 1, 8));
    assert_eq!(kept(), (0, 0, 0));

    drop(begin());
    folder.collect_all();
    assert_eq!(kept(), (0, 0, 0), "dead, and any age is too old");

    begin().release();
    folder.store.collect(&CollectOptions::default()).unwrap();
    assert_eq!(kept(), (0, 0, 0), "released");
}

#[test]
fn leases_of_several_dead_owners_become_one() {
    let folder = folder();
    let digests = [Digest::sha256(b"one"), Digest::sha256(b"two")];
    let leases: Vec<_> = digests.iter().map(|_| folder.store.lease(&key("app")).unwrap()).collect();
    for (lease, digest) in leases.iter().zip(&digests) {
        lease.protect([digest]).unwrap();
    }
    assert_eq!(folder.leases(), 2);
    drop(leases);
    let lease = folder.store.lease(&key("app")).unwrap();
    assert_eq!(folder.leases(), 1);
    for digest in &digests {
        assert!(matches!(lease.ingest(digest, 3).unwrap(), Ingest::Write(_)));
    }
    drop(lease);
    // A torn last line, as a full disk leaves it, takes nothing else along.
    let path = fs::read_dir(folder.root().join(".larder/leases")).unwrap().next().unwrap().unwrap().path();
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("sha256:abc");
    fs::write(&path, text).unwrap();
    let lease = folder.store.lease(&key("app")).unwrap();
    lease.protect([&Digest::sha256(b"three")]).unwrap();
    drop(lease);
    let lease = folder.store.lease(&key("app")).unwrap();
    for bytes in [&b"one"[..], b"two", b"three"] {
        assert!(fetch_blob(&lease, bytes));
    }
}

#[test]
fn holding_an_image_keeps_its_blobs_though_it_is_removed() {
    let folder = folder();
    let app = image("app", &[b"layer"]);
    let stored = app.put(&folder.store);
    let hold = folder.store.hold(&stored).unwrap();
    folder.store.remove(&app.key).unwrap();
    folder.collect_all();
    assert_eq!(folder.blobs(), app.digests());
    drop(hold);
    folder.collect_all();
    assert_eq!(folder.blobs().len(), 0);
    assert_eq!(folder.leases(), 0);
    assert!(matches!(folder.store.hold(&stored), Err(StoreError::NotFound { .. })));
}

#[test]
fn leftovers_go_and_other_peoples_files_stay() {
    let folder = folder();
    let private = folder.root().join(".larder");
    fs::write(private.join("oci-layout.new"), "torn").unwrap();
    fs::write(private.join("trash/sha256-0"), "left").unwrap();
    fs::create_dir_all(private.join("partial/sha256")).unwrap();
    fs::write(private.join("partial/sha256/0000.1111"), "left").unwrap();
    for name in ["blobs/README", "blobs/sha256/not-a-digest", "notes.txt"] {
        fs::write(folder.root().join(name), "theirs").unwrap();
    }
    let collected = folder.collect_all();
    assert_eq!((collected.partials, collected.warnings.len()), (1, 0));
    assert!(!private.join("oci-layout.new").exists() && !private.join("trash/sha256-0").exists());
    for name in ["blobs/README", "blobs/sha256/not-a-digest", "notes.txt"] {
        assert!(folder.root().join(name).exists(), "{name}");
    }
}

#[test]
fn no_digest_leads_out_of_the_folder() {
    let folder = folder();
    for text in ["../../../etc/passwd", "sha256:../../../../etc/passwd", "sha256:", "/etc:passwd"] {
        // A digest that is a path cannot be made, so no call that takes one can be led astray ...
        assert!(text.parse::<Digest>().is_err(), "{text}");
        // ... and where a file holds one, it is passed over.
        let entry = json!({"mediaType": manifest::OCI_MANIFEST, "digest": text, "size": 3});
        let ours = json!({"mediaType": manifest::OCI_MANIFEST, "digest": text, "size": 3, "annotations":
            {"org.opencontainers.image.ref.name": "app", "dev.larder.platform": "linux/amd64"}});
        let index = json!({"schemaVersion": 2, "manifests": [entry, ours]}).to_string();
        fs::write(folder.root().join("index.json"), index).unwrap();
        assert_eq!(folder.store.images().unwrap(), []);
        folder.collect_all();
    }
    // A link that someone put in a blob's place is not followed.
    let outside = folder.dir.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    let digest = Digest::sha256(b"precious");
    std::os::unix::fs::symlink(&outside, folder.store.blob_path(&digest)).unwrap();
    assert_eq!(category(folder.store.blob_size(&digest).map(drop)), Category::Store);
    fs::write(folder.root().join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    folder.collect_all();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
}
