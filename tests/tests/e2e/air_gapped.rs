//! A site without any registry: archives in the nodes' import folders, and archives kept in the export folders.
//! `cargo xtask e2e air_gapped:: -- --nocapture` prints what an administrator sees, and docs/use/air-gapped.md shows it.

use std::{fs, path::Path};

use larder_tests::{
    Kubectl, Node, Pod, PodOptions, Scratch, process::run, tools::in_path, until, wait::PATIENCE,
};
use serde_json::{Value, json};

use crate::{
    fixture::together,
    larder::{Larder, image, push, runtime_image},
};

/// Where nobody answers, and nobody is asked.
const FRONT: &str = "registry.invalid/shop/front:v7";
const BACK: &str = "registry.invalid/shop/back:v7";

/// An `ImageCache` of a name of its own. Dropping it deletes it.
struct Cache<'a> {
    kubectl: &'a Kubectl,
    name: &'static str,
}

impl<'a> Cache<'a> {
    fn apply(kubectl: &'a Kubectl, name: &'static str, images: &Value) -> Self {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": name},
            "spec": {"images": images},
        });
        kubectl.apply(&object.to_string()).unwrap();
        Self { kubectl, name }
    }

    fn wait(&self, larder: &Larder, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = until(what, PATIENCE * 2, || {
            last = self.kubectl.get(&["imagecache", self.name]).ok()?;
            let current = last["status"]["observedGeneration"] == last["metadata"]["generation"];
            (current && is(&last["status"])).then(|| last["status"].clone())
        });
        found.unwrap_or_else(|error| panic!("{error}\n{last:#}\n{}", larder.describe()))
    }

    fn wait_ready(&self, larder: &Larder) -> Value {
        self.wait(larder, "the images to be on all nodes", |status| {
            status["conditions"][0]["status"] == "True"
        })
    }

    /// What a person would see.
    fn show(&self) {
        for args in [
            &["get", "imagecache", self.name][..],
            &[
                "get",
                "imagecache",
                self.name,
                "--output",
                "jsonpath={range .status.failures[*]}{.node}  {.reason}  {.message}{\"\\n\"}{end}",
            ],
        ] {
            println!("$ kubectl {}\n{}", args.join(" "), self.kubectl.kubectl(args).unwrap().stdout);
        }
    }
}

impl Drop for Cache<'_> {
    fn drop(&mut self) {
        self.kubectl.try_kubectl(&["delete", "imagecache", self.name, "--ignore-not-found"], "").ok();
    }
}

/// As somebody with a USB stick does it: copied under another name, renamed when it is whole.
fn bring(archive: &Path, node: &Node, name: &str) {
    let folder = node.path("/var/lib/larder-import");
    let hidden = folder.join(format!(".{name}"));
    fs::copy(archive, &hidden).unwrap();
    fs::rename(hidden, folder.join(name)).unwrap();
}

fn pod(kubectl: &Kubectl, name: &str, image: &str, node: &Node) {
    let options = PodOptions::new(name).image(image).pull_policy("Never").node(node.name());
    let pod = Pod::start(kubectl, &options).unwrap();
    assert!(!pod.describe().contains("Pulling"), "{}", pod.describe());
    pod.delete().unwrap();
}

