//! A folder with a store, and `larder` run on it.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use larder_tests::{
    Image, Layer, Program, Registry, Scratch,
    larder::binary,
    process::{Ran, run},
    tools::in_path,
};

/// A place of its own for one test: store, logins, host configuration.
pub struct Desk {
    pub scratch: Scratch,
}

impl Desk {
    pub fn new() -> Self {
        Self { scratch: Scratch::new("registry-cli").unwrap() }
    }

    pub fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    /// Runs `larder` to its end.
    pub fn larder(&self, args: &[&str]) -> Ran {
        self.larder_with(args, &[], "")
    }

    /// Runs it and expects success.
    pub fn ok(&self, args: &[&str]) -> String {
        self.larder(args).ok().unwrap().stdout
    }

    /// Runs it and expects exit status 1; gives what it said on stderr.
    pub fn fails(&self, args: &[&str]) -> String {
        let ran = self.larder(args);
        assert_eq!(ran.status.code(), Some(1), "{}{}", ran.stdout, ran.stderr);
        ran.stderr
    }

    pub fn larder_with(&self, args: &[&str], more: &[(&str, &OsStr)], input: &str) -> Ran {
        let env = self.env();
        let mut env: Vec<(&str, &OsStr)> =
            env.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
        env.extend_from_slice(more);
        run(&binary("larder").unwrap(), args, &env, input.as_bytes()).unwrap()
    }

    /// The same in the background, to be killed or to run beside others.
    pub fn start(&self, name: &str, args: &[&str]) -> Program {
        let program = Program::new(name, &binary("larder").unwrap(), self.scratch.path()).args(args);
        let program = self.env().into_iter().fold(program, |program, (name, value)| program.env(name, value));
        program.start().unwrap();
        program
    }

    fn env(&self) -> Vec<(&'static str, OsString)> {
        let path = |name: &str| self.scratch.path().join(name).into_os_string();
        vec![
            ("LARDER_STORE", path("store")),
            ("LARDER_HOSTS_DIR", path("certs.d")),
            ("DOCKER_CONFIG", path("docker")),
            ("HOME", path("home")),
            ("NO_PROXY", "127.0.0.1,localhost".into()),
        ]
    }

    /// Writes a registry's `hosts.toml`.
    pub fn hosts(&self, registry: &str, toml: &str) {
        let folder = format!("certs.d/{}_", registry.replace(':', "_"));
        self.scratch.folder(&folder).unwrap();
        self.scratch.write(&format!("{folder}/hosts.toml"), toml).unwrap();
    }

    /// What skopeo says of an image in the store.
    pub fn skopeo(&self, name: &str) -> serde_json::Value {
        let image = format!("oci:{}:{name}", self.store().display());
        serde_json::from_str(&tool("skopeo", &["inspect", &image])).unwrap()
    }

    /// Every blob at its name has its digest, and nothing is left half made.
    pub fn check_store(&self) {
        let blobs = self.store().join("blobs/sha256");
        let mut count = 0;
        for entry in std::fs::read_dir(&blobs).unwrap() {
            let path = entry.unwrap().path();
            let digest = larder_oci::Digest::sha256(&std::fs::read(&path).unwrap());
            assert_eq!(path.file_name().unwrap().to_str().unwrap(), digest.hex());
            count += 1;
        }
        assert!(count > 0);
        let partial = self.store().join(".larder/partial/sha256");
        let left: Vec<_> = std::fs::read_dir(partial).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Runs a program of another project.
pub fn tool(program: &str, args: &[&str]) -> String {
    let none: [(&str, &OsStr); 0] = [];
    run(&in_path(program).unwrap(), args, &none, b"").unwrap().ok().unwrap().stdout
}

/// A registry on plain HTTP, without logins.
pub fn registry() -> Registry {
    Registry::start(larder_tests::RegistryOptions::default()).unwrap()
}

/// An image for this machine of random layers of these sizes.
pub fn image(seed: u64, sizes: &[usize]) -> Image {
    image_for(&larder_oci::Platform::host().to_string(), seed, sizes)
}

pub fn image_for(platform: &str, seed: u64, sizes: &[usize]) -> Image {
    let layers = sizes.iter().zip(seed..).map(|(size, seed)| Layer::random(seed, *size).unwrap());
    layers
        .fold(Image::builder().platform(platform), |builder, layer| builder.layer(&layer))
        .env(&format!("SEED={seed}"))
        .build()
        .unwrap()
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o777
}
