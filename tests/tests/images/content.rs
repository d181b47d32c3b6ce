use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use larder_tests::larder::{OwnImage, binary, images};
use larder_tests::process::run;
use larder_tests::tools::in_path;
use larder_tests::wait::{PATIENCE, until};
use larder_tests::{Registry, RegistryOptions, Scratch};
use serde_json::{Value, json};

use crate::bundle::{REPOSITORY, TAG, shared, text};

fn skopeo(args: &[&str]) -> Value {
    run(&in_path("skopeo").unwrap(), args, &[], b"").unwrap().ok().unwrap().json().unwrap()
}

/// What is in an archive, by path.
fn files(archive: &Path) -> BTreeSet<String> {
    let listed = run(&in_path("tar").unwrap(), &["-tf", text(archive)], &[], b"").unwrap().ok().unwrap();
    listed.stdout.lines().map(str::to_owned).collect()
}

/// Which files the programs are.
fn programs() -> [(u64, SystemTime); 3] {
    ["larder-operator", "larder-agent", "larder"].map(|program| {
        let file = binary(program).unwrap().metadata().unwrap();
        (file.ino(), file.modified().unwrap())
    })
}

/// What an image has from git.
fn origin(image: &OwnImage) -> [Value; 2] {
    let config = skopeo(&["inspect", "--config", &format!("oci-archive:{}", image.archive.display())]);
    let revision = config["config"]["Labels"]["org.opencontainers.image.revision"].clone();
    [config["created"].clone(), revision]
}

#[test]
fn the_same_programs_make_the_same_images() {
    let scratch = Scratch::new("images-twice").unwrap();
    let folders = ["one", "two"].map(|name| scratch.folder(name).unwrap());
    // Somebody may build or commit while tests run.
    let made = until("two images of the same programs", PATIENCE, || {
        let before = programs();
        let [one, two] = folders.each_ref().map(|folder| images(folder, REPOSITORY, TAG).unwrap());
        (before == programs() && one.each_ref().map(origin) == two.each_ref().map(origin))
            .then_some([one, two])
    });
    let [one, two] = made.unwrap();
    for (one, two) in one.iter().zip(&two) {
        let same = std::fs::read(&one.archive).unwrap() == std::fs::read(&two.archive).unwrap();
        assert!(same, "{}: {:?}\n{:?}", one.name, files(&one.archive), files(&two.archive));
    }
}

#[test]
fn what_changes_least_is_the_lowest_layer_and_the_same_in_both() {
    let shared = shared();
    let layers = |image: &OwnImage| {
        let document = skopeo(&["inspect", &format!("oci-archive:{}", image.archive.display())]);
        document["Layers"].as_array().unwrap().clone()
    };
    let (operator, agent) = (layers(&shared.operator), layers(&shared.agent));
    assert_eq!((operator.len(), agent.len()), (2, 3));
    assert_eq!(operator[0], agent[0]);
    assert_eq!(operator.iter().chain(&agent).collect::<Vec<_>>().len(), 5);
}

#[test]
fn skopeo_reads_both_forms_and_what_the_images_say_of_themselves() {
    let shared = shared();
    for (image, title, user) in
        [(&shared.operator, "larder-operator", "65532:65532"), (&shared.agent, "larder-agent", "0:0")]
    {
        let archive = image.archive.display();
        let oci = skopeo(&["inspect", "--config", &format!("oci-archive:{archive}:{}", image.name)]);
        let docker = skopeo(&["inspect", "--config", &format!("docker-archive:{archive}:{}", image.name)]);
        assert_eq!(oci, docker);
        assert_eq!(oci["os"], "linux");
        assert_eq!(oci["architecture"], larder_oci::Platform::host().architecture());
        assert_eq!(oci["config"]["User"], user);
        assert_eq!(oci["config"]["Entrypoint"], json!([format!("/usr/bin/{title}")]));
        let layers = oci["rootfs"]["diff_ids"].as_array().unwrap().len();
        assert_eq!(oci["history"].as_array().unwrap().len(), layers);
        let label = |name: &str| &oci["config"]["Labels"][format!("org.opencontainers.image.{name}")];
        assert_eq!(label("title"), title);
        assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(label("licenses"), "Apache-2.0");
        for name in ["description", "source"] {
            assert!(label(name).as_str().is_some_and(|text| !text.is_empty()), "{name}");
        }
    }
}

#[test]
fn they_go_to_a_registry_as_they_are() {
    let (shared, scratch) = (shared(), Scratch::new("images-push").unwrap());
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let (home, store) = (scratch.path().as_os_str(), scratch.path().join("store"));
    let env = [("LARDER_STORE", store.as_os_str()), ("HOME", home), ("NO_PROXY", OsStr::new("127.0.0.1"))];
    let larder =
        |args: &[&str]| run(&binary("larder").unwrap(), args, &env, b"").unwrap().ok().unwrap().stdout;
    for image in [&shared.operator, &shared.agent] {
        larder(&["load", "--input", text(&image.archive)]);
        let digest =
            skopeo(&["inspect", &format!("oci-archive:{}", image.archive.display())])["Digest"].clone();
        let name = image.name.replace(REPOSITORY, &registry.host());
        larder(&["tag", &image.name, &name]);
        let pushed = larder(&["push", &name]);
        assert!(pushed.contains(&format!("{TAG}: digest: {} size: ", digest.as_str().unwrap())), "{pushed}");
        let there = skopeo(&["inspect", "--tls-verify=false", &format!("docker://{name}")]);
        assert_eq!(there["Digest"], digest);
    }
}
