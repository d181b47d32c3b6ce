//! A disk that is full at any byte of any verb: one clear error, nothing lost, and the same command does its work once there
//! is space.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use fastrand::Rng;
use larder_tests::{Registry, RegistryOptions};

use crate::{
    disk::{Disk, Mounted},
    figures::Figures,
    kills::nothing_leaks,
    look::Look,
    model::Names,
    private,
    settings::Settings,
    shop::Shop,
};

const PASSWORD: &str = "a-password-nobody-may-see";

/// What is free where nothing is said of it, in bytes.
const PLENTY: u64 = 1 << 30;

/// A command that needs space.
struct Case {
    what: &'static str,
    args: Vec<String>,
    input: &'static str,
    /// In a folder where there is no store yet.
    fresh: bool,
    /// Names that it takes away.
    takes: Vec<String>,
    /// Names that are there when it is done.
    gives: Vec<String>,
    output: Option<PathBuf>,
    /// It works on a full disk too: it is how there comes to be space.
    always: bool,
}

#[test]
fn a_full_disk_is_one_clear_error_and_nothing_is_lost() {
    private::run("full::any_byte");
}

#[test]
#[ignore = "run by the test above, in a mount namespace"]
fn any_byte() {
    if !private::is_inside() {
        return;
    }
    let settings = Settings::of("LARDER_DISK_FULL_PLACES", 4);
    println!("disk full: {} places a verb, seed {}", settings.count, settings.seed);
    let bench = Bench::new();
    println!(
        "| verb | bytes it needs | places | refused | done all the same |\n| --- | ---: | ---: | ---: | ---: |"
    );
    for case in bench.cases() {
        bench.sweep(&case, &settings);
    }
}

struct Bench {
    shop: Shop,
    guarded: Registry,
    folder: PathBuf,
    /// A disk with a store that holds two images, one of them twice named, and an archive.
    ready: Disk,
    names: Names,
}

