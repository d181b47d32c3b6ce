//! Archives that nobody should have made: one clear error each, and a store as it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::io::Write;

use common::{Image, Tar, blob_path, folder, image, index};
use larder_archive::ArchiveError;
use larder_oci::Digest;
use proptest::prelude::*;
use serde_json::json;
use tar::EntryType;

/// Loads it into a store that holds another image; the error must contain `why`, and nothing may have changed.
#[track_caller]
fn refused(archive: impl Into<Vec<u8>>, why: &str) {
    let folder = folder();
    folder.put(&image(&[b"kept"]), "kept:1");
    let (blobs, images) = (folder.blobs(), folder.store.images().unwrap());
    let error = folder.load(archive).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    assert!(error.len() < 600 && !error.contains('\n'), "{error}");
    assert_eq!(folder.store.images().unwrap(), images);
    folder.assert_clean(&blobs);
}

fn whole() -> (Image, Tar) {
    let image = image(&[b"lower layer", b"upper layer"]);
    let tar = image.oci("app:v1");
    (image, tar)
}

#[test]
fn names_that_lead_out() {
    for name in ["../../etc/cron.d/x", "/etc/cron.d/x", "blobs/../../x", ".."] {
        let (_, mut tar) = whole();
        tar.file(name, b"x");
        refused(tar.finish(), "leads out of it");
    }
    for (kind, target) in [
        (EntryType::Symlink, "/etc/shadow"),
        (EntryType::Symlink, "../../etc/shadow"),
        (EntryType::Link, "/etc/shadow"),
        (EntryType::Link, "../x"),
    ] {
        let (_, mut tar) = whole();
        tar.link("a/layer.tar", kind, target);
        refused(tar.finish(), "leads out of it");
    }
}

#[test]
fn kinds_of_entries_that_no_archive_has() {
    for (kind, what) in [
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a named pipe"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::new(b'Z'), "unknown type 'Z'"),
    ] {
        let (_, mut tar) = whole();
        tar.link("x", kind, "");
        refused(tar.finish(), what);
    }
}

#[test]
fn links_in_the_place_of_blobs_and_documents() {
    let (image, _) = whole();
    for name in [blob_path(&image.blobs[1]).as_str(), "index.json", "manifest.json", "oci-layout"] {
        let mut tar = Tar::default();
        tar.link(name, EntryType::Symlink, "x");
        refused(tar.finish(), "is a link where a file is expected");
    }
}

#[test]
fn links_in_a_circle() {
    let image = image(&[b"layer"]);
    let config = "c.json";
    let mut tar = Tar::default();
    tar.file(config, &image.blobs[0]);
    tar.link("a/layer.tar", EntryType::Symlink, "../b/layer.tar");
    tar.link("b/layer.tar", EntryType::Symlink, "../a/layer.tar");
    let manifest = json!([{"Config": config, "RepoTags": ["a:1"], "Layers": ["a/layer.tar"]}]);
    tar.file("manifest.json", manifest.to_string().as_bytes());
    refused(tar.finish(), "which is not in it");
}

#[test]
fn the_same_name_twice() {
    for name in ["index.json", "x.tar"] {
        let (_, mut tar) = whole();
        tar.file(name, b"{}");
        tar.file(name, b"{}");
        refused(tar.finish(), "twice");
    }
}

#[test]
fn blobs_that_are_not_what_their_names_say() {
    let (image, mut tar) = whole();
    let other = Digest::sha256(b"other");
    tar.file(&format!("blobs/sha256/{}", other.hex()), b"not that");
    refused(tar.finish(), "expected sha256");
    // The same for a docker archive: the configuration says what its layers are.
    let mut docker = Tar::default();
    docker.file("c.json", &image.blobs[0]);
    docker.file("0.tar", b"lower layer");
    docker.file("1.tar", b"something else");
    let manifest = json!([{"Config": "c.json", "RepoTags": null, "Layers": ["0.tar", "1.tar"]}]);
    docker.file("manifest.json", manifest.to_string().as_bytes());
    refused(docker.finish(), "the image's configuration says");
}

#[test]
fn descriptors_that_lie_about_sizes() {
    let image = image(&[b"layer"]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0]["size"] = json!(1_u64 << 60);
    let lying = Image { manifest: manifest.to_string().into_bytes(), ..image.clone() };
    refused(lying.oci("a:1").finish(), "its descriptor says 1152921504606846976");

    let mut descriptor = image.descriptor(Some("a:1"));
    descriptor["size"] = json!(3);
    let mut tar = Tar::default();
    tar.file("index.json", index(&[descriptor]).as_bytes());
    image.blob_entries().iter().for_each(|(path, bytes)| tar.file(path, bytes));
    refused(tar.finish(), "its descriptor says 3");
}

#[test]
fn sizes_in_headers_that_lie() {
    let (_, mut tar) = whole();
    tar.entry("x", EntryType::Regular, "", u64::MAX >> 1, b"little");
    refused(tar.finish(), "truncated");
    for (kind, what) in [(EntryType::GNULongName, "extended header"), (EntryType::XHeader, "extended header")]
    {
        let mut tar = Tar::default();
        tar.entry("x", kind, "", 1 << 40, b"little");
        refused(tar.finish(), what);
    }
}

