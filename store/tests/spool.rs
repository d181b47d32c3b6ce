//! Blobs whose digests are known only at their ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use common::{Folder, folder, key};
use larder_oci::{Digest, digest::Algorithm};

fn names(folder: &Folder) -> usize {
    std::fs::read_dir(folder.root().join(".larder/partial/sha256")).unwrap().count()
}

#[test]
fn content_gets_the_name_of_its_digest_and_the_lease_keeps_it() {
    let folder = folder();
    let lease = folder.store.lease(&key("a:1")).unwrap();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut spool = lease.spool(algorithm).unwrap();
        spool.write(b"some ").unwrap();
        spool.write(b"bytes").unwrap();
        // A collection leaves what is being written, and then what the lease protects.
        folder.collect_all();
        let (digest, size) = spool.finish().unwrap();
        assert!(digest.matches(b"some bytes") && digest.algorithm() == algorithm && size == 10);
        assert_eq!(folder.collect_all().blobs, []);
        assert_eq!(folder.store.read_blob(&digest, 100).unwrap(), b"some bytes");
    }
    lease.release();
    assert_eq!(folder.collect_all().blobs.len(), 2);
}

#[test]
fn what_is_there_already_stays_and_what_is_damaged_is_mended() {
    let folder = folder();
    let lease = folder.store.lease(&key("a:1")).unwrap();
    let write = || {
        let mut spool = lease.spool(Algorithm::Sha256).unwrap();
        spool.write(b"content").unwrap();
        spool.finish().unwrap().0
    };
    let digest = write();
    assert_eq!(write(), digest);
    assert_eq!(names(&folder), 0, "no second copy is left");
    std::fs::write(folder.store.blob_path(&digest), b"cut").unwrap();
    write();
    assert_eq!(folder.store.read_blob(&digest, 100).unwrap(), b"content");
}

#[test]
fn dropped_or_killed_it_leaves_nothing() {
    let folder = folder();
    let lease = folder.store.lease(&key("a:1")).unwrap();
    let mut spool = lease.spool(Algorithm::Sha256).unwrap();
    spool.write(b"half").unwrap();
    drop(spool);
    assert_eq!(names(&folder), 0);
    // As a kill leaves it: the file, which nobody has locked.
    std::fs::write(folder.root().join(".larder/partial/sha256/spool.0123456789abcdef"), b"half").unwrap();
    folder.collect_all();
    assert_eq!(names(&folder), 0);
    assert!(!folder.store.blob_path(&Digest::sha256(b"half")).exists());
}
