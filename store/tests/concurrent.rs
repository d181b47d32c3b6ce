//! Many users of one store at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::{
    fs::File,
    io,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use common::{fetch_blob, folder, image, key};
use larder_oci::Digest;
use larder_store::{BlobState, Claim, CollectOptions, Store};

#[test]
fn of_several_that_want_one_blob_one_fetches_it() {
    let folder = folder();
    // Many small ones, so that one is often finished just when another looks for it.
    let blobs: Vec<Vec<u8>> = (0..300_u32).map(|number| number.to_le_bytes().repeat(50)).collect();
    let digests: Vec<Digest> = blobs.iter().map(|bytes| Digest::sha256(bytes)).collect();
    let fetched = AtomicUsize::new(0);
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for number in 0..4 {
            let (folder, blobs, digests, fetched, start) = (&folder, &blobs, &digests, &fetched, &start);
            scope.spawn(move || {
                let lease = folder.store.lease(&key(&format!("app{number}"))).unwrap();
                lease.protect(digests).unwrap();
                start.wait();
                for bytes in blobs {
                    fetched.fetch_add(usize::from(fetch_blob(&lease, bytes)), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(fetched.into_inner(), blobs.len());
    assert_eq!((folder.blobs().len(), folder.partials()), (blobs.len(), 0));
}

/// Holds the store's lock as another process would, and lets `call` run against it.
fn waits<T>(store: &Store, lock: fn(&File) -> io::Result<()>, call: impl FnOnce() -> T + Send) -> bool {
    let file = File::open(store.root().join(".larder/lock")).unwrap();
    lock(&file).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(call());
            done.store(true, Ordering::SeqCst);
        });
        // Too short a time can hide that a call does not wait, and never makes one that waits look otherwise.
        thread::sleep(Duration::from_millis(100));
        let waits = !done.load(Ordering::SeqCst);
        file.unlock().unwrap();
        waits
    })
}

#[test]
fn what_a_collection_must_not_miss_waits_for_it() {
    let folder = folder();
    let store = &folder.store;
    let app = image("app", &[b"layer"]);
    let lease = store.lease(&app.key).unwrap();
    app.fetch(store, &lease);
    let digest = Digest::sha256(b"another");
    let collecting = File::lock;
    assert!(waits(store, collecting, || store.lease(&key("other")).unwrap()));
    assert!(waits(store, collecting, || lease.protect([&digest]).unwrap()));
    assert!(waits(store, collecting, || lease.commit(app.new_image(Claim::None)).unwrap()));
    assert!(waits(store, collecting, || store.hand_over([&digest]).unwrap()));
    let protecting = File::lock_shared;
    assert!(waits(store, protecting, || store.lost([&digest]).unwrap()));
    assert!(waits(store, protecting, || store.collect(&CollectOptions::default()).unwrap()));
    assert!(waits(store, protecting, || store
        .set_claim(std::slice::from_ref(&app.key), Claim::Retain)
        .unwrap()));
    assert!(waits(store, protecting, || store.forget(&app.key).unwrap()));
    assert!(waits(store, protecting, || store.remove(&app.key).unwrap()));
}

#[test]
fn readers_and_writers_of_protected_blobs_wait_for_nobody() {
    let folder = folder();
    let app = image("app", &[b"layer"]);
    let stored = app.put(&folder.store);
    let lease = folder.store.lease(&key("other")).unwrap();
    lease.protect([&Digest::sha256(b"another")]).unwrap();
    let lock = File::open(folder.root().join(".larder/lock")).unwrap();
    lock.lock().unwrap();
    // Each of these would hang.
    assert_eq!(folder.store.images().unwrap(), std::slice::from_ref(&stored));
    assert!(folder.store.is_complete(&stored).unwrap());
    assert!(fetch_blob(&lease, b"another"));
    assert!(Store::open(folder.root()).is_ok());
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

/// Layers go to a runtime while they are pulled, read and collected, by several processes: an image that is kept can be
/// read from its first byte to its last at any instant.
#[test]
fn handing_over_takes_nothing_from_those_who_read_and_collect() {
    let (folder, runtime) = folder().with_runtime();
    let stop = AtomicBool::new(false);
    let freed = AtomicU64::new(0);
    let open = || Store::open(folder.root()).unwrap().with_annex(Arc::new(runtime.clone()));
    let layers: Vec<Vec<u8>> = (0..6_u8).map(|number| vec![number; 3000]).collect();
    thread::scope(|scope| {
        let pullers: Vec<_> = (0..2_usize)
            .map(|number| {
                let (store, layers) = (open(), &layers);
                scope.spawn(move || {
                    for round in 0..25_usize {
                        let own = format!("layer {number} {round}").into_bytes();
                        let app = image(&format!("app{number}"), &[&layers[round % 6], &own]);
                        let stored = app.put(&store);
                        let hold = store.hold(&stored).unwrap();
                        assert!(store.is_complete(&stored).unwrap(), "round {round} of {number}");
                        for digest in app.digests() {
                            assert_eq!(
                                store.check_blob(&digest).unwrap(),
                                BlobState::Intact,
                                "round {round} of {number}"
                            );
                        }
                        drop(hold);
                        if round % 3 == 0 {
                            assert!(store.remove(&app.key).unwrap());
                        }
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let store = open();
                while !stop.load(Ordering::Relaxed) {
                    for bytes in &layers {
                        freed.fetch_add(runtime.take(&store, bytes), Ordering::Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| {
            let store = open();
            while !stop.load(Ordering::Relaxed) {
                let options = CollectOptions { dead_lease_age: Duration::ZERO };
                assert_eq!(store.collect(&options).unwrap().warnings, Vec::<String>::new());
            }
        });
        let results: Vec<_> = pullers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    for image in folder.store.images().unwrap() {
        assert!(folder.store.is_complete(&image).unwrap());
        folder.store.remove(&image.key).unwrap();
    }
    folder.collect_all();
    assert_eq!(
        (folder.blobs().len(), folder.markers().len(), folder.partials(), folder.leases()),
        (0, 0, 0, 0)
    );
    assert_eq!(std::fs::read_dir(folder.root().join(".larder/trash")).unwrap().count(), 0);
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
