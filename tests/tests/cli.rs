//! The `larder` program on real stores: what users and their scripts see of it beside registries and archives.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use larder_tests::larder::binary;
use larder_tests::process::{Ran, run};
use larder_tests::tools::in_path;
use larder_tests::{Image, Layer, Registry, RegistryOptions, Scratch};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A user with a store and a home of their own.
struct User {
    scratch: Scratch,
}

impl User {
    fn new() -> Self {
        Self { scratch: Scratch::new("cli").unwrap() }
    }

    fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    fn env(&self) -> [(&'static str, PathBuf); 5] {
        [
            ("HOME", self.scratch.path().to_owned()),
            ("DOCKER_CONFIG", self.scratch.path().join("docker")),
            ("LARDER_STORE", self.store()),
            ("LARDER_HOSTS_DIR", self.scratch.path().join("certs.d")),
            ("NO_PROXY", "127.0.0.1,localhost".into()),
        ]
    }

    fn run(&self, args: &[&str], input: &str) -> Ran {
        let env = self.env();
        let env: Vec<(&str, &OsStr)> = env.iter().map(|(key, value)| (*key, value.as_os_str())).collect();
        run(&binary("larder").unwrap(), args, &env, input.as_bytes()).unwrap()
    }

    /// What it prints; it must succeed.
    fn ok(&self, args: &[&str]) -> String {
        self.run(args, "").ok().unwrap().stdout
    }

    fn fails(&self, args: &[&str], status: i32) -> String {
        let ran = self.run(args, "");
        assert_eq!(ran.status.code(), Some(status), "{args:?}: {}{}", ran.stdout, ran.stderr);
        ran.stderr
    }

    /// Started, with its standard streams in our hands.
    fn start(&self, args: &[&str]) -> Child {
        Command::new(binary("larder").unwrap())
            .args(args)
            .envs(self.env())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

fn registry() -> Registry {
    Registry::start(RegistryOptions::default()).unwrap()
}

fn image(seed: u64) -> Image {
    let layer = |seed| Layer::random(seed, 200_000).unwrap();
    let builder = Image::builder().layer(&layer(1)).layer(&layer(seed));
    builder.env("A=1").label("seed", &seed.to_string()).build().unwrap()
}

#[test]
fn what_is_pulled_can_be_listed_shown_named_and_removed() {
    let (user, registry) = (User::new(), registry());
    let image = image(7);
    let pushed = registry.push(&image, "team/app", "v1").unwrap();
    user.ok(&["pull", "-q", &pushed.name]);

    let row: Value =
        serde_json::from_str(&user.ok(&["images", "--no-trunc", "--digests", "--format", "json"])).unwrap();
    let id = image.blobs[0].digest.as_str();
    assert_eq!((&row["ID"], &row["Digest"]), (&json!(id), &json!(image.digest().as_str())));
    assert_eq!((&row["Repository"], &row["Tag"]), (&json!(pushed.repository), &json!("v1")));

    let document: Value = serde_json::from_str(&user.ok(&["inspect", &pushed.name])).unwrap();
    let shown = &document[0];
    assert_eq!((&shown["Id"], &shown["Size"]), (&json!(id), &json!(image.size())));
    assert_eq!(shown["RepoDigests"], json!([format!("{}@{}", pushed.repository, image.digest())]));
    assert_eq!(shown["Config"], json!({"Env": ["A=1"], "Labels": {"seed": "7"}}));

    // skopeo reads the same from the store as it stands.
    let layout = format!("oci:{}:{}", user.store().display(), pushed.name);
    let config = run(&in_path("skopeo").unwrap(), &["inspect", "--config", &layout], &[], b"").unwrap();
    let config = config.ok().unwrap().json().unwrap();
    assert_eq!(shown["RootFS"]["Layers"], config["rootfs"]["diff_ids"]);
    assert_eq!(shown["Created"], config["created"]);

    let history = user.ok(&["history", "--human=false", "--format", "{{.Size}}", &pushed.name]);
    let mut sizes: Vec<String> = image.layers().iter().map(|layer| layer.size().to_string()).collect();
    sizes.reverse();
    assert_eq!(history.lines().collect::<Vec<_>>(), sizes);

    user.ok(&["tag", &pushed.name, "mine:1"]);
    let layout = format!("oci:{}:docker.io/library/mine:1", user.store().display());
    let raw =
        run(&in_path("skopeo").unwrap(), &["inspect", "--raw", &layout], &[], b"").unwrap().ok().unwrap();
    assert!(
        image.digest().matches(raw.stdout.as_bytes()),
        "skopeo finds the new name, and the manifest's own bytes"
    );

    assert_eq!(
        user.ok(&["rmi", &pushed.name]).lines().next(),
        Some(format!("Untagged: {}", pushed.name).as_str())
    );
    assert!(user.ok(&["rmi", "mine:1"]).ends_with(&format!("Deleted: {id}\n")));
    let left = std::fs::read_dir(user.store().join("blobs/sha256")).unwrap().count();
    assert_eq!(left, 0, "no blob stays behind");
}

#[test]
fn verify_finds_every_kind_of_damage_and_fetches_it_again() {
    let (user, registry) = (User::new(), registry());
    let image = image(3);
    let pushed = registry.push(&image, "app", "v1").unwrap();
    user.ok(&["pull", "-q", &pushed.name]);
    assert!(user.ok(&["verify"]).ends_with(": all as they should be\n"));

    let blob = |digest: &larder_oci::Digest| user.store().join("blobs/sha256").join(digest.hex());
    let (config, layers) = (&image.blobs[0], image.layers());
    for damage in 0..4 {
        match damage {
            // One bit of a layer; another is missing altogether.
            0 => {
                let mut bytes = layers[0].bytes.to_vec();
                bytes[1000] ^= 1;
                std::fs::write(blob(&layers[0].digest), bytes).unwrap();
                std::fs::remove_file(blob(&layers[1].digest)).unwrap();
            }
            1 => std::fs::write(blob(&config.digest), "{}").unwrap(),
            2 => std::fs::write(blob(image.digest()), "{").unwrap(),
            _ => std::fs::remove_file(blob(image.digest())).unwrap(),
        }
        let before = std::fs::read_dir(user.store().join("blobs/sha256")).unwrap().count();
        let report = user.run(&["verify", "--no-mend"], "");
        assert_eq!(report.status.code(), Some(1), "{}", report.stdout);
        assert!(report.stdout.contains(&format!(" ({})\n", pushed.name)), "{}", report.stdout);
        let after = std::fs::read_dir(user.store().join("blobs/sha256")).unwrap().count();
        assert_eq!(before, after, "--no-mend touches nothing");

        let mended = user.ok(&["verify"]);
        assert!(mended.contains(&format!("Mended: {}\n", pushed.name)), "{mended}");
        let report: Value = serde_json::from_str(&user.ok(&["verify", "--output", "json"])).unwrap();
        assert_eq!((&report["Checked"], &report["Found"]), (&json!(4), &json!([])));
        assert_eq!(
            user.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]),
            format!("{}\n", pushed.name)
        );
    }
}

#[test]
fn verify_mends_by_digest_though_the_tag_has_moved() {
    let (user, registry) = (User::new(), registry());
    let (old, new) = (image(1), image(2));
    let pushed = registry.push(&old, "app", "v1").unwrap();
    user.ok(&["pull", "-q", &pushed.name]);
    user.ok(&["tag", &pushed.name, "only-here"]);
    registry.push(&new, "app", "v1").unwrap();
    std::fs::write(user.store().join("blobs/sha256").join(old.layers()[0].digest.hex()), "x").unwrap();
    user.ok(&["verify"]);
    let ids = user.ok(&["inspect", "-f", "{{.Id}}", &pushed.name, "only-here"]);
    assert_eq!(ids, format!("{0}\n{0}\n", old.blobs[0].digest), "the image is the one that it was");
}

#[test]
fn verify_says_what_it_cannot_mend() {
    let (user, registry) = (User::new(), registry());
    let image = image(5);
    let pushed = registry.push(&image, "app", "v1").unwrap();
    user.ok(&["pull", "-q", &pushed.name]);
    user.ok(&["tag", &pushed.name, &format!("{}/nowhere:1", registry.host())]);
    user.ok(&["rmi", &pushed.name]);
    std::fs::write(user.store().join("blobs/sha256").join(image.layers()[0].digest.hex()), "x").unwrap();
    let error = user.fails(&["verify"], 1);
    assert!(error.starts_with(&format!("Error: cannot mend {}/nowhere:1: ", registry.host())), "{error}");
}

#[test]
fn exit_statuses_are_those_of_docker() {
    let user = User::new();
    let unknown = user.fails(&["images", "--nope"], 125);
    assert!(unknown.starts_with("unknown flag: --nope\n\nUsage:  larder images [OPTIONS]"), "{unknown}");
    assert!(unknown.ends_with("Run 'larder images --help' for more information\n"), "{unknown}");
    let unknown = user.fails(&["image", "rm", "-z", "x"], 125);
    assert!(unknown.starts_with("unknown shorthand flag: 'z' in -z\n"), "{unknown}");
    assert!(
        user.fails(&["images", "--filter", "x"], 125).contains("bad format of filter (expected name=value)")
    );
    assert!(user.fails(&["frobnicate"], 1).starts_with("larder: unknown command: larder frobnicate\n"));
    assert!(user.fails(&["rmi"], 1).starts_with("larder: 'larder rm' requires at least 1 argument\n"));
    assert!(user.fails(&["images", "--format", "{{.ID"], 64).starts_with("template parsing error: "));
    assert_eq!(user.fails(&["history", "nope"], 1), "Error: No such image: nope:latest\n");
    assert!(user.ok(&["--version"]).starts_with("larder "));
    assert!(user.ok(&["image", "--help"]).contains("prune"));
}

#[test]
fn a_folder_that_is_no_store_is_refused() {
    let user = User::new();
    let folder = user.scratch.folder("home").unwrap();
    std::fs::write(folder.join("letter.txt"), "dear").unwrap();
    let error = user.fails(&["--store", folder.to_str().unwrap(), "images"], 1);
    assert!(error.contains("is not a layer store: it holds letter.txt"), "{error}");
}

#[test]
fn prune_asks_first() {
    let (user, registry) = (User::new(), registry());
    let pushed = registry.push(&image(1), "app", "v1").unwrap();
    user.ok(&["pull", "-q", &pushed.name]);
    for answer in ["", "n\n", "yes please\n"] {
        let ran = user.run(&["prune", "--all"], answer).ok().unwrap();
        assert_eq!(
            ran.stdout,
            "WARNING! This will remove all images without at least one container associated to them.\n\
             Are you sure you want to continue? [y/N] "
        );
    }
    assert_eq!(user.ok(&["images", "-q"]).lines().count(), 1);
    let ran = user.run(&["prune", "--all"], "y\n").ok().unwrap();
    assert!(ran.stdout.contains("Deleted Images:\nuntagged: "), "{}", ran.stdout);
    assert_eq!(user.ok(&["images", "-q"]), "");
}

#[test]
fn a_signal_ends_it_with_128_and_its_number() {
    let user = User::new();
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = user.start(&["prune"]);
        // To wait for a child closes its input, which would be an answer.
        let input = child.stdin.take();
        // The first line is out when the handlers are in place.
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status));
        drop(input);
    }
}

