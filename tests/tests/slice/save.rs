//! Archives that are kept in the export folder.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use larder_tests::{Registry, RegistryOptions, Scratch, process::run, tools::in_path, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Larder, condition, image};

const NODE: &str = "n1";
const FURTHER: &str = "registry.example/base/app:stable";

fn save(image: &str, file: &str) -> Value {
    json!({"image": image, "save": {"file": file}})
}

fn spec(images: &[Value]) -> Value {
    json!({"images": images})
}

/// One node, and its export folder.
fn start() -> (Larder, PathBuf) {
    let larder = Larder::start(&[(NODE, &[])]);
    let folder = larder.scratch.folder(&format!("export-{NODE}")).unwrap();
    (larder, folder)
}

/// What skopeo finds under a name in an archive: the image's manifest, or its configuration's digest for docker's form.
fn skopeo(archive: &Path, kind: &str, name: &str) -> Result<Value, String> {
    let scratch = Scratch::new("copy").unwrap();
    let copy = scratch.path().join("copy");
    let source = format!("{kind}:{}:{name}", archive.display());
    let target = format!("dir:{}", copy.display());
    let none: [(&str, &std::ffi::OsStr); 0] = [];
    let ran = run(&in_path("skopeo").unwrap(), &["copy", &source, &target], &none, b"").unwrap();
    ran.ok().map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(&fs::read(copy.join("manifest.json")).unwrap()).unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Waits until the file is another than the one with this number, and all is well.
fn wait_another(larder: &Larder, file: &Path, inode: u64) -> u64 {
    let found = until("the archive to be written again", PATIENCE, || {
        fs::metadata(file).ok().map(|metadata| metadata.ino()).filter(|&now| now != inode)
    });
    let found = found.unwrap();
    larder.wait_cache("app", "ready", |status| condition(status, "Ready")["status"] == "True");
    found
}

#[test]
fn archives_are_kept_up_to_date_and_others_read_them() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let made = image(&[(1, 400_000), (2, 60_000)]);
    let app = registry.push(&made, "app", "v1").unwrap();
    let (larder, exports) = start();
    let wanted = |tags: &[&str]| {
        let mut wanted = save(&app.name, "app.tar.zst");
        wanted["tags"] = json!(tags);
        wanted["pullPolicy"] = "Always".into();
        spec(&[wanted])
    };
    larder.apply("app", &wanted(&[FURTHER]));
    larder.wait_ready("app", 1);
    // At once: nothing is waited for here.
    let file = exports.join("app.tar.zst");
    for name in [&app.name, FURTHER] {
        assert_eq!(
            skopeo(&file, "oci-archive", name).unwrap()["layers"][0]["digest"],
            made.layers()[0].digest.as_str()
        );
        let manifest = skopeo(&file, "docker-archive", name).unwrap();
        assert_eq!(manifest["config"]["digest"], made.blobs[0].digest.as_str());
    }
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);

    // Restarted, the agent leaves it alone. Whoever changes it, removes it or puts a link there, gets it back.
    let mut inode = metadata.ino();
    larder.agent(NODE).restart().unwrap();
    larder.wait_ready("app", 1);
    let outside = larder.scratch.write("outside", "not yours").unwrap();
    fs::write(&file, b"mine").unwrap();
    until("the archive to be put right", PATIENCE, || (fs::read(&file).ok()? != b"mine").then_some(()))
        .unwrap();
    inode = fs::metadata(&file).map_or(inode, |metadata| metadata.ino());
    fs::remove_file(&file).unwrap();
    symlink(&outside, &file).unwrap();
    until("the link to be replaced", PATIENCE, || {
        fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file()).then_some(())
    })
    .unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"not yours");
    inode = fs::metadata(&file).map_or(inode, |metadata| metadata.ino());

    // A name less, a tag that moved: another archive.
    larder.apply("app", &wanted(&[]));
    inode = wait_another(&larder, &file, inode);
    skopeo(&file, "docker-archive", FURTHER).unwrap_err();
    let moved = image(&[(3, 90_000)]);
    registry.push(&moved, "app", "v1").unwrap();
    larder.agent(NODE).restart().unwrap();
    wait_another(&larder, &file, inode);
    let manifest = skopeo(&file, "docker-archive", &app.name).unwrap();
    assert_eq!(manifest["config"]["digest"], moved.blobs[0].digest.as_str());

    // Not asked for any more, it goes; what was there before stays.
    fs::write(exports.join("mine.tar"), b"mine").unwrap();
    larder.apply("app", &spec(&[json!({"image": app.name})]));
    until("the archive to go", PATIENCE, || (names(&exports) == ["mine.tar"]).then_some(())).unwrap();
    larder.wait_ready("app", 1);
}

