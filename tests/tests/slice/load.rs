//! Images that come from archives: files in the import folder, and artifacts in a registry.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use larder_tests::{
    Fault, Image, Proxy, Registry, RegistryOptions, Rule, Scratch,
    larder::binary,
    process::run,
    tools::{Tool, in_path},
    until,
    wait::PATIENCE,
};
use serde_json::{Value, json};

use crate::fixture::{Larder, blob, condition, damaged, image};

const NODE: &str = "n1";
/// Nobody answers there: whoever asks has lost.
const APP: &str = "registry.invalid/team/app:v1";

fn load(image: &str, file: &str) -> Value {
    json!({"image": image, "load": {"file": file}})
}

fn from_artifact(image: &str, artifact: &str) -> Value {
    json!({"image": image, "load": {"artifact": artifact}})
}

fn spec(images: &[Value]) -> Value {
    json!({"images": images})
}

fn debian(program: &str, args: &[&str]) {
    run(&in_path(program).unwrap(), args, &[] as &[(&str, &std::ffi::OsStr)], b"").unwrap().ok().unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Has skopeo write an archive of one image.
fn skopeo(image: &Image, kind: &str, path: &Path, name: &str) {
    let scratch = Scratch::new("layout").unwrap();
    image.write_layout(scratch.path(), "v1").unwrap();
    let source = format!("oci:{}:v1", scratch.path().display());
    debian("skopeo", &["copy", &source, &format!("{kind}:{}:{name}", path.display())]);
}

/// Has `larder` write an archive of several images.
fn archive_of(images: &[(&str, &Image)], path: &Path) {
    let scratch = Scratch::new("several").unwrap();
    let store = scratch.path().join("store");
    let env = [("LARDER_STORE", store.as_os_str()), ("HOME", scratch.path().as_os_str())];
    let larder =
        |args: &[&str]| drop(run(&binary("larder").unwrap(), args, &env, b"").unwrap().ok().unwrap());
    for (number, (name, image)) in images.iter().enumerate() {
        let layout = scratch.folder(&format!("layout-{number}")).unwrap();
        image.write_layout(&layout, name).unwrap();
        larder(&["load", "--quiet", "--input", text(&layout)]);
    }
    let names: Vec<&str> = images.iter().map(|(name, _)| *name).collect();
    larder(&[&["save", "--output", text(path)], &names[..]].concat());
}

/// One node, and its import folder.
fn start() -> (Larder, PathBuf) {
    let larder = Larder::start(&[(NODE, &[])]);
    let folder = larder.scratch.folder(&format!("import-{NODE}")).unwrap();
    (larder, folder)
}

/// Puts a file there as it should be done: at once.
fn bring(file: &Path, folder: &Path, name: &str) {
    let hidden = folder.join(".coming");
    fs::copy(file, &hidden).unwrap();
    fs::rename(&hidden, folder.join(name)).unwrap();
}

fn digest(larder: &Larder, cache: &str, image: &str) -> Value {
    let cache = larder.wait_ready(cache, 1);
    let images = cache["status"]["images"].as_array().unwrap().clone();
    images.into_iter().find(|found| found["image"] == image).unwrap()["digest"].clone()
}

#[test]
fn from_a_file_and_from_no_registry() {
    let (larder, imports) = start();
    let made = image(&[(1, 300_000), (2, 60_000)]);
    larder.apply("app", &spec(&[load(APP, "app.tar.zst")]));
    let failure = larder.wait_failure("app", APP, "ArchiveNotFound");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("app.tar.zst") && message.contains(text(&imports)), "{message}");
    assert!(failure["retryTime"].is_null(), "it is not a matter of time: {failure}");
    larder.wait_cache("app", "to say that somebody must act", |status| {
        condition(status, "Stalled")["status"] == "True"
    });

    // What is copied there is loaded, without a restart and without a change.
    let scratch = Scratch::new("archive").unwrap();
    let (plain, packed) = (scratch.path().join("app.tar"), scratch.path().join("app.tar.zst"));
    skopeo(&made, "oci-archive", &plain, "registry.example/other:v9");
    debian("zstd", &["-q", text(&plain), "-o", text(&packed)]);
    bring(&packed, &imports, "app.tar.zst");
    assert_eq!(digest(&larder, "app", APP), made.digest().as_str());
    larder.wait_held(NODE, &[APP]);

    // It is an image like any other: put back when a part of it is lost, and gone when nobody wants it.
    let layer = blob(&larder.store(NODE), made.layers()[0].digest.as_str());
    fs::remove_file(&layer).unwrap();
    until("the layer to be back", PATIENCE, || layer.exists().then_some(())).unwrap();
    fs::remove_file(imports.join("app.tar.zst")).unwrap();
    larder.wait_ready("app", 1);
    larder.delete("app");
    larder.wait_held(NODE, &[]);
    until("the layer to go", PATIENCE, || (!layer.exists()).then_some(())).unwrap();
}