#[test]
fn nobody_reading_is_no_error_to_speak_of() {
    let user = User::new();
    let mut child = user.start(&["completion", "zsh"]);
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!((status.code(), status.signal(), error.as_str()), (Some(141), None, ""));
}

#[test]
fn without_a_command_it_says_what_it_can_do() {
    let user = User::new();
    assert!(user.ok(&[]).contains("Commands:\n  images "));
    assert!(user.ok(&["image"]).contains("Commands:\n  images "));
}

#[test]
fn completions_and_manual_pages_are_well_formed() {
    let user = User::new();
    let script = user.scratch.write("larder.bash", user.ok(&["completion", "bash"])).unwrap();
    let bash = in_path("bash").unwrap();
    let complete = format!(
        "source {} && COMP_WORDS=(larder pru) COMP_CWORD=1 && _larder larder pru larder && echo \"${{COMPREPLY[*]}}\"",
        script.display()
    );
    let offered = run(&bash, &["-c", &complete], &[], b"").unwrap().ok().unwrap();
    assert_eq!(offered.stdout, "prune\n");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(user.ok(&["completion", shell]).contains("larder"), "{shell}");
    }
    let pages = user.scratch.path().join("man/man1");
    user.ok(&["man", pages.to_str().unwrap()]);
    let page = std::fs::read_to_string(pages.join("larder-prune.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("keep\\-newest"), "{page}");
}

#[test]
fn commands_on_one_store_at_once() {
    let (user, registry) = (User::new(), registry());
    let names: Vec<String> =
        (0..4).map(|seed| registry.push(&image(seed), "app", &format!("v{seed}")).unwrap().name).collect();
    let user = &user;
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(move || {
                for _ in 0..3 {
                    user.ok(&["pull", "-q", name]);
                    user.ok(&["rmi", name]);
                }
                user.ok(&["pull", "-q", name]);
            });
        }
        scope.spawn(|| {
            for _ in 0..6 {
                user.ok(&["prune", "-f"]);
                user.ok(&["images"]);
            }
        });
    });
    assert_eq!(user.ok(&["images", "-q"]).lines().count(), names.len());
    assert!(user.ok(&["verify", "--no-mend"]).contains("all as they should be"));
}

#[test]
fn an_unprivileged_user_has_a_store_at_home() {
    if !larder_tests::tools::is_root() {
        return;
    }
    let user = User::new();
    let data = user.scratch.folder("data").unwrap();
    std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(user.scratch.path(), open).unwrap();
    let program = user.scratch.path().join("larder");
    std::fs::copy(binary("larder").unwrap(), &program).unwrap();
    let ran = Command::new(&program)
        .arg("images")
        .env_clear()
        .env("XDG_DATA_HOME", &data)
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(data.join("larder/oci-layout").is_file());
}
