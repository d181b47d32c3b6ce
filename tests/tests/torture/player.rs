//! Running several commands at once, and killing them.

use std::{
    path::Path,
    process::{Child, ExitStatus},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::{
    command::Planned,
    figures::Figures,
    model::{Outcome, Played},
    shop::{Archive, Shop},
};

/// How many commands run at the same time.
pub const PLAYERS: usize = 3;

/// A command to run, and when to kill it: after this part of what such commands take.
#[derive(Debug)]
pub struct Turn {
    pub planned: Planned,
    pub kill: Option<f64>,
}

/// What each player does, one turn after the other. A command that follows one that was killed meets what that has left.
pub fn turns(shop: &Shop, archives: &[Archive], out: &Path, random: &mut Rng) -> Vec<Vec<Turn>> {
    let mut all = Vec::new();
    for _ in 0..PLAYERS {
        let mut turns = Vec::new();
        for _ in 0..random.usize(1..=2) {
            let kill = (random.u8(..10) < 7).then(|| random.f64() * 1.2);
            turns.push(Turn { planned: Planned::any(shop, archives, out, random), kill });
        }
        all.push(turns);
    }
    all
}

/// Runs them all on a store, and returns when the last one has ended. Once `halt` says so, what runs is killed and nothing
/// more is begun.
pub fn play(
    shop: &Shop,
    store: &Path,
    all: Vec<Vec<Turn>>,
    figures: &Figures,
    halt: &(impl Fn() -> bool + Sync),
) -> Vec<Played> {
    let played = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for turns in all {
            scope.spawn(|| {
                for turn in turns {
                    if halt() {
                        break;
                    }
                    let one = run(shop, store, turn, figures, halt);
                    played.lock().unwrap().push(one);
                }
            });
        }
    });
    played.into_inner().unwrap()
}

fn run(shop: &Shop, store: &Path, turn: Turn, figures: &Figures, halt: &impl Fn() -> bool) -> Played {
    let Turn { planned, kill } = turn;
    let limit = kill.map(|part| figures.typical(planned.verb).mul_f64(part));
    let begin = Instant::now();
    let mut child = shop.larder(store).args(&planned.args).spawn().unwrap();
    let (status, killed) = watch(&mut child, begin, limit, halt);
    let end = Instant::now();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let outcome = match status.code() {
        None if killed => Outcome::Killed,
        None => panic!("larder {} died: {status}: {said}", planned.args.join(" ")),
        Some(0) => Outcome::Done,
        Some(_) => Outcome::Refused,
    };
    if outcome == Outcome::Done {
        figures.took(planned.verb, end - begin);
    }
    figures.count(planned.verb, outcome);
    Played { planned, begin, end, outcome, said }
}

/// Waits for the end of a command, or brings it about. Whether it was killed.
fn watch(
    child: &mut Child,
    begin: Instant,
    limit: Option<Duration>,
    halt: &impl Fn() -> bool,
) -> (ExitStatus, bool) {
    let mut killed = false;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status, killed);
        }
        if !killed && (halt() || limit.is_some_and(|limit| begin.elapsed() >= limit)) {
            child.kill().unwrap();
            killed = true;
        }
        thread::sleep(Duration::from_micros(300));
    }
}
