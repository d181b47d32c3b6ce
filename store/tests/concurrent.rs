//! Many users of one store at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use common::{fetch_blob, folder, image, key};
use larder_oci::Digest;
use larder_store::{Claim, CollectOptions, Store};

#[test]
fn of_two_that_want_one_blob_one_fetches_it() {
    let folder = folder();
    let bytes = vec![7; 4 << 20];
    let fetched = AtomicUsize::new(0);
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for number in 0..4 {
            let (folder, bytes, fetched, start) = (&folder, &bytes, &fetched, &start);
            scope.spawn(move || {
                let lease = folder.store.lease(&key(&format!("app{number}"))).unwrap();
                lease.protect([&Digest::sha256(bytes)]).unwrap();
                start.wait();
                fetched.fetch_add(usize::from(fetch_blob(&lease, bytes)), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(fetched.into_inner(), 1);
    assert_eq!(folder.blobs().len(), 1);
}

/// Pullers that share layers and take their images away again, a collector that tolerates nothing, readers, and one
/// who changes claims: an image is whole from its commit to its removal.
#[test]
fn collection_takes_nothing_from_pulls_that_go_on_meanwhile() {
    let folder = folder();
    let stop = AtomicBool::new(false);
    let collections = AtomicUsize::new(0);
    let collect = |store: &Store| {
        let options = CollectOptions { dead_lease_age: Duration::ZERO };
        let collected = store.collect(&options).unwrap();
        assert_eq!(collected.warnings, Vec::<String>::new());
        collections.fetch_add(1, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        let pullers: Vec<_> = (0..3_usize)
            .map(|number| {
                let store = Store::open(folder.root()).unwrap();
                scope.spawn(move || {
                    for round in 0..25_usize {
                        let shared = vec![u8::try_from(round % 3).unwrap(); 2000];
                        let own = format!("layer {number} {round}").into_bytes();
                        let app = image(&format!("app{number}"), &[&shared, &own]);
                        let stored = app.put(&store);
                        assert!(store.is_complete(&stored).unwrap(), "round {round} of {number}");
                        if round % 2 == 0 {
                            let hold = store.hold(&stored).unwrap();
                            assert!(store.remove(&app.key).unwrap());
                            assert!(store.is_complete(&stored).unwrap(), "held, round {round} of {number}");
                            drop(hold);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                collect(&folder.store);
                for image in folder.store.images().unwrap() {
                    folder.store.set_claim(&[image.key], Claim::Delete).unwrap();
                }
            }
        });
        let results: Vec<_> = pullers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    assert!(collections.load(Ordering::Relaxed) > 0);
    for image in folder.store.images().unwrap() {
        assert!(folder.store.is_complete(&image).unwrap());
        folder.store.remove(&image.key).unwrap();
    }
    collect(&folder.store);
    assert_eq!((folder.blobs().len(), folder.partials(), folder.leases()), (0, 0, 0));
}

#[test]
fn many_open_one_new_folder_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for number in 0..8 {
            let (root, start) = (&root, &start);
            scope.spawn(move || {
                start.wait();
                let store = Store::open(root).unwrap();
                image(&format!("app{number}"), &[b"layer"]).put(&store);
            });
        }
    });
    assert_eq!(Store::open(&root).unwrap().images().unwrap().len(), 8);
}
