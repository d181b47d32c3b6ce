use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use larder_tests::Scratch;
use larder_tests::larder::{OwnImage, binary, images};
use larder_tests::process::{Ran, run};
use larder_tests::tools::{in_path, is_root};
use serde_json::{Value, json};

pub const REPOSITORY: &str = "registry.test/larder-dev";
pub const TAG: &str = "test";

/// The images, made once for all tests that run at the same time.
#[derive(Debug)]
pub struct Images {
    pub operator: OwnImage,
    pub agent: OwnImage,
    _scratch: Scratch,
}

pub fn shared() -> Arc<Images> {
    // Weak, so that the last test removes the folder: what a static holds is never dropped.
    static SHARED: Mutex<Weak<Images>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(images) = shared.upgrade() {
        return images;
    }
    let scratch = Scratch::new("images").unwrap();
    let [operator, agent] = images(scratch.path(), REPOSITORY, TAG).unwrap();
    let images = Arc::new(Images { operator, agent, _scratch: scratch });
    *shared = Arc::downgrade(&images);
    images
}

/// An image, unpacked by umoci, for runc: user, environment and command are what umoci read in the image.
pub struct Bundle {
    scratch: Scratch,
    config: Value,
}

impl Bundle {
    /// By way of a layer store of ours.
    pub fn unpack(image: &OwnImage) -> Self {
        assert!(is_root(), "this test runs containers: run the tests as root");
        let scratch = Scratch::new("bundle").unwrap();
        let store = scratch.path().join("store");
        let load = ["--store", text(&store), "load", "--input", text(&image.archive)];
        let loaded = run(&binary("larder").unwrap(), &load, &[], b"").unwrap().ok().unwrap();
        assert_eq!(loaded.stdout, format!("Loaded image: {}\n", image.name));
        let layout = format!("{}:{}", store.display(), image.name);
        let bundle = scratch.path().join("bundle");
        let umoci = ["unpack", "--image", &layout, text(&bundle)];
        run(&in_path("umoci").unwrap(), &umoci, &[], b"").unwrap().ok().unwrap();
        let config = std::fs::read(bundle.join("config.json")).unwrap();
        Self { scratch, config: serde_json::from_slice(&config).unwrap() }
    }

    pub fn root(&self) -> PathBuf {
        self.scratch.path().join("bundle/rootfs")
    }

    /// The process as the image describes it.
    pub fn process(&self) -> &Value {
        &self.config["process"]
    }

    /// A folder that the containers see at `path`, and may write to.
    pub fn mount(&mut self, path: &str) {
        let folder = self.scratch.folder("mounted").unwrap();
        let mount =
            json!({"destination": path, "type": "bind", "source": folder, "options": ["rbind", "rw"]});
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Shares the network of the test, that is, its loopback.
    pub fn share_network(&mut self) {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
    }

    /// Runs a program as a pod of ours would: no capabilities, no way to get any, nothing of the root writable.
    pub fn run(&mut self, args: &[&str]) -> Ran {
        let id = self.scratch.path().file_name().unwrap().to_str().unwrap().to_owned();
        self.config["process"]["terminal"] = false.into();
        self.config["process"]["args"] = args.into();
        self.config["process"]["capabilities"] = json!({});
        self.config["process"]["noNewPrivileges"] = true.into();
        self.config["root"]["readonly"] = true.into();
        self.config["linux"]["cgroupsPath"] = format!("/{id}").into();
        let bundle = self.scratch.path().join("bundle");
        std::fs::write(bundle.join("config.json"), self.config.to_string()).unwrap();
        let state = self.scratch.path().join("runc");
        // In a process namespace of its own: what runs there ends with us, however we end.
        let unshare = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
        let runc = in_path("runc").unwrap();
        let runc = [text(&runc), "--root", text(&state), "run", "--bundle", text(&bundle), &id];
        run(&in_path("unshare").unwrap(), &[&unshare[..], &runc].concat(), &[], b"").unwrap()
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
