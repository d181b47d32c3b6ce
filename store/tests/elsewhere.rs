//! Layers that a container runtime has in the store's stead.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
};

use common::{Folder, Image, category, fetch_blob, folder, image, key, runtime::Runtime, writer};
use larder_oci::{Digest, Hasher, digest::Algorithm};
use larder_store::{BlobState, Category, Claim, Ingest, Store, StoreError, StoredImage};

const LAYER: &[u8] = b"the one layer";

/// A store with an image whose layer has been handed over.
fn handed_over() -> (Folder, Runtime, Image, StoredImage) {
    let (folder, runtime) = folder().with_runtime();
    let app = image("app", &[LAYER]);
    let stored = app.put(&folder.store);
    assert_eq!(runtime.take(&folder.store, LAYER), LAYER.len() as u64);
    (folder, runtime, app, stored)
}

fn layer() -> Digest {
    Digest::sha256(LAYER)
}

#[test]
fn a_layer_that_was_handed_over_counts_as_there_and_reads_back() {
    let (folder, _runtime, app, stored) = handed_over();
    let store = &folder.store;
    assert!(!store.blob_path(&layer()).exists());
    assert_eq!(store.blob_size(&layer()).unwrap(), Some(LAYER.len() as u64));
    assert!(store.is_complete(&stored).unwrap());
    assert_eq!(store.check_blob(&layer()).unwrap(), BlobState::Intact);
    assert_eq!(store.read_blob(&layer(), 100).unwrap(), LAYER);
    store.hold(&stored).unwrap();

    let mut blob = store.open_blob(&layer()).unwrap();
    assert_eq!(blob.size(), LAYER.len() as u64);
    assert!(blob.as_file().is_none());
    blob.seek(SeekFrom::Start(4)).unwrap();
    let mut rest = String::new();
    blob.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "one layer");
    assert!(store.open_blob(&stored.manifest_digest).unwrap().into_file().is_ok());

    let inventory = store.inventory().unwrap();
    assert_eq!(inventory.blobs.len(), 2, "manifest and configuration are here");
    assert_eq!(inventory.handed_over, [(layer(), LAYER.len() as u64)].into());
    assert_eq!(store.handed_over().unwrap(), inventory.handed_over);

    // Another image that needs it fetches nothing, and so does this one.
    let lease = store.lease(&key("other")).unwrap();
    lease.protect(&app.digests()).unwrap();
    assert!(!fetch_blob(&lease, LAYER));
    assert!(store.find_layer(&lease, &layer(), LAYER.len() as u64).unwrap());
    assert_eq!(store.hand_over([&layer()]).unwrap(), 0);
}