#[test]
fn a_docker_archive_under_the_name_that_is_wanted() {
    let (larder, imports) = start();
    let made = image(&[(3, 200_000)]);
    let scratch = Scratch::new("archive").unwrap();
    let path = scratch.path().join("app.tar");
    skopeo(&made, "docker-archive", &path, "app:v1");
    bring(&path, &imports, "app.tar");
    larder.apply("app", &spec(&[load(APP, "app.tar")]));
    larder.wait_ready("app", 1);
    larder.wait_held(NODE, &[APP]);
    assert!(damaged(&larder.store(NODE)).is_empty());
}

/// One large archive for a whole site is read once, and what nobody wants of it leaves nothing.
#[test]
fn one_archive_with_many_images_is_read_once() {
    let (larder, imports) = start();
    let made = [10, 20, 30, 40].map(|seed| image(&[(1, 200_000), (seed, 90_000)]));
    let names =
        ["registry.invalid/a:v1", "registry.invalid/b:v1", "registry.invalid/c:v1", "registry.invalid/d:v1"];
    let scratch = Scratch::new("archive").unwrap();
    let path = scratch.path().join("site.tar.gz");
    let all: Vec<_> = names.iter().copied().zip(&made).collect();
    archive_of(&all, &path);
    bring(&path, &imports, "site.tar.gz");
    let wanted: Vec<Value> = names[..3].iter().map(|name| load(name, "site.tar.gz")).collect();
    larder.apply("site", &spec(&wanted));
    let cache = larder.wait_ready("site", 1);
    let digests: Vec<_> =
        cache["status"]["images"].as_array().unwrap().iter().map(|image| &image["digest"]).collect();
    assert_eq!(digests, [0, 1, 2].map(|number: usize| made[number].digest().as_str()));
    larder.wait_held(NODE, &names[..3]);
    larder.wait_blob(NODE, made[3].digest().as_str(), false);
    let log = larder.agent(NODE).log().unwrap();
    assert_eq!(log.matches("loaded along").count(), 2, "{log}");
}

#[test]
fn what_is_damaged_cut_off_or_another_image_is_said_and_mended_by_another_file() {
    let (larder, imports) = start();
    let made = image(&[(5, 300_000)]);
    let scratch = Scratch::new("archive").unwrap();
    let good = scratch.path().join("app.tar");
    archive_of(&[(APP, &made)], &good);
    let bytes = fs::read(&good).unwrap();

    let write = |name: &str, bytes: &[u8]| scratch.write(name, bytes).unwrap();
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let other = scratch.path().join("other.tar");
    archive_of(
        &[("registry.example/x:v1", &image(&[(6, 9_000)])), ("registry.example/y:v1", &image(&[(7, 9_000)]))],
        &other,
    );
    larder.apply("app", &spec(&[load(APP, "app.tar")]));
    larder.wait_failure("app", APP, "ArchiveNotFound");
    for (path, part) in [
        (write("truncated.tar", &bytes[..bytes.len() / 2]), "truncated"),
        (write("changed.tar", &changed), "digest"),
        (write("text.tar", &[b'x'; 4_000]), "not an image archive"),
        (other, "it holds registry.example/x:v1, registry.example/y:v1"),
    ] {
        bring(&path, &imports, "app.tar");
        let cache = larder.wait_cache("app", part, |status| {
            let failure = &status["failures"][0];
            failure["reason"] == "InvalidArchive"
                && failure["message"].as_str().is_some_and(|text| text.contains(part))
        });
        let message = cache["status"]["failures"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("app.tar in the import folder: "), "{message}");
        assert!(damaged(&larder.store(NODE)).is_empty());
    }
    bring(&good, &imports, "app.tar");
    larder.wait_ready("app", 1);

    // A link is not followed, wherever it leads.
    std::os::unix::fs::symlink(&good, imports.join("link.tar")).unwrap();
    larder.apply("link", &spec(&[load("registry.invalid/link:v1", "link.tar")]));
    let failure = larder.wait_failure("link", "registry.invalid/link:v1", "ArchiveNotFound");
    assert!(failure["message"].as_str().unwrap().contains("symbolic link"), "{failure}");
}

