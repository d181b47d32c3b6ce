//! The result as a table, in Markdown, so that it can go into a page as it is.

use std::fmt;
use std::time::Duration;

/// What came of one fault.
pub struct Row {
    name: String,
    rounds: u64,
    /// Rounds in which it came about.
    struck: u64,
    /// How often it did in all.
    times: u64,
    /// Programs that ended and were started again.
    pub restarts: u64,
    longest: Duration,
}

impl Row {
    pub fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, rounds: 0, struck: 0, times: 0, restarts: 0, longest: Duration::ZERO }
    }

    /// A round in which it came about so many times, and after which all was well this much later.
    pub fn round(&mut self, times: u64, until_well: Duration) {
        self.rounds += 1;
        self.struck += u64::from(times > 0);
        self.times += times;
        self.longest = self.longest.max(until_well);
    }

    fn add(&mut self, other: &Self) {
        self.rounds += other.rounds;
        self.struck += other.struck;
        self.times += other.times;
        self.restarts += other.restarts;
        self.longest = self.longest.max(other.longest);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rounds, struck, times, restarts, longest } = self;
        let longest = longest.as_secs_f64();
        write!(f, "| {name} | {rounds} | {struck} | {times} | {restarts} | {longest:.1} s |")
    }
}

/// A row for each fault that had its turn, and one for all.
pub fn of(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| fault | rounds, all well in the end | it struck in | times | restarts | longest until well |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let mut all = Row::new("all");
    for row in rows {
        all.add(row);
        text.extend([row.to_string(), "\n".to_owned()]);
    }
    text.extend([all.to_string(), "\n".to_owned()]);
    text
}
