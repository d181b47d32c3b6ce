//! containerd killed at every kind of call of a delivery, and while bytes arrive.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fastrand::Rng;
use larder_tests::tools::is_root;
use larder_tests::wait::PATIENCE;
use larder_tests::{
    Api, Containerd, ContainerdVersion, ControlPlane, Gate, Hook, Image, Layer, Moment, Program, Proxy,
    Registry, RegistryOptions, Scratch, larder, until,
};
use serde_json::{Value, json};

use super::LIMIT;
use super::table::{self, Row};

const NODE: &str = "n1";
/// Bytes of a blob that may be on their way when containerd is killed, and are asked for again: in the agent, at the gate, in
/// sockets' buffers.
const UNDER_WAY: u64 = 4 << 20;
/// Bytes a second that the registry sends: fewer than the agent takes, so that nothing waits in buffers.
const RATE: u64 = 20_000_000;
/// Calls that come when a connection is made, not in the course of a delivery.
const NOT_OF_DELIVERIES: [&str; 1] = ["Events/Subscribe"];

/// Why this can't run here, if it can't.
pub fn unavailable() -> Option<String> {
    (!is_root()).then(|| "containerd mounts file systems: run it as root".to_owned())
}

/// A node with containerd, and what it talks to. Dropped in this order: who asks goes before who answers.
struct Node {
    agent: Program,
    _operator: Program,
    gate: Gate,
    containerd: Containerd,
    kills: Arc<AtomicU64>,
    /// Bytes that were fetched again: of one delivery at most, and in all.
    again: (AtomicU64, AtomicU64),
    ends: mpsc::Receiver<()>,
    hook: Hook,
    proxy: Proxy,
    registry: Registry,
    api: Api,
    plane: ControlPlane,
    _scratch: Scratch,
}

/// When containerd is killed.
enum Strike {
    Never,
    AtCall(String, u64, Moment),
    AtByte(u64),
}

/// Kills it in so many deliveries, and prints a table.
pub fn run(deliveries: usize, seed: u64) -> anyhow::Result<()> {
    let node = Node::set().context("a node with containerd")?;
    let mut random = Rng::with_seed(seed);
    let mut plain = Row::new("containerd left alone");
    // The first has the calls that come with a connection, too.
    node.delivery(0, &Strike::Never, &mut plain)?;
    let calls = node.delivery(1, &Strike::Never, &mut plain)?;
    let mut rows = BTreeMap::from([(String::new(), plain)]);
    let methods: Vec<(&String, &u64)> =
        calls.iter().filter(|(method, _)| !NOT_OF_DELIVERIES.contains(&method.as_str())).collect();
    // Each kind of call before and after, and as often while bytes arrive.
    let kinds = methods.len() * 2 + 2;
    // A short run meets other kinds each time.
    let first = random.usize(..kinds);
    for number in 2..deliveries + 2 {
        let kind = (first + number) % kinds;
        let (name, strike) = match methods.get(kind / 2) {
            None => ("while bytes arrive".to_owned(), Strike::AtByte(random.u64(..13_000_000))),
            Some((method, count)) => {
                let moment = if kind.is_multiple_of(2) { Moment::Before } else { Moment::After };
                let word = if moment == Moment::Before { "before" } else { "after" };
                let passing = random.u64(..(**count).max(1));
                (format!("{word} {method}"), Strike::AtCall((*method).clone(), passing, moment))
            }
        };
        let row = rows.entry(name.clone()).or_insert_with(|| Row::new(&format!("containerd killed {name}")));
        node.delivery(number, &strike, row).with_context(|| {
            format!("delivery {number}, containerd killed {name}, seed {seed}\n{}", node.agent.log_tail())
        })?;
    }
    println!("{}", table::of(&rows.into_values().collect::<Vec<_>>()));
    let (most, all) = (node.again.0.load(Ordering::SeqCst), node.again.1.load(Ordering::SeqCst));
    println!(
        "bytes that were on their way at a kill, and fetched again: {most} at most, {all} in all, of 13 MB an image"
    );
    Ok(())
}

