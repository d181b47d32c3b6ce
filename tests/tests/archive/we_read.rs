//! What others write, we read.

use std::path::Path;

use larder_tests::{Registry, RegistryOptions, tools::Tool};

use crate::fixture::{Shop, debian, go_tool, image, text};

fn only_digest(shop: &Shop) -> String {
    let images = shop.images();
    assert_eq!(images.len(), 1, "{images:?}");
    images.into_values().next().unwrap()
}

/// Loads it into a store of its own; returns what larder said, and the digest that the image has there.
fn loaded(path: &Path) -> (String, String) {
    let shop = Shop::new("archive-load");
    let said = shop.load(path);
    shop.assert_clean();
    (said, only_digest(&shop))
}

#[test]
fn skopeos_archives_in_every_compression_also_from_a_pipe() {
    let shop = Shop::new("archive-from-skopeo");
    let image = image(3, false);
    let layout = shop.scratch.folder("layout").unwrap();
    image.write_layout(&layout, "v1").unwrap();
    let source = format!("oci:{}:v1", layout.display());
    let mut digests = std::collections::BTreeSet::new();
    for (kind, name) in [("docker-archive", "app:v1"), ("oci-archive", "docker.io/library/app:v1")] {
        let path = shop.path(&format!("{kind}.tar"));
        debian("skopeo", &["copy", &source, &format!("{kind}:{}:{name}", path.display())]);
        let (said, digest) = loaded(&path);
        assert_eq!(said, "Loaded image: app:v1\n", "{kind}");
        if kind == "oci-archive" {
            assert_eq!(digest, image.digest().as_str());
        } else {
            digests.insert(digest);
        }
        for program in ["gzip", "bzip2", "xz", "zstd"] {
            // The one of these whose package is not named as it is; larder-archive's own tests read xz in any case.
            if program == "xz" && larder_tests::tools::in_path(program).is_err() {
                continue;
            }
            let packed = shop.path(&format!("{kind}.{program}"));
            debian("sh", &["-ec", &format!("{program} -c {} > {}", path.display(), packed.display())]);
            let piped = Shop::new("archive-pipe");
            let ran = piped.try_larder(&["load"], &std::fs::read(&packed).unwrap()).ok().unwrap();
            assert_eq!(ran.stdout, "Loaded image: app:v1\n", "{kind} {program}");
            piped.assert_clean();
            if kind == "docker-archive" {
                digests.insert(only_digest(&piped));
            }
        }
    }
    assert_eq!(digests.len(), 1, "one archive gives one manifest: {digests:?}");
}

#[test]
fn archives_of_crane_regctl_and_oras() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    for docker in [false, true] {
        let shop = Shop::new("archive-from-go");
        let home = shop.scratch.folder("home").unwrap();
        let image = image(4, docker);
        let pushed = registry.push(&image, if docker { "docker" } else { "oci" }, "v1").unwrap();
        let layout = shop.scratch.folder("layout").unwrap();
        image.write_layout(&layout, "v1").unwrap();
        let ocidir = format!("ocidir://{}:v1", layout.display());

        let crane = |format: &str, to: &Path| {
            go_tool(Tool::Crane, &["pull", "--format", format, &pushed.name, text(to)], &home);
        };
        for format in ["tarball", "legacy"] {
            let path = shop.path(&format!("crane-{format}.tar"));
            crane(format, &path);
            assert_eq!(loaded(&path).0, format!("Loaded image: {}\n", pushed.name), "{format}");
        }
        let folder = shop.path("crane-oci");
        crane("oci", &folder);
        assert_eq!(loaded(&folder).1, image.digest().as_str());

        let path = shop.path("regctl.tar");
        go_tool(Tool::Regctl, &["image", "export", &ocidir, text(&path)], &home);
        assert_eq!(loaded(&path).1, image.digest().as_str());

        let folder = shop.path("oras");
        let target = format!("{}:v1", folder.display());
        let source = format!("{}:v1", layout.display());
        go_tool(Tool::Oras, &["copy", "--from-oci-layout", &source, "--to-oci-layout", &target], &home);
        assert_eq!(loaded(&folder).1, image.digest().as_str());
    }
}

#[test]
fn a_layout_that_umoci_has_changed() {
    let shop = Shop::new("archive-from-umoci");
    let layout = shop.scratch.folder("layout").unwrap();
    image(5, false).write_layout(&layout, "v1").unwrap();
    let name = format!("{}:v1", layout.display());
    debian("umoci", &["config", "--image", &name, "--tag", "v2", "--config.env", "MORE=yes"]);
    // Bare tags say nothing of the repository: both images come without a name.
    assert_eq!(shop.load(&layout).matches("Loaded image ID: sha256:").count(), 2);
    assert_eq!(shop.images().len(), 2);
    shop.assert_clean();
}

#[test]
fn what_cannot_be_loaded_is_said_on_stderr_with_exit_1() {
    let shop = Shop::new("archive-errors");
    let garbage = shop.scratch.write("garbage", b"no archive at all").unwrap();
    for (args, input, why) in [
        (vec!["load", "-i", text(&garbage)], &b""[..], "this is not an image archive"),
        (vec!["load", "-i", "/no/such/file"], b"", "No such file or directory"),
        (vec!["load"], b"", "this is not an image archive"),
        (vec!["load"], b"\x1f\x8b\x08 broken", "cannot read the archive"),
    ] {
        let ran = shop.try_larder(&args, input);
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(why) && ran.stderr.lines().count() == 1, "{args:?}: {}", ran.stderr);
    }
    let ran = shop.try_larder(&["load", "--no-such-flag"], b"");
    assert_eq!(ran.status.code(), Some(125));
    shop.assert_clean();
}
