//! What API server and registry were asked, from one moment to another.

use std::collections::{BTreeMap, HashMap};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use larder_tests::{ApiRequest, AuditLog, Requests};

use super::figures::{Figures, Writes};
use super::world::{AGENT, OPERATOR, PATIENCE, World};
use crate::bench::delivery::process::Process;

/// When nobody has written for so long, nobody will: when all is done agents write a status every two seconds at most, the
/// operator one of an `ImageCache` every second.
const SILENCE: Duration = Duration::from_secs(6);

/// Takes down what happens in one step of the course.
pub(super) struct Recorder {
    audit: AuditLog,
    /// Writes, those of the Lease left out.
    requests: Vec<ApiRequest>,
    restarts: usize,
}

impl Recorder {
    pub(super) fn new(world: &World) -> Self {
        Self { audit: world.plane.audit_log(), requests: Vec::new(), restarts: 0 }
    }

    /// Takes down what follows from `act`, until `wait` is over and there is silence. `changed` is the repository of the image
    /// that is to be fetched, where it is one alone.
    pub(super) fn record(
        &mut self,
        world: &mut World,
        name: &'static str,
        changed: Option<&str>,
        act: impl FnOnce(&mut World) -> anyhow::Result<()>,
        wait: impl FnOnce(&mut Self, &World) -> anyhow::Result<()>,
    ) -> anyhow::Result<Figures> {
        self.audit.news()?;
        self.requests.clear();
        self.restarts = 0;
        let mark = world.registry.mark()?;
        let before = world.operator().ok();
        if let Some(operator) = &before {
            operator.forget_peak()?;
        }
        let cpu_before = before.as_ref().map_or(Ok(0.0), Process::cpu)?;
        let start = Instant::now();
        act(world)?;
        wait(self, world)?;
        let seconds = start.elapsed().as_secs_f64();
        self.wait_for_silence(world)?;
        let operator = world.operator()?;
        // One that was started anew has used nothing before.
        let cpu_before = if before.is_some_and(|before| before.is(&operator)) { cpu_before } else { 0.0 };
        let figures = Figures {
            name,
            seconds,
            told: self.told(),
            specs: self.writes(OPERATOR, "nodeimagecaches", ""),
            statuses: self.writes(AGENT, "nodeimagecaches", "status"),
            cache_statuses: self.writes(OPERATOR, "imagecaches", "status").all(),
            agent_events: self.writes(AGENT, "events", "").all(),
            operator_events: self.writes(OPERATOR, "events", "").all(),
            restarts: self.restarts,
            refused: self.refused(),
            limit: None,
            hasty: 0,
            registry: fetched(&world.registry.requests_since(mark)?, changed),
            cpu: operator.cpu()? - cpu_before,
            peak: operator.peak()?,
            memory: operator.memory()?.0,
            apiserver: world.apiserver()?.memory()?.0,
        };
        println!("  {}", figures.line());
        Ok(figures)
    }

    /// Waits until so many nodes' agents have written a status in this step.
    pub(super) fn wait_for_agents(&mut self, world: &World, nodes: usize) -> anyhow::Result<()> {
        self.wait_until(world, "all agents to write a status", |recorder| {
            recorder.writes(AGENT, "nodeimagecaches", "status").objects() >= nodes
        })
    }

    /// Waits until no store has a blob.
    pub(super) fn wait_for_empty_stores(&mut self, world: &World) -> anyhow::Result<()> {
        self.wait_until(world, "all images to be gone from all nodes", |_| matches!(world.blobs(), Ok(0)))
    }

    fn wait_until(&mut self, world: &World, what: &str, is_so: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            self.take_down(world)?;
            if is_so(self) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("waited for {what}, in vain");
            }
            sleep(Duration::from_millis(200));
        }
    }

    /// Waits until an `ImageCache` is as `kubectl wait` understands it.
    pub(super) fn wait_for(&mut self, world: &World, name: &str, what: &str) -> anyhow::Result<()> {
        let cache = format!("imagecache/{name}");
        let start = Instant::now();
        loop {
            // Not longer: programs that have ended meanwhile are to be seen.
            let waited = world.plane.try_kubectl(&["wait", what, &cache, "--timeout=5s"], "")?;
            self.take_down(world)?;
            if waited.status.success() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                waited.ok()?;
            }
        }
    }

    /// Waits until nobody of ours has written for a while.
    fn wait_for_silence(&mut self, world: &World) -> anyhow::Result<()> {
        let mut last = Instant::now();
        while last.elapsed() < SILENCE {
            sleep(Duration::from_millis(500));
            if self.take_down(world)? > 0 {
                last = Instant::now();
            }
        }
        Ok(())
    }

    /// Reads on; gives how many writes of ours that brought.
    fn take_down(&mut self, world: &World) -> anyhow::Result<usize> {
        self.restarts += usize::from(world.look_after_programs()?);
        let news = self.audit.news()?.into_iter();
        let before = self.requests.len();
        self.requests.extend(news.filter(|request| request.is_write() && request.resource != "leases"));
        let is_ours = |request: &&ApiRequest| request.user == OPERATOR || request.user == AGENT;
        Ok(self.requests[before..].iter().filter(is_ours).count())
    }

    fn of<'a>(
        &'a self,
        user: &'a str,
        resource: &'a str,
        subresource: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a ApiRequest> {
        self.requests.iter().filter(move |request| {
            request.user == user && request.resource == resource && request.subresource == subresource
        })
    }

    /// Writes that were not accepted, by who wanted what, and the answer.
    fn refused(&self) -> BTreeMap<String, usize> {
        let mut refused = BTreeMap::new();
        for request in self.requests.iter().filter(|request| request.code >= 400) {
            let who = request.user.rsplit(':').next().unwrap_or_default();
            let part = if request.subresource.is_empty() { "" } else { "/" };
            let ApiRequest { verb, resource, subresource, code, .. } = request;
            *refused.entry(format!("{who}: {verb} {resource}{part}{subresource}: {code}")).or_default() += 1;
        }
        refused
    }

    fn writes(&self, user: &str, resource: &str, subresource: &str) -> Writes {
        let mut by_name: HashMap<String, usize> = HashMap::new();
        // What was refused has not been written, and is counted by itself.
        for request in self.of(user, resource, subresource).filter(|request| request.code < 400) {
            *by_name.entry(request.name.clone()).or_default() += 1;
        }
        Writes(by_name)
    }

    /// Seconds from when the API server was asked to change something until the operator had told the last node.
    fn told(&self) -> Option<f64> {
        let asked = self.requests.iter().find(|request| request.user != OPERATOR && request.user != AGENT)?;
        let last = self.of(OPERATOR, "nodeimagecaches", "").next_back()?;
        Some(last.answered.duration_since(asked.asked).as_secs_f64())
    }
}

/// How many requests were of the image that changed, and of others.
fn fetched(requests: &Requests, changed: Option<&str>) -> [usize; 2] {
    let of_images = requests.iter().filter(|request| request.is_manifest() || request.is_blob());
    let prefix = changed.map(|repository| format!("/v2/{repository}/"));
    let is_changed = |path: &str| prefix.as_ref().is_some_and(|prefix| path.starts_with(prefix));
    let (of_changed, of_others): (Vec<_>, Vec<_>) = of_images.partition(|request| is_changed(&request.path));
    [of_changed.len(), of_others.len()]
}
