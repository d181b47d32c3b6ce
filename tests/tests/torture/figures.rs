//! What was done, and how long it took.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::model::Outcome;

/// What a command is taken to last before one has shown.
const GUESS: Duration = Duration::from_millis(40);

pub struct Figures {
    begin: Instant,
    counts: Mutex<BTreeMap<(&'static str, Outcome), u64>>,
    typical: Mutex<BTreeMap<&'static str, Duration>>,
    other: Mutex<BTreeMap<&'static str, u64>>,
}

impl Figures {
    pub fn new() -> Self {
        Self {
            begin: Instant::now(),
            counts: Mutex::default(),
            typical: Mutex::default(),
            other: Mutex::default(),
        }
    }

    pub fn count(&self, verb: &'static str, outcome: Outcome) {
        *self.counts.lock().unwrap().entry((verb, outcome)).or_default() += 1;
    }

    /// Adds to a figure of another kind.
    pub fn add(&self, what: &'static str, number: u64) {
        *self.other.lock().unwrap().entry(what).or_default() += number;
    }

    pub fn kills(&self) -> u64 {
        let counts = self.counts.lock().unwrap();
        counts.iter().filter(|((_, outcome), _)| *outcome == Outcome::Killed).map(|(_, count)| count).sum()
    }

    pub fn took(&self, verb: &'static str, time: Duration) {
        let mut typical = self.typical.lock().unwrap();
        let known = typical.entry(verb).or_insert(time);
        *known = *known * 3 / 4 + time / 4;
    }

    pub fn typical(&self, verb: &str) -> Duration {
        self.typical.lock().unwrap().get(verb).copied().unwrap_or(GUESS)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap();
        let verbs: std::collections::BTreeSet<_> = counts.keys().map(|(verb, _)| *verb).collect();
        let count = |verb, outcome| counts.get(&(verb, outcome)).copied().unwrap_or_default();
        writeln!(formatter, "| verb | done | refused | killed |\n| --- | ---: | ---: | ---: |")?;
        let mut total = [0; 3];
        for verb in verbs {
            let row = [Outcome::Done, Outcome::Refused, Outcome::Killed].map(|outcome| count(verb, outcome));
            writeln!(formatter, "| {verb} | {} | {} | {} |", row[0], row[1], row[2])?;
            total = [total[0] + row[0], total[1] + row[1], total[2] + row[2]];
        }
        writeln!(formatter, "| all | {} | {} | {} |\n", total[0], total[1], total[2])?;
        for (what, number) in &*self.other.lock().unwrap() {
            writeln!(formatter, "{what}: {number}")?;
        }
        write!(formatter, "took {:.0} s", self.begin.elapsed().as_secs_f64())
    }
}
