//! Archives and layouts out of other projects' test data: each loads, or fails with one clear error.

use std::path::{Path, PathBuf};

use larder_tests::testdata;

use crate::fixture::{Shop, text};

/// What must not load, and why. Layers and other tars are among them, which are no images.
const REFUSED: &[(&str, &str)] = &[
    ("trivy/pkg/fanal/test/testdata/test_bad_index_json.oci", "index.json is malformed"),
    (
        "trivy/pkg/fanal/test/testdata/test_index_json_dir.oci/test_bad_index_json.oci",
        "index.json is malformed",
    ),
    ("trivy/pkg/fanal/test/testdata/test_index_json_dir.oci", "no images found"),
    ("trivy/pkg/fanal/test/testdata/test_no_valid_manifests.oci", "lists no image"),
    ("trivy/pkg/fanal/test/testdata/test_invalid_oci_image.oci", "lists no image"),
    ("go-containerregistry/pkg/v1/layout/testdata/test_gc_image_unknown_mediatype", "lists no image"),
    ("go-containerregistry/pkg/v1/tarball/testdata/null_manifest.tar", "lists no image"),
    ("go-containerregistry/pkg/v1/tarball/testdata/no_manifest.tar", "no images found"),
    ("go-containerregistry/pkg/v1/tarball/testdata/content.tar", "no images found"),
    ("go-containerregistry/pkg/crane/testdata/content.tar", "no images found"),
    ("regclient/testdata/layer.tar", "no images found"),
    ("regclient/testdata/layer-wh.tar", "no images found"),
];

/// Folders with tars that have nothing to do with images.
const OTHER: [&str; 6] = ["/helm/", "/walker/", "/utils/", "/db/", "/policy/", "/pkg/oci/"];

#[test]
fn everything_found_loads_or_fails_with_one_clear_error() {
    let (mut images, mut refused) = (0, 0);
    for (module, root) in testdata::folders().unwrap() {
        let mut found = Vec::new();
        find(&root, &mut found);
        for path in found {
            let short = format!(
                "{}/{}",
                module.rsplit('/').next().unwrap(),
                path.strip_prefix(&root).unwrap().display()
            );
            if OTHER.iter().any(|other| short.contains(other)) {
                continue;
            }
            let shop = Shop::new("archive-others");
            let ran = shop.try_larder(&["load", "--input", text(&path)], b"");
            if let Some((_, why)) = REFUSED.iter().find(|(name, _)| *name == short) {
                assert_eq!(ran.status.code(), Some(1), "{short}");
                assert!(
                    ran.stderr.contains(why) && ran.stderr.lines().count() == 1,
                    "{short}: {}",
                    ran.stderr
                );
                refused += 1;
            } else {
                assert!(ran.status.success(), "{short}: {}", ran.stderr);
                images += round_trip(&shop, &short);
            }
            shop.assert_clean();
        }
    }
    assert_eq!(refused, REFUSED.len(), "a case has gone from the test data");
    assert!(images >= 60, "only {images} images were found");
}

/// Saves all images and loads them elsewhere: every digest is what it was.
fn round_trip(shop: &Shop, what: &str) -> usize {
    let images = shop.images();
    assert!(!images.is_empty(), "{what}");
    let names: Vec<&str> = images.keys().map(|(name, _)| name.as_str()).collect();
    let archive = shop.path("again.tar.zst");
    shop.larder(&[&["save", "--output", text(&archive)], &names[..]].concat());
    let other = Shop::new("archive-again");
    other.load(&archive);
    assert_eq!(other.images(), images, "{what}");
    other.assert_clean();
    images.len()
}

/// Tars, compressed or not, and layouts.
fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if path.join("oci-layout").is_file() {
                found.push(path.clone());
            }
            find(&path, found);
        } else if [".tar", ".tar.gz", ".tgz"].iter().any(|extension| name.ends_with(extension)) {
            found.push(path);
        }
    }
}
