//! containerd reads what we write, by way of `ctr`, and we read what it writes.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use larder_tests::{
    Image, Layer, Program, Ran, Registry, RegistryOptions, Scratch,
    process::run,
    tools::{Tool, in_path, is_root},
};
use serde_json::Value;

use crate::fixture::{Shop, debian, image, json, text};

const NAMES: [&str; 3] =
    ["docker.io/library/app:v1", "registry.corp/team/app:v1", "registry.corp/team/app:v2"];

/// Since version 2, `ctr` leaves an import to containerd unless told to do it itself: two programs to convince. By
/// itself, it reads plain archives alone.
const WAYS: [&[&str]; 2] = [&[], &["--local"]];

/// By itself: what containerd exports for it, `ctr` 2.2.1 does not always write to its end, and it ends with success all
/// the same (on a busy machine, one in 25).
const EXPORT: [&str; 3] = ["images", "export", "--local"];

/// A containerd of the test's own: nothing but content, image names and one snapshotter.
pub struct Containerd {
    program: Program,
    socket: PathBuf,
    ctr: PathBuf,
    pub scratch: Scratch,
}

impl Containerd {
    /// In a mount namespace of its own: whatever it mounts is gone with it, however it ends. So is what it makes in
    /// `/run`, and it makes `/run/containerd` whatever its configuration says.
    pub fn start(label: &str) -> Self {
        assert!(is_root(), "this test runs a real containerd, which mounts: run the tests as root");
        let scratch = Scratch::new(label).unwrap();
        let socket = scratch.path().join("containerd.sock");
        let config = scratch.write("config.toml", config(scratch.path(), &socket)).unwrap();
        let program = Program::new("containerd", &in_path("unshare").unwrap(), scratch.path())
            .args(["--mount", "--propagation", "private", "--", "sh", "-ec"])
            .args(["mount -t tmpfs tmpfs /run; exec \"$@\"", "sh"])
            .args([Tool::Containerd.path().unwrap().as_os_str(), OsStr::new("--config"), config.as_os_str()])
            .env("HOME", scratch.path());
        let this = Self { program, socket, ctr: Tool::Ctr.path().unwrap(), scratch };
        let answers = || this.try_ctr(&["--connect-timeout", "1s", "version"]).status.success();
        this.program.start_until("containerd to answer on its socket", answers).unwrap();
        this
    }

    fn try_ctr(&self, args: &[&str]) -> Ran {
        let args = [&["--address", text(&self.socket)], args].concat();
        let env =
            [("HOME", self.scratch.path().as_os_str()), ("CONTAINERD_SNAPSHOTTER", OsStr::new("native"))];
        run(&self.ctr, &args, &env, b"").unwrap()
    }

    pub fn ctr(&self, args: &[&str]) -> String {
        self.try_ctr(args).ok().unwrap().stdout
    }

    /// The rows of a table, cut at blanks; the heading left out.
    pub fn table(&self, args: &[&str]) -> Vec<Vec<String>> {
        let rows = self.ctr(args);
        rows.lines().skip(1).map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
    }

    /// The digests that names stand for. All of each image must be there.
    pub fn images(&self) -> BTreeMap<String, String> {
        for row in self.table(&["images", "check"]) {
            assert_eq!(row[3], "complete", "{row:?}");
        }
        let rows = self.table(&["images", "ls"]);
        rows.into_iter().map(|row| (row[0].clone(), row[2].clone())).collect()
    }

    /// Removes all images, and waits until their content is gone too.
    pub fn empty(&self) {
        for name in self.images().keys() {
            self.ctr(&["images", "rm", "--sync", name]);
        }
        assert_eq!(self.ctr(&["content", "ls", "-q"]), "");
        assert_eq!(self.table(&["snapshots", "ls"]), Vec::<Vec<String>>::new());
    }

    fn manifest(&self, digest: &str) -> Value {
        serde_json::from_str(&self.ctr(&["content", "get", digest])).unwrap()
    }