#[test]
fn parts_that_are_missing() {
    let image = image(&[b"lower", b"upper"]);
    for missing in 0..3 {
        let mut tar = Tar::default();
        tar.file("index.json", index(&[image.descriptor(Some("app:v1"))]).as_bytes());
        for (at, (path, bytes)) in image.blob_entries().iter().enumerate() {
            if at != missing {
                tar.file(path, bytes);
            }
        }
        refused(tar.finish(), "app:v1: blob");
    }
    refused(image.docker(&json!(null)).0[512 * 2..].to_vec(), "which is not in it");
}

#[test]
fn documents_of_any_depth_and_size() {
    for name in ["index.json", "manifest.json"] {
        for content in
            ["[".repeat(1 << 20), "{\"manifests\":".repeat(5000), "\u{1b}[31m".to_owned(), String::new()]
        {
            let mut tar = Tar::default();
            tar.file(name, content.as_bytes());
            refused(tar.finish(), "is malformed");
        }
        let mut tar = Tar::default();
        tar.file(name, &vec![b' '; (16 << 20) + 1]);
        refused(tar.finish(), "larger than");
    }
    let huge = vec![b' '; (4 << 20) + 1];
    let descriptor = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": Digest::sha256(&huge), "size": huge.len()});
    let mut tar = Tar::default();
    tar.file("index.json", index(&[descriptor]).as_bytes());
    tar.file(&blob_path(&huge), &huge);
    refused(tar.finish(), "more than");
}

#[test]
fn indexes_within_indexes() {
    let mut inner = image(&[b"layer"]).descriptor(None);
    let mut tar = Tar::default();
    for _ in 0..6 {
        let bytes = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [inner]})
        .to_string();
        tar.file(&blob_path(bytes.as_bytes()), bytes.as_bytes());
        inner = json!({"mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": Digest::sha256(bytes.as_bytes()), "size": bytes.len()});
    }
    tar.file("index.json", index(&[inner]).as_bytes());
    refused(tar.finish(), "indexes within indexes");
}

#[test]
fn too_many_entries() {
    let mut tar = Tar::default();
    (0..65_537).for_each(|number| tar.file(&format!("{number}/json"), b""));
    refused(tar.finish(), "more than 65536 entries");
}

#[test]
fn names_of_images_that_are_none() {
    let image = image(&[b"layer"]);
    refused(image.docker(&json!(["Not A Name"])).finish(), "cannot be used");
    refused(image.docker(&json!(["\u{1b}[2Jx:1", "a:1"])).finish(), "cannot be used");
    // The layout's specification does not say that its names are images' names: such a one is none.
    let folder = folder();
    let loaded = folder.load(image.oci("<none>:<none>").finish()).unwrap();
    assert!(loaded[0].key.name.is_nameless());
    let pinned = format!("app@{}", Digest::sha256(b"another"));
    refused(image.oci(&pinned).finish(), "named by the digest");
}

#[test]
fn what_is_no_archive() {
    refused(b"".to_vec(), "not an image archive");
    refused(b"hello".to_vec(), "not an image archive");
    refused(vec![b'x'; 5000], "not an image archive");
    refused(vec![0; 10_240], "neither an index.json");
    let mut layout = Tar::default();
    layout.file("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#);
    refused(layout.finish(), "only 1.0.0 is known");
}

#[test]
fn bombs() {
    // Of the kind that a few kilobytes unpack to: a layer of zeros, three gigabytes of them.
    let mut tar = Tar::default();
    let size = 3_u64 << 30;
    tar.entry("layer.tar", EntryType::Regular, "", size, b"");
    let zeros = vec![0; 1 << 20];
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&tar.0).unwrap();
    (0..size >> 20).for_each(|_| encoder.write_all(&zeros).unwrap());
    refused(encoder.finish().unwrap(), "decompression bomb");
}

#[test]
fn windows_that_take_gigabytes_to_decompress() {
    // A zstd frame header that asks for a window of 2 GiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
    frame.extend([0; 600]);
    refused(frame, "cannot read the archive");
}

#[test]
fn an_archive_cut_anywhere_names_nothing() {
    let (_, tar) = whole();
    let bytes = tar.finish();
    let end = bytes.len() - 1024;
    for length in (0..end).step_by(97) {
        refused(bytes[..length].to_vec(), "");
    }
}

#[test]
fn an_interrupted_load_leaves_nothing() {
    let folder = folder();
    let (_, tar) = whole();
    let source = larder_archive::Source::Stream(Box::new(std::io::Cursor::new(tar.finish())));
    let asked = std::sync::atomic::AtomicU32::new(0);
    let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 2;
    let result = larder_archive::load(&folder.store, source, &larder_archive::LoadOptions::default(), &stop);
    assert!(matches!(result, Err(ArchiveError::Interrupted)));
    folder.assert_clean(&std::collections::BTreeSet::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Any byte changed: either it does not matter, or it is an error; never a panic, never a wrong blob.
    #[test]
    fn a_changed_byte(at in 0..12_000_usize, value in any::<u8>(), docker in any::<bool>()) {
        let image = image(&[b"lower layer", b"upper layer"]);
        let tar = if docker { image.docker(&json!(["app:v1"])) } else { image.oci("app:v1") };
        let mut bytes = tar.finish();
        let at = at % bytes.len();
        bytes[at] = value;
        let folder = folder();
        if folder.load(bytes).is_err() {
            folder.assert_clean(&std::collections::BTreeSet::new());
        } else {
            for stored in folder.store.images().unwrap() {
                for digest in folder.store.image_blobs(&stored).unwrap().keys() {
                    prop_assert_eq!(folder.store.check_blob(digest).unwrap(), larder_store::BlobState::Intact);
                }
            }
        }
    }
}
