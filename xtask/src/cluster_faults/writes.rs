//! Writes that meet others, or get lost.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use larder_tests::api::Change;
use larder_tests::{Fault, Rule};
use serde_json::json;

use super::round::Round;
use super::scene::{Struck, nap};
use super::stage::{NODES, Stage};

/// How long somebody else writes, or answers get lost.
const SPAN: Duration = Duration::from_secs(4);

/// Somebody else writes all objects all the time: notes on them, their statuses; and deletes those of nodes now and then.
pub fn others_write(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    round.ask_for_one(stage)?;
    let (end, mut turn) = (Instant::now() + SPAN, 0_u64);
    while Instant::now() < end {
        turn += 1;
        let note = json!({"metadata": {"annotations": {"test.larder.dev/turn": turn.to_string()}}});
        stage.api.change(&round.path, Change::Merge(&note))?;
        if stage.api.get(&round.path)?.is_some_and(|cache| cache["status"]["nodes"].is_object()) {
            // Less than is true: it is Larder's statuses that must not say more.
            let status = json!({"status": {"nodes": {"ready": 0}}});
            stage.api.change(&format!("{}/status", round.path), Change::Merge(&status))?;
        }
        for node in NODES {
            let path = format!("/apis/larder.dev/v1alpha1/nodeimagecaches/{node}");
            let change = if random.u8(..40) == 0 { Change::Delete } else { Change::Merge(&note) };
            stage.api.change(&path, change)?;
        }
        if turn == 10 {
            round.ask_for_all(stage)?;
        }
    }
    round.ask_for_all(stage)?;
    Ok(Struck::yes())
}

/// Of writes by operators and agents, some do not arrive; of others the answer does not.
pub fn answers_lost(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    let mut hits = Vec::new();
    for proxy in stage.proxies() {
        for fault in [Fault::HangUp, Fault::HangUpAfter] {
            let chance = Mutex::new(random.fork());
            let rule = Rule::any("").when(move |request| {
                let mut chance = chance.lock().unwrap_or_else(PoisonError::into_inner);
                request.method != "GET" && chance.u8(..4) == 0
            });
            hits.push(proxy.add(rule.then(fault)));
        }
    }
    round.ask_for_one(stage)?;
    std::thread::sleep(SPAN / 2);
    round.ask_for_all(stage)?;
    std::thread::sleep(SPAN / 2);
    Ok(Struck::times(hits.iter().map(larder_tests::proxy::Hits::count).sum()))
}

/// Two operators that do not know of each other, one of which is killed.
pub fn rivals(stage: &Stage, round: &Round, random: &mut Rng) -> anyhow::Result<Struck> {
    round.ask_for_one(stage)?;
    nap(random, 1_500);
    if let Some(killer) = stage.killer(random.usize(..2)) {
        killer.kill();
    }
    round.ask_for_all(stage)?;
    Ok(Struck::yes())
}
