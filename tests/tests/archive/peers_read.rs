//! What we write, others read.

use larder_tests::tools::Tool;
use serde_json::Value;

use crate::fixture::{Shop, debian, go_tool, image, text};

const NAME: &str = "registry.corp/team/app:v1";
const EXTENSIONS: [&str; 4] = ["tar", "tar.gz", "tar.bz2", "tar.zst"];

/// A store with an image of OCI's and one of docker's media types.
fn shop(label: &str) -> (Shop, [larder_tests::Image; 2]) {
    let shop = Shop::new(label);
    let images = [image(1, false), image(2, true)];
    for (number, image) in images.iter().enumerate() {
        let folder = shop.scratch.folder(&format!("layout-{number}")).unwrap();
        image.write_layout(&folder, &format!("registry.corp/team/app:v{}", number + 1)).unwrap();
        let said = shop.load(&folder);
        assert_eq!(said, format!("Loaded image: registry.corp/team/app:v{}\n", number + 1));
    }
    (shop, images)
}

#[test]
fn skopeo_reads_every_form_and_compression() {
    let (shop, images) = shop("archive-skopeo");
    for form in [None, Some("docker-archive"), Some("oci-archive")] {
        for extension in EXTENSIONS {
            let path = shop.path(&format!("{}.{extension}", form.unwrap_or("both")));
            let mut args = vec!["save", "--output", text(&path), "registry.corp/team/app"];
            args.extend(form.iter().flat_map(|form| ["--format", *form]));
            shop.larder(&args);
            for (number, image) in images.iter().enumerate() {
                let name = format!("registry.corp/team/app:v{}", number + 1);
                let config = image.blobs[0].digest.hex();
                let copy = shop.path("copy");
                let target = format!("dir:{}", copy.display());
                // Debian's skopeo 1.9.3 fails on any docker-archive with gzip, its own included.
                if form != Some("oci-archive") && extension != "tar.gz" {
                    debian(
                        "skopeo",
                        &["copy", &format!("docker-archive:{}:{name}", path.display()), &target],
                    );
                    assert!(copy.join(config).is_file(), "{form:?} {extension}");
                    std::fs::remove_dir_all(&copy).unwrap();
                }
                // In a layout, skopeo sees none but OCI's media types, and ours leaves manifests as they are.
                if form != Some("docker-archive") && number == 0 {
                    debian("skopeo", &["copy", &format!("oci-archive:{}:{name}", path.display()), &target]);
                    let manifest = std::fs::read(copy.join("manifest.json")).unwrap();
                    assert_eq!(manifest, image.manifest.bytes, "{form:?} {extension}");
                    std::fs::remove_dir_all(&copy).unwrap();
                }
            }
        }
    }
}

#[test]
fn what_the_compressions_own_programs_make_of_it_is_the_plain_archive() {
    let (shop, _) = shop("archive-unpack");
    let plain = shop.path("app.tar");
    shop.larder(&["save", "--output", text(&plain), NAME]);
    for (extension, program) in [("tar.gz", "gzip"), ("tar.bz2", "bzip2"), ("tar.zst", "zstd")] {
        let packed = shop.path(&format!("app.{extension}"));
        shop.larder(&["save", "--output", text(&packed), NAME]);
        debian("sh", &["-ec", &format!("{program} -dc {} | cmp - {}", packed.display(), plain.display())]);
    }
}

#[test]
fn crane_regctl_and_oras_read_them() {
    let (shop, images) = shop("archive-go");
    let home = shop.scratch.folder("home").unwrap();
    for form in [None, Some("docker-archive")] {
        let path = shop.path(&format!("{}.tar", form.unwrap_or("both")));
        let mut args = vec!["save", "--output", text(&path), NAME];
        args.extend(form.iter().flat_map(|form| ["--format", *form]));
        shop.larder(&args);
        // Unpacks every layer and compares it with the configuration.
        go_tool(Tool::Crane, &["validate", "--tarball", text(&path)], &home);
        let layout = format!("ocidir://{}:v1", shop.path(form.unwrap_or("ocidir")).display());
        go_tool(Tool::Regctl, &["image", "import", &layout, text(&path)], &home);
        let config = go_tool(Tool::Regctl, &["image", "config", &layout], &home);
        assert!(config.contains("SHELF=upper"), "{config}");
        let digest = go_tool(Tool::Regctl, &["image", "digest", &layout], &home);
        if form.is_none() {
            assert_eq!(digest.trim(), images[0].digest().as_str());
            let by_digest = format!("{}@{}", path.display(), digest.trim());
            let raw = go_tool(Tool::Oras, &["manifest", "fetch", "--oci-layout", &by_digest], &home);
            assert_eq!(raw.trim_end().as_bytes(), &images[0].manifest.bytes[..]);
        }
    }
}

#[test]
fn umoci_reads_it_unpacked_by_plain_tar() {
    let (shop, _) = shop("archive-umoci");
    // Through a pipe, as `docker save | ...` is used.
    let layout = shop.scratch.folder("unpacked").unwrap();
    let larder = larder_tests::larder::binary("larder").unwrap();
    let script = format!(
        "{} --store {} save --compress zstd {NAME} | zstd -dc | tar -x -C {}",
        larder.display(),
        shop.store.display(),
        layout.display()
    );
    debian("sh", &["-ec", &script]);
    let stat = debian("umoci", &["stat", "--json", "--image", &format!("{}:{NAME}", layout.display())]);
    let stat: Value = serde_json::from_str(&stat).unwrap();
    assert_eq!(stat["history"].as_array().unwrap().len(), 2);
    let bundle = shop.path("bundle");
    let image = format!("{}:{NAME}", layout.display());
    debian("umoci", &["unpack", "--rootless", "--image", &image, text(&bundle)]);
    assert_eq!(std::fs::read(bundle.join("rootfs/etc/base")).unwrap(), b"shared");
}

#[test]
fn ids_prefixes_and_repositories_name_what_to_save() {
    let (shop, images) = shop("archive-ids");
    let tags = |args: &[&str]| {
        let path = shop.path("out.tar");
        shop.larder(&[&["save", "-o", text(&path)], args].concat());
        let manifest = debian("tar", &["-xOf", text(&path), "manifest.json"]);
        let items: Value = serde_json::from_str(&manifest).unwrap();
        items.as_array().unwrap().iter().map(|item| item["RepoTags"].to_string()).collect::<Vec<_>>()
    };
    let id = images[0].blobs[0].digest.hex();
    let one = r#"["registry.corp/team/app:v1"]"#;
    assert_eq!(tags(&[NAME]), [one]);
    assert_eq!(tags(&[id]), ["null"], "by its ID, an image has no name");
    assert_eq!(tags(&[&id[..12]]), ["null"]);
    assert_eq!(tags(&[&id[..12], NAME]), [one], "once");
    assert_eq!(tags(&["registry.corp/team/app"]), [one, r#"["registry.corp/team/app:v2"]"#]);
    let missing = shop.try_larder(&["save", "-o", text(&shop.path("no.tar")), NAME, "nothing:1"], b"");
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stderr.contains("No such image: nothing:1"), "{}", missing.stderr);
    assert!(!shop.path("no.tar").exists());
    shop.assert_clean();
}