    /// Ends it in good order: nothing of it is left mounted, or running.
    pub fn stop(self) {
        self.program.terminate().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(text(self.scratch.path())), "{mounts}");
    }
}

/// Without what serves containers, other snapshotters, or files outside the scratch folder.
fn config(folder: &Path, socket: &Path) -> String {
    let disabled = [
        "cri.v1.images",
        "cri.v1.runtime",
        "grpc.v1.cri",
        "grpc.v1.sandbox-controllers",
        "grpc.v1.tasks",
        "internal.v1.opt",
        "internal.v1.restart",
        "internal.v1.tracing",
        "monitor.container.v1.restart",
        "monitor.task.v1.cgroups",
        "nri.v1.nri",
        "podsandbox.controller.v1.podsandbox",
        "runtime.v2.task",
        "sandbox.controller.v1.shim",
        "service.v1.tasks-service",
        "shim.v1.manager",
        "snapshotter.v1.blockfile",
        "snapshotter.v1.btrfs",
        "snapshotter.v1.devmapper",
        "snapshotter.v1.erofs",
        "snapshotter.v1.overlayfs",
        "snapshotter.v1.zfs",
        "tracing.processor.v1.otlp",
        "ttrpc.v1.otelttrpc",
    ]
    .map(|plugin| format!("'io.containerd.{plugin}'"))
    .join(", ");
    format!(
        "version = 3\n\
         root = '{folder}/root'\n\
         state = '{folder}/state'\n\
         temp = '{folder}/temp'\n\
         disabled_plugins = [{disabled}]\n\
         required_plugins = ['io.containerd.transfer.v1.local', 'io.containerd.snapshotter.v1.native']\n\
         [grpc]\n\
         address = '{socket}'\n\
         [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n\
         platform = 'linux/amd64'\n\
         snapshotter = 'native'\n",
        folder = folder.display(),
        socket = socket.display(),
    )
}

/// A store with an image of OCI's media types, with two names, and one of docker's.
fn shop(label: &str) -> (Shop, BTreeMap<String, Image>) {
    let shop = Shop::new(label);
    let (oci, docker) = (image(11, false), image(12, true));
    let images: BTreeMap<_, _> =
        NAMES.map(str::to_owned).into_iter().zip([oci.clone(), oci, docker]).collect();
    for (number, (name, image)) in images.iter().enumerate() {
        let folder = shop.scratch.folder(&format!("layout-{number}")).unwrap();
        image.write_layout(&folder, name).unwrap();
        shop.load(&folder);
    }
    (shop, images)
}

fn digests(images: &BTreeMap<String, Image>) -> BTreeMap<String, String> {
    images.iter().map(|(name, image)| (name.clone(), image.digest().to_string())).collect()
}