#[test]
fn pods_start_from_an_archive_that_somebody_copied_to_the_nodes() {
    let e2e = together();
    let larder = e2e.larder();
    let nodes = e2e.cluster.nodes();
    let scratch = Scratch::new("site").unwrap();
    // One archive with both images, as `larder save` or `docker save` writes it.
    let archive = scratch.path().join("shop.tar.zst");
    let store = scratch.path().join("store");
    let env = [("LARDER_STORE", store.as_os_str()), ("HOME", scratch.path().as_os_str())];
    let larder_here = |args: &[&str]| {
        let program = larder_tests::larder::binary("larder").unwrap();
        drop(run(&program, args, &env, b"").unwrap().ok().unwrap());
    };
    let built = [(FRONT, image(5100)), (BACK, image(5200))];
    for (name, image) in &built {
        let path = scratch.path().join("one.tar");
        image.write_archive(&path, name).unwrap();
        larder_here(&["load", "--quiet", "--input", path.to_str().unwrap()]);
    }
    larder_here(&["save", "--output", archive.to_str().unwrap(), FRONT, BACK]);

    let cache = Cache::apply(
        &e2e.cluster,
        "air-gapped",
        &json!([
            {"image": FRONT, "load": {"file": "shop.tar.zst"}},
            {"image": BACK, "load": {"file": "shop.tar.zst"}},
        ]),
    );
    cache.wait(larder, "that something is missing to be said", |status| {
        status["failuresTotal"] == 2 * nodes.len() && status["failures"][0]["reason"] == "ArchiveNotFound"
    });
    cache.show();
    for node in &nodes {
        bring(&archive, node, "shop.tar.zst");
    }
    let status = cache.wait_ready(larder);
    cache.show();
    assert_eq!(status["nodes"]["ready"], nodes.len(), "{status:#}");
    for (number, (name, image)) in built.iter().enumerate() {
        assert_eq!(status["images"][number]["digest"], image.digest().as_str());
        for node in &nodes {
            let found = runtime_image(node, name).unwrap();
            assert_eq!(found["pinned"], true, "{found:#}");
            pod(&e2e.cluster, &format!("air-gapped-{number}-{}", node.name()), name, node);
        }
    }
    // The archive may go: the images stay.
    for node in &nodes {
        fs::remove_file(node.path("/var/lib/larder-import/shop.tar.zst")).unwrap();
    }
    drop(cache);
    for node in &nodes {
        until("the images to go", PATIENCE, || {
            [FRONT, BACK].iter().all(|name| runtime_image(node, name).is_none()).then_some(())
        })
        .unwrap();
    }
}

/// Layers are in containerd alone; what is saved is all of the image, and another node takes it from there.
#[test]
fn what_a_node_saves_another_one_loads() {
    let e2e = together();
    let larder = e2e.larder();
    let nodes = e2e.cluster.nodes();
    let pushed = push(&e2e.registry, "air-gapped/app", 5300);
    let built = image(5300);
    let saving = json!([{"image": pushed.name, "save": {"file": "app.tar.zst"}}]);
    let cache = Cache::apply(&e2e.cluster, "saving", &saving);
    cache.wait_ready(larder);
    let layer = built.layers()[0].digest.hex();
    for node in &nodes {
        assert!(!node.path("/var/lib/larder/blobs/sha256").join(layer).exists(), "it is containerd's");
        let archive = node.path("/var/lib/larder-export/app.tar.zst");
        let scratch = Scratch::new("copy").unwrap();
        let copy = scratch.path().join("copy");
        // skopeo would follow the path out of the node.
        let ours = scratch.path().join("app.tar.zst");
        fs::copy(&archive, &ours).unwrap();
        let source = format!("oci-archive:{}:{}", ours.display(), pushed.name);
        let args = ["copy", &source, &format!("dir:{}", copy.display())];
        run(&in_path("skopeo").unwrap(), &args, &[] as &[(&str, &std::ffi::OsStr)], b"")
            .unwrap()
            .ok()
            .unwrap();
        assert!(copy.join(layer).is_file());
    }
    println!("$ ls -l /var/lib/larder-export\n{}", nodes[0].sh("ls -l /var/lib/larder-export").unwrap());

    // The same bytes under another name, from the archive.
    bring(&nodes[0].path("/var/lib/larder-export/app.tar.zst"), &nodes[1], "app.tar.zst");
    let copied = "registry.invalid/copied:v1";
    let loading = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": "loading"},
        "spec": {
            "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": nodes[1].name()}},
            "images": [{"image": copied, "load": {"file": "app.tar.zst"}}],
        },
    });
    e2e.cluster.apply(&loading.to_string()).unwrap();
    let loading = Cache { kubectl: &e2e.cluster, name: "loading" };
    let status = loading.wait_ready(larder);
    assert_eq!(status["images"][0]["digest"], pushed.digest.as_str());
    pod(&e2e.cluster, "air-gapped-copied", copied, &nodes[1]);
    drop(loading);
    drop(cache);
    for node in &nodes {
        let archive = node.path("/var/lib/larder-export/app.tar.zst");
        until("the archive to go", PATIENCE, || (!archive.exists()).then_some(())).unwrap();
    }
    fs::remove_file(nodes[1].path("/var/lib/larder-import/app.tar.zst")).unwrap();
}
