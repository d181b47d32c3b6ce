//! Other tools read a node's store as it stands.

use std::{ffi::OsStr, path::Path};

use larder_tests::{Image, Layer, MachineFiles, Registry, RegistryOptions, process::run, tools::in_path};
use serde_json::Value;

use crate::fixture::{Larder, images};

fn tool(program: &str, args: &[&str]) -> String {
    let none: [(&str, &OsStr); 0] = [];
    run(&in_path(program).unwrap(), args, &none, b"").unwrap().ok().unwrap().stdout
}

#[test]
fn skopeo_and_umoci_read_the_store() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let mut files = MachineFiles::list().unwrap();
    let [base, top] = [files.layer(2_000_000).unwrap(), files.layer(500_000).unwrap()];
    let built = |platform: &str| {
        Image::builder().platform(platform).layer(&base).layer(&top).env("SHELF=upper").build().unwrap()
    };
    let host = larder_oci::Platform::host().to_string();
    let single = registry.push(&built(&host).clone(), "single", "v1").unwrap().name;
    // Of this one a node holds one platform of two.
    let other =
        Image::builder().platform("linux/s390x").layer(&Layer::random(130, 9_000).unwrap()).build().unwrap();
    let list = registry.push(&Image::index(&[other, built(&host)]).unwrap(), "list", "v1").unwrap();

    let larder = Larder::start(&[("a", &[])]);
    larder.apply("peers", &images(None, &[&single, &list.name]));
    let status = &larder.wait_ready("peers", 1)["status"];
    assert_eq!(status["images"][1]["digest"], list.digest.as_str(), "a list's digest is the list's");

    let store = larder.store("a");
    for name in [&single, &list.name] {
        let image = format!("oci:{}:{name}", store.display());
        let inspected: Value = serde_json::from_str(&tool("skopeo", &["inspect", &image])).unwrap();
        assert_eq!(inspected["Os"], "linux", "{name}");
        let copy = larder.scratch.folder("copy").unwrap().join(name.replace(['/', ':'], "_"));
        tool("skopeo", &["copy", &image, &format!("dir:{}", copy.display())]);
    }
    assert!(
        tool("skopeo", &["inspect", "--config", &format!("oci:{}:{single}", store.display())])
            .contains("SHELF=upper")
    );

    let layout = store.to_str().unwrap();
    let listed = tool("umoci", &["ls", "--layout", layout]);
    for name in [&single, &list.name] {
        assert!(listed.lines().any(|line| line == name), "{listed}");
    }
    for name in [&single, &list.name] {
        let stat: Value =
            serde_json::from_str(&tool("umoci", &["stat", "--json", "--image", &format!("{layout}:{name}")]))
                .unwrap();
        assert_eq!(
            stat["history"].as_array().unwrap().iter().filter(|entry| !entry["layer"].is_null()).count(),
            2
        );
    }
    let bundle = larder.scratch.path().join("bundle");
    tool(
        "umoci",
        &["unpack", "--rootless", "--image", &format!("{layout}:{}", list.name), bundle.to_str().unwrap()],
    );
    assert!(Path::new(&bundle).join("rootfs/usr").is_dir());
}