/// What `index.json` of a store says of the index that an image came with.
fn index_digests(shop: &Shop) -> Vec<String> {
    let index = json(&shop.store.join("index.json"));
    let entries = index["manifests"].as_array().unwrap().iter();
    entries
        .map(|entry| entry["annotations"]["dev.larder.index.digest"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn ctr_imports_every_form_and_compression() {
    let (shop, images) = shop("archive-ctr");
    let containerd = Containerd::start("containerd");
    for form in [None, Some("docker-archive"), Some("oci-archive")] {
        for extension in ["tar", "tar.gz", "tar.bz2", "tar.zst"] {
            let path = shop.path(&format!("{}.{extension}", form.unwrap_or("both")));
            let mut args = [&["save", "--output", text(&path)], &NAMES[..]].concat();
            args.extend(form.iter().flat_map(|form| ["--format", *form]));
            shop.larder(&args);
            // containerd knows gzip and zstd alone.
            let (path, ways) = match extension {
                "tar" => (path, &WAYS[..]),
                "tar.bz2" => (unpacked(&shop, &path), &WAYS[..]),
                _ => (path, &WAYS[..1]),
            };
            for way in ways {
                containerd.ctr(&[&["images", "import", "--no-unpack"], *way, &[text(&path)]].concat());
                let what = format!("{form:?} {extension} {way:?}");
                let found = containerd.images();
                if form == Some("docker-archive") {
                    // Its manifests are containerd's own. The configuration is what it was.
                    assert!(found.keys().eq(images.keys()), "{what}: {found:?}");
                    for (name, digest) in &found {
                        let config = &containerd.manifest(digest)["config"]["digest"];
                        assert_eq!(config, images[name].blobs[0].digest.as_str(), "{what} {name}");
                    }
                } else {
                    assert_eq!(found, digests(&images), "{what}");
                }
                there_and_back(&containerd, &found, &what);
                containerd.empty();
            }
        }
    }
    containerd.stop();
}

/// What containerd exports again comes back with the digests that it has there.
fn there_and_back(containerd: &Containerd, images: &BTreeMap<String, String>, what: &str) {
    let shop = Shop::new("archive-ctr-back");
    let path = shop.path("back.tar");
    let names: Vec<&str> = images.keys().map(String::as_str).collect();
    containerd.ctr(&[&EXPORT[..], &["--platform", "linux/amd64", text(&path)], &names[..]].concat());
    shop.load(&path);
    assert_eq!(&loaded(&shop), images, "{what}");
    shop.assert_clean();
}

/// The digests that names stand for in a store that has one platform of each.
fn loaded(shop: &Shop) -> BTreeMap<String, String> {
    shop.images()
        .into_iter()
        .map(|((name, _), digest)| (larder_oci::ImageName::to_string(&name.parse().unwrap()), digest))
        .collect()
}

fn unpacked(shop: &Shop, path: &Path) -> PathBuf {
    let plain = shop.path("plain.tar");
    debian("sh", &["-ec", &format!("bzip2 -dc {} > {}", path.display(), plain.display())]);
    plain
}

#[test]
fn ctr_unpacks_what_it_imports() {
    let (shop, images) = shop("archive-ctr-unpack");
    let containerd = Containerd::start("containerd-unpack");
    for form in ["docker-archive", "oci-archive"] {
        let path = shop.path(&format!("{form}.tar"));
        shop.larder(&[&["save", "--format", form, "--output", text(&path)], &NAMES[..]].concat());
        for way in WAYS {
            let how = ["images", "import", "--platform", "linux/amd64"];
            containerd.ctr(&[&how[..], way, &[text(&path)]].concat());
            assert!(containerd.images().keys().eq(images.keys()), "{form} {way:?}");
            // One layer is the same in both images.
            let snapshots = containerd.table(&["snapshots", "ls"]);
            assert_eq!(snapshots.len(), 3, "{form} {way:?}: {snapshots:?}");
            assert!(snapshots.iter().all(|row| row.last().unwrap() == "Committed"), "{snapshots:?}");
            let folder = containerd.scratch.path().join("root/io.containerd.snapshotter.v1.native/snapshots");
            let mut unpacked = 0;
            for snapshot in std::fs::read_dir(folder).unwrap() {
                let base = snapshot.unwrap().path().join("etc/base");
                assert_eq!(std::fs::read(base).unwrap(), b"shared", "{form} {way:?}");
                unpacked += 1;
            }
            assert_eq!(unpacked, 3, "{form} {way:?}");
            containerd.empty();
        }
    }
    containerd.stop();
}

#[test]
fn larder_loads_what_ctr_exports() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let containerd = Containerd::start("containerd-export");
    let shop = Shop::new("archive-from-ctr");
    let path = shop.path("ctr.tar");
    let mut all = BTreeMap::new();
    for docker in [false, true] {
        let image = image(13, docker);
        let pushed = registry.push(&image, if docker { "docker" } else { "oci" }, "v1").unwrap();
        containerd.ctr(&["content", "fetch", "--plain-http", "--platform", "linux/amd64", &pushed.name]);
        for form in [&[][..], &["--skip-manifest-json"]] {
            let how = [&EXPORT[..], &["--platform", "linux/amd64"], form].concat();
            containerd.ctr(&[&how[..], &[text(&path), &pushed.name]].concat());
            let own = Shop::new("archive-from-ctr-one");
            assert_eq!(own.load(&path), format!("Loaded image: {}\n", pushed.name), "{how:?}");
            let key = (pushed.name.clone(), "linux/amd64".to_owned());
            assert_eq!(own.images(), [(key, image.digest().to_string())].into(), "{how:?}");
            own.assert_clean();
        }
        all.insert(pushed.name, image.digest().to_string());
    }
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    containerd.ctr(&[&EXPORT[..], &["--platform", "linux/amd64", text(&path)], &names[..]].concat());
    shop.load(&path);
    let loaded: BTreeMap<_, _> =
        shop.images().into_iter().map(|((name, _), digest)| (name, digest)).collect();
    assert_eq!(loaded, all, "several in one archive");
    shop.assert_clean();
    containerd.stop();
}

#[test]
fn images_for_several_platforms_go_both_ways() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let containerd = Containerd::start("containerd-index");
    let platforms = ["linux/amd64", "linux/arm64"];
    for docker in [false, true] {
        let index = index(&platforms, docker);
        let pushed = registry.push(&index, if docker { "docker" } else { "oci" }, "v1").unwrap();
        containerd.ctr(&["content", "fetch", "--plain-http", "--all-platforms", &pushed.name]);
        assert_eq!(containerd.images(), [(pushed.name.clone(), index.digest().to_string())].into());
        let expected: Vec<_> = platforms
            .iter()
            .zip(&index.children)
            .map(|(platform, child)| {
                ((pushed.name.clone(), (*platform).to_owned()), child.digest().to_string())
            })
            .collect();
        let all = Shop::new("archive-from-ctr-index");
        let path = all.path("all.tar");
        containerd.ctr(&[&EXPORT[..], &["--all-platforms", text(&path), &pushed.name]].concat());
        all.load(&path);
        assert_eq!(all.images(), expected.iter().cloned().collect());
        assert_eq!(index_digests(&all), [index.digest().as_str(); 2]);
        all.assert_clean();

        // The index is whole, and one of its images is there.
        let one = Shop::new("archive-from-ctr-one");
        let path = one.path("one.tar");
        containerd.ctr(&[&EXPORT[..], &["--platform", platforms[1], text(&path), &pushed.name]].concat());
        one.load(&path);
        assert_eq!(one.images(), [expected[1].clone()].into());
        assert_eq!(index_digests(&one), [index.digest().as_str()]);
        one.assert_clean();
        containerd.empty();

        // All platforms are one name with the index's digest, as containerd itself has it; one platform is its manifest.
        let name = &pushed.name;
        let mut saves = vec![(None, index.digest().to_string())];
        saves
            .extend(expected.iter().map(|((_, platform), digest)| (Some(platform.as_str()), digest.clone())));
        for (platform, digest) in saves {
            let path = all.path("again.tar");
            let chosen: Vec<&str> = platform.iter().flat_map(|platform| ["--platform", *platform]).collect();
            all.larder(&[&["save", "--output", text(&path)][..], &chosen, &[name]].concat());
            let imported = if platform.is_some() { chosen } else { vec!["--all-platforms"] };
            for way in WAYS {
                let how = [&["images", "import", "--no-unpack"][..], &imported, way, &[text(&path)]].concat();
                containerd.ctr(&how);
                assert_eq!(
                    containerd.images(),
                    [(name.clone(), digest.clone())].into(),
                    "{way:?} {platform:?}"
                );
                containerd.empty();
            }
        }
    }
    containerd.stop();
}

fn index(platforms: &[&str], docker: bool) -> Image {
    let images = platforms.iter().zip(21..).map(|(platform, seed)| {
        let layer = Layer::random(seed, 100_000).unwrap();
        let builder = Image::builder().platform(platform).layer(&layer);
        if docker { builder.docker() } else { builder }.build().unwrap()
    });
    Image::index(&images.collect::<Vec<_>>()).unwrap()
}
