//! One pull: a process of `larder` against a proxy, and what is said of it afterwards.

use std::fmt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use larder_oci::Digest;
use larder_tests::{Program, Proxy, Scratch};
use serde_json::{Value, json};

use super::case::{Case, Draw, Expect};
use super::catalogue::{Entry, Site};
use super::world::{PASSWORD, Subject, USER, World};

/// A pull that takes longer hangs: several times what the slowest fault can cost with the timeouts that are set.
const LIMIT: Duration = Duration::from_secs(120);
/// The most memory that a pull may take, in KiB, as the kernel counts it.
const MEMORY: u64 = 96 << 10;
/// How often to look at a pull's memory.
const LOOK: Duration = Duration::from_millis(10);
/// The longest error, in bytes: what fits into an event.
const MESSAGE: usize = 1000;

/// How a pull ended.
pub struct Outcome {
    /// Its number.
    pub number: usize,
    /// The fault.
    pub name: &'static str,
    /// The choices.
    pub what: String,
    /// Whether the image was brought.
    pub right: bool,
    /// What the user was told otherwise.
    pub message: String,
    /// How long it took.
    pub wall: Duration,
    /// The most memory it had, in KiB.
    pub peak: u64,
    /// Requests that came through.
    pub requests: usize,
    /// What must not be.
    pub wrong: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = self.wrong.as_deref().unwrap_or("as it should be");
        write!(f, "pull {}, {}: {}\n  {wrong}", self.number, self.name, self.what)
    }
}

/// A process that has ended.
struct Ended {
    /// Absent: it had to be killed.
    status: Option<ExitStatus>,
    stderr: String,
    wall: Duration,
    peak: u64,
}

/// Makes the choices, pulls, and judges.
pub fn run(world: &World, entry: &Entry, seed: u64, number: usize) -> anyhow::Result<Outcome> {
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
    let subject = if entry.large { &world.large } else { &world.small[rng.usize(..world.small.len())] };
    let proxy = match entry.site {
        Site::Open => Proxy::start(&world.open.host())?,
        Site::Tokens => Proxy::start(&world.closed.host())?,
        Site::Tls => Proxy::start_tls(&world.open.host(), &world.authority)?,
    };
    let mut draw = Draw { rng, world, subject, proxy: &proxy, hits: Vec::new() };
    let case = (entry.make)(&mut draw);
    let hits = draw.hits;
    let desk = Desk::new(world, entry, &proxy, &case)?;
    let ended = desk.pull(&world.larder, subject, &case)?;
    let requests = std::iter::once(&proxy).chain(&case.others).map(|proxy| proxy.exchanges().len()).sum();
    let mut wrong = judge(&ended, &case, &desk, subject).err();
    if wrong.is_none() && !hits.is_empty() && hits.iter().all(|hits| hits.count() == 0) {
        wrong = Some("the fault never happened".to_owned());
    }
    if wrong.is_none() && entry.site == Site::Tokens && case.expect == Expect::Right {
        let renewed = proxy.exchanges().iter().any(|exchange| exchange.authorized && exchange.status == 401);
        wrong = (!renewed).then(|| "no token ended".to_owned());
    }
    let right = ended.status.is_some_and(|status| status.success());
    if wrong.is_none() && !right && case.raw.is_none() {
        // Whatever was left must not stand in the way once all is well.
        proxy.clear();
        let healthy = Case::right("without the fault");
        let healthy = Case { mirrored: case.mirrored.clone(), ..healthy };
        let again = desk.pull(&world.larder, subject, &healthy)?;
        wrong = judge(&again, &healthy, &desk, subject)
            .err()
            .map(|why| format!("pulled again without the fault: {why}"));
    }
    Ok(Outcome {
        number,
        name: entry.name,
        what: format!("{}, {}", subject.repository, case.what),
        right,
        message: if right { String::new() } else { ended.stderr.trim().to_owned() },
        wall: ended.wall,
        peak: ended.peak,
        requests,
        wrong,
    })
}

/// A store, logins and host configuration of one pull.
struct Desk {
    scratch: Scratch,
    host: String,
}

impl Desk {
    fn new(world: &World, entry: &Entry, proxy: &Proxy, case: &Case) -> anyhow::Result<Self> {
        let scratch = Scratch::new("fault")?;
        let host = match (&case.raw, &case.mirrored) {
            (Some(raw), _) => raw.host(),
            (None, Some((own, _))) => own.clone(),
            (None, None) => proxy.host(),
        };
        let hosts = match (&case.mirrored, entry.site) {
            (Some((_, hosts)), _) => Some(hosts.clone()),
            (None, Site::Tls) => {
                let ca = scratch.write("ca.crt", world.authority.pem())?;
                Some(format!("server = 'https://{host}'\nca = '{}'\n", ca.display()))
            }
            _ => None,
        };
        if let Some(hosts) = hosts {
            let folder = format!("certs.d/{}_", host.replace(':', "_"));
            scratch.folder(&folder)?;
            scratch.write(&format!("{folder}/hosts.toml"), hosts)?;
        }
        if entry.site == Site::Tokens {
            scratch.folder("docker")?;
            let logins = json!({"auths": {(&host): {"username": USER, "password": PASSWORD}}});
            scratch.write("docker/config.json", logins.to_string())?;
        }
        Ok(Self { scratch, host })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path().join(name)
    }