impl Node {
    fn set() -> anyhow::Result<Self> {
        let plane = ControlPlane::start()?;
        plane.install_crds()?;
        plane.create_node(NODE, &[("pool", "web")])?;
        let containerd = Containerd::start(ContainerdVersion::V2)?;
        let scratch = Scratch::new("containerd-faults")?;
        let gate = Gate::start(&scratch.path().join("gate.sock"), containerd.socket())?;
        let (registry, api) = (Registry::start(RegistryOptions::default())?, Api::new(&plane)?);
        let proxy = Proxy::start(&registry.host())?;
        proxy.limit_rate(Some(RATE));
        let operator = larder::operator(plane.kubeconfig(), scratch.path())?.args(["--leader-elect=false"]);
        operator.start()?;
        let store: PathBuf = scratch.path().join("store");
        let agent = larder::agent(plane.kubeconfig(), NODE, &store, scratch.path())?
            .args(["--runtime", "containerd", "--max-backoff", "2", "--runtime-endpoint"])
            .args([gate.socket()]);
        agent.start()?;
        let (kills, killer) = (Arc::new(AtomicU64::new(0)), containerd.program().killer());
        let (sender, ends) = mpsc::channel();
        let counted = Arc::clone(&kills);
        let hook = Hook::new(move || {
            killer.kill();
            counted.fetch_add(1, Ordering::SeqCst);
            // Nobody listens any more: the run has ended.
            sender.send(()).ok();
        });
        Ok(Self {
            agent,
            _operator: operator,
            gate,
            containerd,
            kills,
            again: Default::default(),
            ends,
            hook,
            proxy,
            registry,
            api,
            plane,
            _scratch: scratch,
        })
    }

    /// One image comes, containerd is killed on the way, and the image goes again. Gives the calls that it took.
    fn delivery(
        &self,
        number: usize,
        strike: &Strike,
        row: &mut Row,
    ) -> anyhow::Result<BTreeMap<String, u64>> {
        let (before, kills) = (self.gate.calls(), self.kills.load(Ordering::SeqCst));
        let seed = fastrand::u64(..);
        let image = Image::builder()
            .layer(&Layer::random(seed, 8_000_000)?)
            .layer(&Layer::random(seed.wrapping_add(1), 5_000_000)?)
            .build()?;
        let pushed = self.registry.push(&image, &format!("delivery-{number}"), "v1")?;
        let name = pushed.name.replacen(&self.registry.host(), &self.proxy.host(), 1);
        match strike {
            Strike::Never => {}
            Strike::AtCall(method, passing, moment) => {
                self.gate.arm(method, *passing, *moment, self.hook.clone());
            }
            Strike::AtByte(bytes) => {
                let hook = self.hook.clone();
                self.proxy.on_bytes(*bytes, move || hook.call());
            }
        }
        self.apply(number, &name)?;
        let well = self.wait_ready(&name)?;
        self.gate.disarm();
        let struck = self.kills.load(Ordering::SeqCst) - kills;
        row.round(struck, well);
        self.account(&image, struck)?;
        let after = self.gate.calls();
        self.remove(number, &name, &image)?;
        let taken = |(method, count): (&String, &u64)| {
            let earlier = before.get(method).copied().unwrap_or_default();
            (*count > earlier).then(|| (method.clone(), count - earlier))
        };
        Ok(after.iter().filter_map(taken).collect())
    }