#[test]
fn every_compression_and_its_name() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let made = image(&[(4, 300_000)]);
    let (larder, exports) = start();
    let files = [
        ("app.tar", None),
        ("app.tar.gz", Some("gzip")),
        ("app.tar.bz2", Some("bzip2")),
        ("app.tar.zst", Some("zstd")),
    ];
    let images: Vec<Value> = files
        .iter()
        .map(|(file, _)| save(&registry.push(&made, &file.replace('.', "-"), "v1").unwrap().name, file))
        .collect();
    larder.apply("app", &spec(&images));
    larder.wait_ready("app", 1);
    for ((file, program), image) in files.iter().zip(&images) {
        let path = exports.join(file);
        if let Some(program) = program {
            let none: [(&str, &std::ffi::OsStr); 0] = [];
            let test = ["-t", path.to_str().unwrap()];
            run(&in_path(program).unwrap(), &test, &none, b"").unwrap().ok().unwrap();
        }
        // Debian's skopeo 1.9.3 fails on any docker-archive with gzip, its own included.
        skopeo(&path, "oci-archive", image["image"].as_str().unwrap()).unwrap();
    }
}

#[test]
fn a_folder_that_is_missing_holds_up_the_images_that_need_it() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let [app, plain] =
        ["app", "plain"].map(|name| registry.push(&image(&[(5, 90_000)]), name, "v1").unwrap().name);
    let (larder, exports) = start();
    fs::remove_dir(&exports).unwrap();
    larder.apply("app", &spec(&[save(&app, "app.tar"), json!({"image": plain})]));
    let failure = larder.wait_failure("app", &app, "StoreError");
    let message = failure["message"].as_str().unwrap();
    assert!(message.starts_with("the image is here, but not its archive app.tar: "), "{message}");
    assert!(message.contains(exports.to_str().unwrap()), "{message}");
    let status =
        larder.wait_cache("app", "the other to be ready", |status| status["images"][1]["nodesReady"] == 1);
    assert_eq!(status["status"]["images"][0]["nodesReady"], 0);
    fs::create_dir(&exports).unwrap();
    larder.wait_ready("app", 1);
    assert_eq!(names(&exports), ["app.tar"]);
}

#[test]
fn one_file_is_one_images_across_image_caches() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let [first, second] =
        ["a", "b"].map(|name| registry.push(&image(&[(6, 90_000)]), name, "v1").unwrap().name);
    let (larder, exports) = start();
    larder.apply("second", &spec(&[save(&second, "app.tar")]));
    larder.wait_ready("second", 1);
    larder.apply("first", &spec(&[save(&first, "app.tar")]));
    larder.wait_ready("first", 1);
    let failure = larder.wait_failure("second", &second, "NameConflict");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains(&first) && message.contains("app.tar"), "{message}");
    skopeo(&exports.join("app.tar"), "oci-archive", &first).unwrap();
    larder.delete("first");
    larder.wait_ready("second", 1);
    skopeo(&exports.join("app.tar"), "oci-archive", &second).unwrap();
}

#[test]
fn what_is_retained_stays_and_so_does_what_somebody_replaced() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let [kept, gone, mine] =
        ["kept", "gone", "mine"].map(|name| registry.push(&image(&[(7, 90_000)]), name, "v1").unwrap().name);
    let (mut larder, exports) = start();
    let mut retaining = spec(&[save(&kept, "kept.tar")]);
    retaining["deletionPolicy"] = "Retain".into();
    larder.apply("retaining", &retaining);
    larder.apply("deleting", &spec(&[save(&gone, "gone.tar"), save(&mine, "mine.tar")]));
    larder.wait_ready("retaining", 1);
    larder.wait_ready("deleting", 1);
    // A kill in the middle of a save leaves something behind.
    larder.agent(NODE).kill();
    fs::write(exports.join(".larder-unfinished-0123456789abcdef"), b"half").unwrap();
    fs::write(exports.join("mine.tar"), b"mine").unwrap();
    larder.delete("retaining");
    larder.delete("deleting");
    until("the operator to have told the node", PATIENCE, || {
        let spec = &larder.cluster.get(&["nodeimagecache", NODE]).ok()?["spec"];
        spec["images"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .unwrap();
    larder.start_agent(NODE, &[]);
    until("the rest to go", PATIENCE, || (names(&exports) == ["kept.tar", "mine.tar"]).then_some(()))
        .unwrap();
    larder.wait_held(NODE, &[&kept]);
    assert_eq!(fs::read(exports.join("mine.tar")).unwrap(), b"mine");
    // And for good.
    larder.agent(NODE).restart().unwrap();
    larder.apply("again", &spec(&[json!({"image": gone})]));
    larder.wait_ready("again", 1);
    assert_eq!(names(&exports), ["kept.tar", "mine.tar"]);
}