    fn pull(&self, larder: &Path, subject: &Subject, case: &Case) -> anyhow::Result<Ended> {
        let name = format!("{}/{}:v1", self.host, subject.repository);
        let log = self.path("larder.log");
        std::fs::remove_file(&log).ok();
        let mut program = Program::new("larder", larder, self.scratch.path())
            .stdout(&self.path("stdout"))
            .args(["pull", "--quiet", &name])
            .env("LARDER_STORE", self.path("store"))
            .env("LARDER_HOSTS_DIR", self.path("certs.d"))
            .env("LARDER_RUNTIME", "none")
            .env("LARDER_STALL_TIMEOUT", case.stall_timeout.to_string())
            .env("DOCKER_CONFIG", self.path("docker"))
            .env("HOME", self.path("home"))
            .env("NO_PROXY", "127.0.0.1,localhost");
        if let Some(retry) = case.retry {
            program = program.args([format!("--retry={retry}")]);
        }
        let (began, mut peak) = (Instant::now(), 0);
        program.start()?;
        while program.exit_status().is_none() && began.elapsed() < LIMIT {
            peak = peak.max(program.id().and_then(high_water_mark).unwrap_or_default());
            std::thread::sleep(LOOK);
        }
        let (status, wall) = (program.exit_status(), began.elapsed());
        program.kill();
        Ok(Ended { status, stderr: program.log()?, wall, peak })
    }
}

/// The most memory that a process had so far, in KiB.
fn high_water_mark(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// What is wrong with how a pull ended, and with what it left.
fn judge(ended: &Ended, case: &Case, desk: &Desk, subject: &Subject) -> Result<(), String> {
    let stderr = ended.stderr.trim();
    let Some(status) = ended.status else {
        return Err(format!("it was not over after {} s: {stderr}", LIMIT.as_secs()));
    };
    check_blobs(&desk.path("store"))?;
    if ended.peak > MEMORY {
        return Err(format!("it took {} MiB of memory", ended.peak >> 10));
    }
    if stderr.contains(PASSWORD) || stderr.contains("panicked") {
        return Err(format!("it said what it must not: {stderr}"));
    }
    let is_there = named_in_store(&desk.path("store"), subject);
    match (status.code(), case.expect) {
        (Some(0), Expect::Right | Expect::Either) => complete(&desk.path("store"), subject, is_there),
        (Some(0), Expect::Error(_)) => Err("it claims to have the image".to_owned()),
        (Some(1), Expect::Right) => Err(format!("it gave up: {stderr}")),
        (Some(1), expect) => {
            if is_there {
                return Err("it failed, and has the image".to_owned());
            }
            one_clear_error(stderr, expect)
        }
        _ => Err(format!("it ended with {status}: {stderr}")),
    }
}

fn one_clear_error(stderr: &str, expect: Expect) -> Result<(), String> {
    if stderr.is_empty() || stderr.lines().count() > 1 || stderr.len() > MESSAGE {
        return Err(format!("this is not one clear error: {stderr}"));
    }
    match expect {
        Expect::Error(texts) if !texts.iter().any(|text| stderr.contains(text)) => {
            Err(format!("expected an error with one of {texts:?}: {stderr}"))
        }
        _ => Ok(()),
    }
}

/// Every blob at its name must have that digest.
fn check_blobs(store: &Path) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(store.join("blobs/sha256")) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if path.file_name().is_none_or(|name| name != Digest::sha256(&bytes).hex()) {
            return Err(format!("a wrong blob in the store: {}", path.display()));
        }
    }
    Ok(())
}

/// Whether the store's index names the image.
fn named_in_store(store: &Path, subject: &Subject) -> bool {
    let index = std::fs::read(store.join("index.json")).unwrap_or_default();
    let index: Value = serde_json::from_slice(&index).unwrap_or_default();
    let listed = index["manifests"].as_array().into_iter().flatten();
    listed.into_iter().any(|listed| listed["digest"] == subject.image.digest().as_str())
}

fn complete(store: &Path, subject: &Subject, is_there: bool) -> Result<(), String> {
    if !is_there {
        return Err("it claims to have the image, which is not in index.json".to_owned());
    }
    let manifests = [&subject.image.manifest, &subject.target().manifest];
    for blob in subject.blobs().iter().chain(manifests) {
        let path = store.join("blobs/sha256").join(blob.digest.hex());
        if path.metadata().map(|metadata| metadata.len()).ok() != Some(blob.size()) {
            return Err(format!("it claims to have the image, and {} is missing", blob.digest));
        }
    }
    // What was begun of a blob that only a garbage manifest named is kept for who wants that one.
    let own = |name: &str| subject.blobs().iter().any(|blob| name.contains(blob.digest.hex()));
    let begun = std::fs::read_dir(store.join(".larder/partial/sha256")).into_iter().flatten().flatten();
    let begun = begun.filter(|entry| entry.file_name().to_str().is_some_and(own)).count();
    if begun > 0 { Err(format!("{begun} downloads were left half done")) } else { Ok(()) }
}
