//! The images of operator and agent, in containerd.

use larder_oci::Digest;
use larder_tests::larder::images;

use crate::containerd::Containerd;
use crate::fixture::{Shop, text};

#[test]
fn containerd_imports_and_unpacks_our_own_images() {
    let containerd = Containerd::start("containerd-own");
    let shop = Shop::new("archive-own");
    let made = images(shop.scratch.path(), "registry.corp/larder", "v1").unwrap();
    let mut names = Vec::new();
    for image in &made {
        shop.load(&image.archive);
        containerd.ctr(&["images", "import", text(&image.archive)]);
        names.push(image.name.clone());
    }
    names.sort();
    let found = containerd.images();
    assert!(found.keys().eq(&names), "{found:?}");
    let loaded: Vec<(String, String)> =
        shop.images().into_iter().map(|((name, _), digest)| (name, digest)).collect();
    assert!(found.iter().eq(loaded.iter().map(|(name, digest)| (name, digest))), "{found:?} {loaded:?}");
    // The base is in both images, and unpacked once.
    let snapshots = containerd.table(&["snapshots", "ls"]);
    assert_eq!(snapshots.len(), 4, "{snapshots:?}");
    assert!(snapshots.iter().all(|row| row.last().unwrap() == "Committed"), "{snapshots:?}");

    // Each snapshot of this snapshotter is a whole root: the programs are what cargo has built, less what is stripped.
    let folder = containerd.scratch.path().join("root/io.containerd.snapshotter.v1.native/snapshots");
    let mut programs = std::collections::BTreeSet::new();
    for snapshot in std::fs::read_dir(folder).unwrap() {
        let snapshot = snapshot.unwrap().path();
        assert!(snapshot.join("etc/passwd").is_file());
        for program in ["larder-operator", "larder-agent", "larder"] {
            if let Ok(bytes) = std::fs::read(snapshot.join("usr/bin").join(program)) {
                assert!(bytes.starts_with(b"\x7fELF"), "{program}");
                programs.insert((program, Digest::sha256(&bytes)));
            }
        }
    }
    assert_eq!(programs.len(), 3, "{programs:?}");
    containerd.empty();
    containerd.stop();
}
