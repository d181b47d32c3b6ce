//! An API server that is away, a database that starts anew, watches that end.

use std::time::Duration;

use anyhow::{Context, bail};
use fastrand::Rng;
use larder_tests::api::Change;
use larder_tests::{Fault, Proxy, Rule, until, wait::PATIENCE};
use rustix::process::Signal;
use serde_json::json;

use super::round::Round;
use super::scene::{Struck, nap};
use super::stage::Stage;

/// How the API server goes away, and comes back.
#[derive(Clone, Copy)]
enum Away {
    /// It is killed, and started again.
    Killed,
    /// It is stopped: connections stay open, and nobody answers.
    Hanging,
}

impl Away {
    fn begin(self, stage: &Stage) -> anyhow::Result<()> {
        match self {
            Self::Killed => stage.plane.stop_apiserver(),
            Self::Hanging => stage.plane.apiserver().signal(Signal::STOP)?,
        }
        Ok(())
    }

    fn end(self, stage: &Stage) -> anyhow::Result<()> {
        match self {
            Self::Killed => stage.plane.start_apiserver()?,
            Self::Hanging => stage.plane.apiserver().signal(Signal::CONT)?,
        }
        stage.ready()
    }

    /// For so long, in the middle of a round.
    fn last(self, stage: &Stage, round: &Round, random: &mut Rng, span: Duration) -> anyhow::Result<()> {
        round.ask_for_one(stage)?;
        nap(random, 800);
        self.begin(stage)?;
        std::thread::sleep(span);
        self.end(stage)?;
        round.ask_for_all(stage)
    }

    /// For longer than a Lease holds, and by default than the operator waits for an answer. A leader that goes on is an error.
    fn outlast_a_lease(self, stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
        let before = stage.keeper.restarts();
        self.last(stage, round, random, stage.away)?;
        stage.gave_up(before).map(Struck::times)
    }
}

/// The API server is killed, and started again after some seconds: fewer than leaders have to renew their Lease.
pub fn away_shortly(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    let span = Duration::from_millis(random.u64(1_000..5_000));
    Away::Killed.last(stage, round, random, span)?;
    Ok(Struck::yes())
}

/// The API server is killed, and is away for longer than a Lease holds.
pub fn away_long(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    Away::Killed.outlast_a_lease(stage, round, random)
}

/// The API server is there, and answers nobody for some seconds.
pub fn hangs(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    let span = Duration::from_millis(random.u64(2_000..8_000));
    Away::Hanging.last(stage, round, random, span)?;
    Ok(Struck::yes())
}

/// It answers nobody for longer than a Lease holds.
pub fn hangs_long(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    Away::Hanging.outlast_a_lease(stage, round, random)
}

/// etcd is killed and started again under the API server.
pub fn etcd_restarts(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    round.ask_for_one(stage)?;
    nap(random, 800);
    stage.plane.etcd().kill();
    nap(random, 3_000);
    stage.plane.etcd().start()?;
    stage.ready()?;
    round.ask_for_all(stage)?;
    Ok(Struck::yes())
}

/// All connections are reset, again and again.
pub fn connections_cut(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    round.ask_for_one(stage)?;
    for turn in 0..8 {
        nap(random, 500);
        stage.proxies().for_each(Proxy::cut);
        if turn == 4 {
            round.ask_for_all(stage)?;
        }
    }
    Ok(Struck::yes())
}

/// Watches are cut and cannot come back while much changes; then what they would go on from is forgotten.
pub fn compacted(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    round.ask_for_one(stage)?;
    nap(random, 800);
    let before = gone(stage)?;
    for proxy in stage.proxies() {
        proxy.add(Rule::get("watch=true").then(Fault::HangUp));
        proxy.cut();
    }
    round.ask_for_all(stage)?;
    for turn in 0..20 {
        let note = json!({"metadata": {"annotations": {"test.larder.dev/turn": turn.to_string()}}});
        stage.api.change(&round.path, Change::Merge(&note))?;
    }
    stage.api.compact().context("compacting etcd")?;
    stage.plane.stop_apiserver();
    stage.plane.start_apiserver()?;
    stage.proxies().for_each(Proxy::clear);
    // A watcher may be waiting before its next try.
    let lists_anew = || gone(stage).ok().filter(|now| *now > before);
    if until("a watch to end with 410 Gone", PATIENCE, lists_anew).is_err() {
        bail!("no watch of the operator's ended with 410 Gone: the fault did not come about");
    }
    Ok(Struck::yes())
}

/// How often operators had to list anew so far, by their logs.
fn gone(stage: &Stage) -> anyhow::Result<usize> {
    let mut lines = 0;
    for operator in &stage.operators {
        lines += operator.program.log()?.lines().filter(|line| line.contains("to be started anew")).count();
    }
    Ok(lines)
}