impl Bench {
    fn new() -> Self {
        let shop = Shop::open();
        let login = Some(("user".to_owned(), PASSWORD.to_owned()));
        let guarded = Registry::start(RegistryOptions { login, ..RegistryOptions::default() }).unwrap();
        let folder = shop.scratch.folder("disk").unwrap();
        let mut bench = Self { shop, guarded, folder, ready: Disk::new(), names: Names::new() };
        let mounted = Mounted::new(Disk::new(), &bench.folder);
        let name = |number: usize| bench.shop.images[number].0.clone();
        for args in [
            vec!["pull", "-q", &name(0)],
            vec!["pull", "-q", &name(1)],
            vec!["tag", &name(0), &bench.shop.further[0]],
            vec!["save", "-o", bench.out("old.tar").to_str().unwrap(), &name(0)],
        ] {
            assert!(bench.run(&owned(&args), "").status.success(), "{args:?}");
        }
        bench.names = Look::new(&bench.store()).look().unwrap().names;
        bench.ready = mounted.unmount();
        bench
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn run(&self, args: &[String], input: &str) -> Output {
        let mut command = self.shop.larder(&self.store());
        command.env("DOCKER_CONFIG", self.folder.join("docker")).env("TMPDIR", &self.folder);
        let mut child = command.args(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        child.wait_with_output().unwrap()
    }

    fn cases(&self) -> Vec<Case> {
        let name = |number: usize| self.shop.images[number].0.clone();
        let case = |what, args: &[&str]| Case {
            what,
            args: owned(args),
            input: "",
            fresh: false,
            takes: Vec::new(),
            gives: Vec::new(),
            output: None,
            always: false,
        };
        let (app0, app1, app2, app3) = (name(0), name(1), name(2), name(3));
        let further = &self.shop.further[1];
        let archive = |file: &str| self.shop.scratch.path().join("archives").join(file).display().to_string();
        let [plain, docker, squeezed] = ["3.tar", "3-docker.tar", "3.tar.gz"].map(archive);
        let (new, old) = (self.out("new.tar"), self.out("old.tar"));
        let host = self.guarded.host();
        vec![
            Case { gives: vec![app3.clone()], ..case("pull", &["pull", "-q", &app3]) },
            Case { gives: vec![app2.clone()], ..case("pull, most is there", &["pull", "-q", &app2]) },
            Case {
                gives: vec![app3.clone()],
                fresh: true,
                ..case("pull, a new store", &["pull", "-q", &app3])
            },
            Case { gives: vec![app3.clone()], ..case("load", &["load", "-q", "-i", &plain]) },
            Case { gives: vec![app3.clone()], ..case("load, docker's form", &["load", "-q", "-i", &docker]) },
            Case { gives: vec![app3.clone()], ..case("load, gzip", &["load", "-q", "-i", &squeezed]) },
            Case { output: Some(new.clone()), ..case("save", &["save", "-o", new.to_str().unwrap(), &app1]) },
            Case {
                output: Some(old.clone()),
                ..case("save over another", &["save", "-o", old.to_str().unwrap(), &app1])
            },
            Case { gives: vec![further.clone()], ..case("tag", &["tag", &app0, further]) },
            Case { takes: vec![app1.clone()], always: true, ..case("rm", &["rm", &app1]) },
            Case {
                takes: self.names.keys().cloned().collect(),
                always: true,
                ..case("prune -a", &["prune", "-a", "-f"])
            },
            Case { input: PASSWORD, ..case("login", &["login", "-u", "user", "--password-stdin", &host]) },
            case("images", &["images"]),
            case("df", &["df"]),
        ]
    }

    fn sweep(&self, case: &Case, settings: &Settings) {
        let needed = self.needed(case);
        let mut random = Rng::with_seed(settings.seed);
        let mut places: Vec<u64> = [0, 1, needed.saturating_sub(1)].into();
        places.extend((0..settings.count).map(|_| random.u64(..needed.max(1))));
        places.retain(|place| *place < needed);
        places.sort_unstable();
        places.dedup();
        let mut refused = 0;
        for place in &places {
            refused += usize::from(self.trial(case, *place, settings.seed));
        }
        assert!(refused == 0 || !case.always, "{} needs space", case.what);
        assert!(!self.trial(case, needed, settings.seed), "{}: {needed} bytes are enough", case.what);
        let done = places.len() - refused;
        println!("| {} | {needed} | {} | {refused} | {done} |", case.what, places.len());
    }

    fn disk(&self, case: &Case) -> Disk {
        if case.fresh { Disk::new() } else { self.ready.clone() }
    }

    /// How many bytes the command needs.
    fn needed(&self, case: &Case) -> u64 {
        let mounted = Mounted::new(self.disk(case), &self.folder);
        mounted.disk().limit(Some(PLENTY));
        let ran = self.run(&case.args, case.input);
        assert!(ran.status.success(), "{}: {}", case.what, text(&ran.stderr));
        let lowest = mounted.disk().lowest();
        PLENTY - lowest
    }

    /// Runs the command where so many bytes are free, and again where there are plenty. Whether it was refused.
    fn trial(&self, case: &Case, free: u64, seed: u64) -> bool {
        let mounted = Mounted::new(self.disk(case), &self.folder);
        let wrong = |what: &str, ran: &Output| -> ! {
            panic!(
                "{}, {free} bytes free, seed {seed}: {what}: {}\n{}{}",
                case.what,
                ran.status,
                text(&ran.stdout),
                text(&ran.stderr)
            )
        };
        mounted.disk().limit(Some(free));
        let ran = self.run(&case.args, case.input);
        let refused = !ran.status.success();
        if refused {
            if let Err(why) = clear(&ran, &self.folder) {
                wrong(&why, &ran);
            }
            self.nothing_lost(case).unwrap_or_else(|why| wrong(&why, &ran));
        }
        mounted.disk().limit(Some(PLENTY));
        let again = self.run(&case.args, case.input);
        let gone = case.takes.len() == 1 && !refused;
        if !again.status.success() && !gone {
            wrong("not even with space", &again);
        }
        let mut look = Look::new(&self.store());
        let found = look.look().unwrap_or_else(|why| wrong(&why, &again));
        for (names, there) in [(&case.gives, true), (&case.takes, false)] {
            if names.iter().any(|name| found.names.contains_key(name) != there) {
                wrong(&format!("it did not do its work: {:?}", found.names), &again);
            }
        }
        nothing_leaks(&self.shop, &self.store(), &mut look, &Figures::new());
        let strangers = leftovers(&self.folder);
        assert!(strangers.is_empty(), "{}, {free} bytes free: {strangers:?}", case.what);
        drop(mounted.unmount());
        refused
    }

    /// What was there before is there still.
    fn nothing_lost(&self, case: &Case) -> Result<(), String> {
        let seen = Look::new(&self.store()).look()?;
        let lost = self.names.iter().find(|(name, id)| !case.fresh && seen.names.get(*name) != Some(*id));
        if let Some((name, _)) = lost {
            return Err(format!("{name} is lost"));
        }
        let old = self.out("old.tar");
        if !case.fresh {
            let size = std::fs::metadata(&old).map_err(|error| error.to_string())?.len();
            if size % 512 != 0 || size < 1_000_000 {
                return Err(format!("the old archive has {size} bytes"));
            }
        }
        match &case.output {
            Some(path) if *path != old && path.exists() => Err("half an archive is there".to_owned()),
            _ => Ok(()),
        }
    }
}

/// One line that says what is full and what to do, and no secret.
fn clear(ran: &Output, folder: &Path) -> Result<(), String> {
    let said = text(&ran.stderr);
    let lines = said.lines().filter(|line| !line.is_empty()).count();
    if ran.status.code() != Some(1) || lines != 1 {
        return Err(format!("not exit status 1 with one line, but {lines}"));
    }
    let place = folder.to_str().unwrap_or_default();
    for words in ["no space left", "free some space", place] {
        if !said.contains(words) {
            return Err(format!("it does not say {words:?}"));
        }
    }
    if said.contains(PASSWORD) { Err("it says the password".to_owned()) } else { Ok(()) }
}

/// What is beside the store and has no business there.
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut left = crate::look::files(folder);
    let known = ["store", "old.tar", "new.tar", "docker"].map(|name| folder.join(name));
    left.retain(|path| !known.contains(path));
    let docker = crate::look::files(&folder.join("docker"));
    left.extend(docker.into_iter().filter(|path| !path.ends_with("config.json")));
    left
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