/// Half of a file is no reason to give up: it is read again when it has grown.
#[test]
fn a_file_that_is_still_being_copied_is_read_when_it_is_whole() {
    let (larder, imports) = start();
    let made = image(&[(8, 400_000)]);
    let scratch = Scratch::new("archive").unwrap();
    let good = scratch.path().join("app.tar");
    archive_of(&[(APP, &made)], &good);
    let bytes = fs::read(&good).unwrap();
    larder.apply("app", &spec(&[load(APP, "app.tar")]));
    larder.wait_failure("app", APP, "ArchiveNotFound");

    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let mut copy = fs::File::create(imports.join("app.tar")).unwrap();
    copy.write_all(half).unwrap();
    // The copy hangs for as long as anybody has patience.
    larder.wait_failure("app", APP, "InvalidArchive");
    copy.write_all(rest).unwrap();
    drop(copy);
    larder.wait_ready("app", 1);
}

/// With `Always`, another file under the name is loaded when the agent starts; the same one is not.
#[test]
fn a_file_that_changed_is_loaded_again_when_it_is_to_be_followed() {
    let (larder, imports) = start();
    let scratch = Scratch::new("archive").unwrap();
    let made = [image(&[(1, 90_000)]), image(&[(2, 90_000)])];
    let paths = [0, 1].map(|number: usize| {
        let path = scratch.path().join(format!("{number}.tar"));
        archive_of(&[(APP, &made[number])], &path);
        path
    });
    let mut followed = load(APP, "app.tar");
    followed["pullPolicy"] = "Always".into();
    bring(&paths[0], &imports, "app.tar");
    larder.apply("app", &spec(&[followed, load("registry.invalid/kept:v1", "app.tar")]));
    assert_eq!(digest(&larder, "app", APP), made[0].digest().as_str());
    let loads = || larder.agent(NODE).log().unwrap().matches("loading").count();
    let before = loads();
    larder.agent(NODE).restart().unwrap();
    larder.wait_ready("app", 1);
    assert_eq!(loads(), before, "the same file");

    larder.agent(NODE).terminate().unwrap();
    bring(&paths[1], &imports, "app.tar");
    larder.agent(NODE).start().unwrap();
    larder.wait_cache("app", "the new digest", |status| {
        status["images"][0]["digest"] == made[1].digest().as_str()
            && status["images"][1]["digest"] == made[0].digest().as_str()
    });
}

fn oras_push(registry: &Registry, reference: &str, files: &[&Path]) {
    let home = Scratch::new("oras").unwrap();
    let env = [("HOME", home.path().as_os_str()), ("DOCKER_CONFIG", home.path().as_os_str())];
    let name = format!("{}/{reference}", registry.host());
    let own =
        ["push", "--plain-http", "--disable-path-validation", "--username", "puller", "--password", "s3cret"];
    let files: Vec<&str> = files.iter().map(|path| text(path)).collect();
    run(&Tool::Oras.path().unwrap(), &[&own[..], &[&name], &files].concat(), &env, b"")
        .unwrap()
        .ok()
        .unwrap();
}