#[test]
fn without_the_runtime_the_error_says_where_the_layer_is() {
    let (folder, _runtime, _app, stored) = handed_over();
    let store = Store::open(folder.root()).unwrap();
    assert!(store.is_complete(&stored).unwrap());
    let error = store.open_blob(&layer()).unwrap_err();
    assert!(matches!(error, StoreError::Elsewhere { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(layer().as_str()) && text.contains("--runtime"), "{text}");
    assert!(matches!(store.check_blob(&layer()), Err(StoreError::Elsewhere { .. })));
}

#[test]
fn what_the_runtime_has_lost_is_fetched_again() {
    let (folder, runtime, app, stored) = handed_over();
    let store = &folder.store;
    runtime.lose(&layer());
    assert!(matches!(store.open_blob(&layer()), Err(StoreError::Lost { .. })));
    assert_eq!(store.check_blob(&layer()).unwrap(), BlobState::Absent);
    store.lost([&layer()]).unwrap();
    assert!(!store.is_complete(&stored).unwrap());
    assert!(store.handed_over().unwrap().is_empty());
    let lease = store.lease(&app.key).unwrap();
    lease.protect(&app.digests()).unwrap();
    assert!(fetch_blob(&lease, LAYER));
    lease.commit(app.new_image(Claim::None)).unwrap();
    assert!(store.is_complete(&stored).unwrap());
    assert_eq!(store.read_blob(&layer(), 100).unwrap(), LAYER);
}

#[test]
fn a_pull_learns_by_itself_that_the_runtime_has_lost_a_layer() {
    let (folder, runtime, app, _) = handed_over();
    runtime.lose(&layer());
    let lease = folder.store.lease(&app.key).unwrap();
    lease.protect(&app.digests()).unwrap();
    assert!(!folder.store.find_layer(&lease, &layer(), LAYER.len() as u64).unwrap());
    assert!(fetch_blob(&lease, LAYER));
}

#[test]
fn a_layer_that_the_runtime_had_before_is_not_fetched() {
    let (folder, runtime) = folder().with_runtime();
    runtime.put(LAYER);
    let app = image("app", &[LAYER]);
    let lease = folder.store.lease(&app.key).unwrap();
    let unprotected = folder.store.adopt(&lease, &layer(), LAYER.len() as u64);
    assert!(matches!(unprotected, Err(StoreError::NotProtected { .. })));
    lease.protect([&layer()]).unwrap();
    assert!(!folder.store.adopt(&lease, &layer(), 5).unwrap(), "a descriptor that lies about its size");
    let stored = app.put(&folder.store);
    assert!(folder.store.is_complete(&stored).unwrap());
    assert!(!folder.store.blob_path(&layer()).exists());
    assert_eq!(folder.store.read_blob(&layer(), 100).unwrap(), LAYER);
    assert!(
        folder.blobs().is_superset(&[Digest::sha256(&app.manifest), Digest::sha256(&app.blobs[0])].into())
    );
}

#[test]
fn markers_that_nothing_needs_are_collected() {
    let (folder, _runtime, app, stored) = handed_over();
    let hold = folder.store.hold(&stored).unwrap();
    assert!(folder.store.remove(&app.key).unwrap());
    assert_eq!(folder.collect_all().handed_over, []);
    assert_eq!(folder.store.read_blob(&layer(), 100).unwrap(), LAYER);
    drop(hold);
    let collected = folder.collect_all();
    assert_eq!(collected.handed_over, [layer()]);
    assert_eq!(collected.blobs.len(), 2);
    assert_eq!(folder.store.blob_size(&layer()).unwrap(), None);
    assert!(folder.markers().is_empty());
}

#[test]
fn a_file_beside_its_marker_is_what_counts_until_it_is_handed_over_again() {
    let (folder, runtime, _app, stored) = handed_over();
    // What a kill leaves between the two steps.
    fs::write(folder.store.blob_path(&layer()), LAYER).unwrap();
    runtime.lose(&layer());
    assert_eq!(folder.store.check_blob(&layer()).unwrap(), BlobState::Intact);
    assert!(folder.store.handed_over().unwrap().is_empty());
    assert_eq!(folder.store.inventory().unwrap().blobs.len(), 3);
    folder.store.lost([&layer()]).unwrap();
    assert!(folder.store.is_complete(&stored).unwrap());
    assert_eq!(runtime.take(&folder.store, LAYER), LAYER.len() as u64);
    assert!(folder.store.is_complete(&stored).unwrap());
}

#[test]
fn a_marker_that_makes_no_sense_is_none() {
    let (folder, _runtime, _app, stored) = handed_over();
    for text in ["", "many", "-1", "9999999999999999999999"] {
        fs::write(folder.root().join(".larder/elsewhere/sha256").join(layer().hex()), text).unwrap();
        assert_eq!(folder.store.blob_size(&layer()).unwrap(), None, "{text}");
        assert!(!folder.store.is_complete(&stored).unwrap());
    }
}

#[test]
fn damage_in_the_runtime_is_found_and_not_passed_over() {
    let (folder, runtime, _app, _stored) = handed_over();
    let other = vec![7; LAYER.len()];
    fs::rename(
        folder.dir.path().join("runtime").join(runtime.put(&other).hex()),
        folder.dir.path().join("runtime").join(layer().hex()),
    )
    .unwrap();
    assert_eq!(folder.store.check_blob(&layer()).unwrap(), BlobState::Damaged);
    assert_eq!(category(folder.store.read_blob(&layer(), 100).map(drop)), Category::Store);
    let error = folder.store.discard_damaged(&layer()).unwrap_err().to_string();
    assert!(error.contains("container runtime"), "{error}");
}

#[test]
fn whoever_brings_the_bytes_keeps_them_unless_they_can_be_read_there() {
    let (folder, runtime, app, _stored) = handed_over();
    let without = Store::open(folder.root()).unwrap();
    let size = LAYER.len() as u64;
    for (store, readable) in [(&folder.store, true), (&without, false)] {
        let lease = store.lease(&key("loaded")).unwrap();
        lease.protect(&app.digests()).unwrap();
        assert_eq!(store.is_readable(&layer(), size).unwrap(), readable);
        assert!(matches!(lease.ingest(&layer(), size).unwrap(), Ingest::Present));
        assert_eq!(matches!(lease.ingest_readable(&layer(), size).unwrap(), Ingest::Present), readable);
        let mut spool = lease.spool(Algorithm::Sha256).unwrap();
        spool.write(LAYER).unwrap();
        spool.finish().unwrap();
        assert_eq!(store.blob_path(&layer()).exists(), !readable);
        lease.release();
    }
    runtime.lose(&layer());
    assert_eq!(without.read_blob(&layer(), 100).unwrap(), LAYER);
}

#[test]
fn layers_of_a_longer_algorithm_are_handed_over_too() {
    let (folder, runtime) = folder().with_runtime();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(LAYER);
    let digest = hasher.finish();
    let lease = folder.store.lease(&key("app")).unwrap();
    lease.protect([&digest]).unwrap();
    let mut blob = writer(&lease, &digest, LAYER.len());
    blob.write(LAYER).unwrap();
    blob.finish().unwrap();
    assert_eq!(folder.store.hand_over([&digest]).unwrap(), LAYER.len() as u64);
    assert_eq!(folder.store.blob_size(&digest).unwrap(), Some(LAYER.len() as u64));
    drop(runtime);
}

#[test]
fn a_manifest_that_was_handed_over_by_mistake_costs_no_other_blob() {
    let (folder, runtime, app, stored) = handed_over();
    runtime.take(&folder.store, &app.manifest);
    assert_eq!(folder.collect_all().blobs, []);
    assert!(folder.store.is_complete(&stored).unwrap());
    // Without a way to read it, it is not known what it needs.
    let collected =
        Store::open(folder.root()).unwrap().collect(&larder_store::CollectOptions::default()).unwrap();
    assert_eq!((collected.blobs.len(), collected.handed_over.len()), (0, 0));
    assert!(!collected.warnings.is_empty());
}