    fn apply(&self, number: usize, name: &str) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1",
            "kind": "ImageCache",
            "metadata": {"name": format!("delivery-{number}")},
            "spec": {"nodeSelector": {"matchLabels": {"pool": "web"}}, "images": [{"image": name}]},
        });
        self.plane.apply(&object.to_string())?;
        Ok(())
    }

    /// Waits until the node says that the image is ready, and checks that whenever it does, it is. Starts containerd whenever
    /// it has been killed. Gives the time from then on, or from the start.
    fn wait_ready(&self, name: &str) -> anyhow::Result<Duration> {
        let mut since = Instant::now();
        let begin = since;
        loop {
            while self.ends.try_recv().is_ok() {
                self.containerd.restart()?;
                since = Instant::now();
            }
            if self.says_ready(name)? && self.checked(name)? {
                return Ok(since.elapsed());
            }
            if begin.elapsed() > LIMIT {
                let path = format!("/apis/larder.dev/v1alpha1/nodeimagecaches/{NODE}");
                let status = self.api.get(&path)?.unwrap_or_default()["status"].clone();
                bail!("{name} is not ready after {} s: {status:#}", LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn says_ready(&self, name: &str) -> anyhow::Result<bool> {
        let path = format!("/apis/larder.dev/v1alpha1/nodeimagecaches/{NODE}");
        let object = self.api.get(&path)?.unwrap_or_default();
        let images = object["status"]["images"].as_array().cloned().unwrap_or_default();
        Ok(images.iter().any(|image| image["image"] == name && image["state"] == "Ready"))
    }

    /// Whether containerd has the image, as kubelet sees it; an error where it answers and has not, or not pinned. Nobody can
    /// say while it does not answer: then it has just been killed.
    fn checked(&self, name: &str) -> anyhow::Result<bool> {
        let Ok(listed) = self.containerd.crictl(&["images", "--output", "json"]) else { return Ok(false) };
        let listed: Value = serde_json::from_str(&listed)?;
        let images = listed["images"].as_array().cloned().unwrap_or_default();
        let is_it = |image: &&Value| {
            image["repoTags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == name))
        };
        match images.iter().find(is_it) {
            Some(image) if image["pinned"] == true => Ok(true),
            found => bail!("{name} is said to be ready, and the runtime has {found:?}"),
        }
    }

    /// No blob was fetched twice: what a kill has cost is what was on its way.
    fn account(&self, image: &Image, kills: u64) -> anyhow::Result<()> {
        let mut again = 0;
        for blob in &image.blobs {
            let (sent, size) = (self.proxy.bytes_for(&blob.digest.to_string()), blob.size());
            if sent < size || sent > size + kills * UNDER_WAY {
                bail!("{sent} bytes were sent of blob {}, which has {size}, with {kills} kills", blob.digest);
            }
            again += sent - size;
        }
        self.again.0.fetch_max(again, Ordering::SeqCst);
        self.again.1.fetch_add(again, Ordering::SeqCst);
        Ok(())
    }

    /// Takes the image away again, and waits until nothing of it is left.
    fn remove(&self, number: usize, name: &str, image: &Image) -> anyhow::Result<()> {
        self.plane.kubectl(&["delete", "imagecache", &format!("delivery-{number}"), "--wait=false"])?;
        let mut left = Vec::new();
        let gone = until(&format!("{name} to leave containerd"), PATIENCE, || {
            left = self.leftovers(name, image).ok()?;
            left.is_empty().then_some(())
        });
        gone.with_context(|| format!("left are {left:?}"))
    }

    /// What containerd still has of an image: names, blobs, half-written blobs, leases.
    fn leftovers(&self, name: &str, image: &Image) -> anyhow::Result<Vec<String>> {
        let first = |args: &[&str]| -> anyhow::Result<Vec<String>> {
            let listed = self.containerd.ctr(args)?;
            Ok(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
        };
        let named = first(&["images", "ls", "-q"])?.into_iter().filter(|found| found == name);
        let is_blob = |digest: &String| image.blobs.iter().any(|blob| blob.digest.to_string() == *digest);
        let blobs = first(&["content", "ls", "-q"])?.into_iter().filter(is_blob);
        let leases = first(&["leases", "ls", "-q"])?.into_iter().filter(|id| id.starts_with("larder/image/"));
        let ingests = first(&["content", "active"])?.into_iter().skip(1);
        Ok(named.chain(blobs).chain(leases).chain(ingests).collect())
    }
}