/// As `oras push` makes it, in a registry with a login: fetched, resumed where it stopped, loaded; and the archive goes.
#[test]
fn from_an_artifact_in_a_private_registry() {
    let login = Some(("puller".to_owned(), "s3cret".to_owned()));
    let registry = Registry::start(RegistryOptions { login, ..RegistryOptions::default() }).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let scratch = Scratch::new("archive").unwrap();
    let made = image(&[(1, 3_000_000), (2, 60_000)]);
    let path = scratch.path().join("app.tar.gz");
    archive_of(&[(APP, &made)], &path);
    oras_push(&registry, "archives/app:v1", &[&path]);
    let archive = larder_oci::Digest::sha256(&fs::read(&path).unwrap());

    let (larder, _) = start();
    let name = format!("{}/archives/app:v1", proxy.host());
    larder.apply("app", &spec(&[from_artifact(APP, &name)]));
    larder.wait_failure("app", APP, "Unauthorized");
    // The connection breaks in the middle, for a while.
    proxy.add(Rule::get(archive.as_str()).times(4).then(Fault::TruncateAfter(1 << 20)));
    let logins = registry.docker_config().replace(&registry.host(), &proxy.host());
    larder.scratch.write("logins.json", logins).unwrap();
    assert_eq!(digest(&larder, "app", APP), made.digest().as_str());
    let ranges = proxy.exchanges().iter().filter(|exchange| exchange.range.is_some()).count();
    assert!(ranges > 0, "{:?}", proxy.exchanges());
    larder.wait_blob(NODE, archive.as_str(), false);
    larder.wait_held(NODE, &[APP]);

    // All is there: nobody asks any more, after a restart either.
    let requests = proxy.exchanges().len();
    larder.agent(NODE).restart().unwrap();
    larder.wait_ready("app", 1);
    assert_eq!(proxy.exchanges().len(), requests);
}

#[test]
fn an_artifact_that_is_no_archive_is_fetched_once_and_another_one_mends_it() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let scratch = Scratch::new("archive").unwrap();
    let (good, bad) =
        (scratch.path().join("app.tar"), scratch.write("bad.tar", "no archive at all").unwrap());
    let made = image(&[(3, 90_000)]);
    archive_of(&[(APP, &made)], &good);
    oras_push(&registry, "archives/app:v1", &[&bad]);
    oras_push(&registry, "archives/two:v1", &[&good, &bad]);
    let (larder, _) = start();
    let name = |repository: &str| format!("{}/archives/{repository}:v1", registry.host());
    let two = "registry.invalid/two:v1";
    larder.apply("app", &spec(&[from_artifact(APP, &name("app")), from_artifact(two, &name("two"))]));
    let failure = larder.wait_failure("app", APP, "InvalidArchive");
    assert!(failure["message"].as_str().unwrap().contains("not an image archive"), "{failure}");
    let failure = larder.wait_failure("app", two, "InvalidArchive");
    assert!(failure["message"].as_str().unwrap().contains("2 layers"), "{failure}");

    let blob = larder_oci::Digest::sha256(b"no archive at all");
    let heads = registry.requests().unwrap().manifest_heads();
    until("it to be looked up again", PATIENCE, || {
        (registry.requests().unwrap().manifest_heads() >= heads + 4).then_some(())
    })
    .unwrap();
    assert_eq!(registry.requests().unwrap().gets_of(blob.as_str()), 1, "the same bytes are of no more use");
    oras_push(&registry, "archives/app:v1", &[&good]);
    oras_push(&registry, "archives/two:v1", &[&good]);
    larder.wait_cache("app", "the images", |status| condition(status, "Ready")["status"] == "True");
}

/// What is edited takes effect: an image that is to come from a file instead of its registry.
#[test]
fn another_source_takes_effect_at_once() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let made = image(&[(4, 2_000_000)]);
    registry.push(&made, "app", "v1").unwrap();
    let name = format!("{}/app:v1", proxy.host());
    proxy.limit_rate(Some(10_000));
    let (larder, imports) = start();
    larder.apply("app", &spec(&[json!({"image": name})]));
    until("the pull to begin", PATIENCE, || {
        proxy.exchanges().iter().any(|exchange| exchange.path.contains("/blobs/")).then_some(())
    })
    .unwrap();
    let scratch = Scratch::new("archive").unwrap();
    let path = scratch.path().join("app.tar");
    archive_of(&[("registry.example/whatever:v1", &made)], &path);
    bring(&path, &imports, "app.tar");
    larder.apply("app", &spec(&[load(&name, "app.tar")]));
    assert_eq!(digest(&larder, "app", &name), made.digest().as_str());
}
