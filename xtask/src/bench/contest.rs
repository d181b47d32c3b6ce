//! The same work done by several programs, each in turn.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use larder_tests::Scratch;
use larder_tests::process::run;
use larder_tests::tools::in_path;

use super::measure::{Cost, cost, median};

/// Has skopeo keep what it remembers of registries in a folder, also for root. Else it would remember one run in
/// the next, and mount what it is to push.
pub fn skopeo_memory(folder: &Path) -> [(&'static str, &OsStr); 2] {
    [("XDG_DATA_HOME", folder.as_os_str()), ("_CONTAINERS_ROOTLESS_UID", OsStr::new("1000"))]
}

/// Makes ready for one run, which is not measured, and gives the command that is. It gets an empty folder of the
/// run's own, and the run's number.
pub type Prepare<'a> = Box<dyn Fn(&Path, usize) -> anyhow::Result<Vec<String>> + 'a>;

/// A program, or several in a row, that do the work.
pub struct Entrant<'a> {
    name: String,
    prepare: Prepare<'a>,
    env: Vec<(&'static str, OsString)>,
}

impl<'a> Entrant<'a> {
    /// One that the tables call `name`.
    pub fn new(
        name: impl Into<String>,
        prepare: impl Fn(&Path, usize) -> anyhow::Result<Vec<String>> + 'a,
    ) -> Self {
        Self { name: name.into(), prepare: Box::new(prepare), env: Vec::new() }
    }

    /// The same with a variable in its environment.
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }
}

/// Runs each entrant `runs` times, in turn, so that what the machine does meanwhile hits all alike; prints the medians,
/// with ratios to the first entrant.
pub fn hold(title: &str, runs: usize, entrants: &[Entrant<'_>], scratch: &Scratch) -> anyhow::Result<()> {
    let mut costs: Vec<Vec<Cost>> = entrants.iter().map(|_| Vec::new()).collect();
    for round in 0..runs {
        for (entrant, costs) in entrants.iter().zip(&mut costs) {
            costs.push(once(entrant, round, scratch)?);
        }
    }
    print(title, runs, entrants, &costs.iter().map(|costs| median(costs)).collect::<Vec<_>>());
    Ok(())
}

fn once(entrant: &Entrant<'_>, round: usize, scratch: &Scratch) -> anyhow::Result<Cost> {
    let (folder, home) = (scratch.folder("run")?, scratch.folder("home")?);
    let command = (entrant.prepare)(&folder, round)?;
    let mut env = vec![("HOME", home.as_os_str()), ("DOCKER_CONFIG", home.as_os_str())];
    env.extend(skopeo_memory(&home));
    env.extend(entrant.env.iter().map(|(name, value)| (*name, value.as_os_str())));
    // What the run before has left to be written is not this one's.
    run(&in_path("sync")?, &[], &[], b"")?.ok()?;
    let cost = cost(&command, &env, scratch.path())?;
    std::fs::remove_dir_all(&folder)?;
    std::fs::remove_dir_all(&home)?;
    Ok(cost)
}

fn print(title: &str, runs: usize, entrants: &[Entrant<'_>], medians: &[Cost]) {
    println!("\n{title}: medians of {runs}\n");
    println!("| program | wall s | CPU s | peak MiB | wall, first = 1 | CPU, first = 1 |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let Some(first) = medians.first() else { return };
    for (entrant, cost) in entrants.iter().zip(medians) {
        println!(
            "| {} | {:.2} | {:.2} | {:.0} | {:.2} | {} |",
            entrant.name,
            cost.wall,
            cost.cpu,
            cost.peak,
            cost.wall / first.wall,
            // GNU time counts CPU in hundredths of a second: of fewer than five, a ratio says nothing.
            if first.cpu < 0.05 { "-".to_owned() } else { format!("{:.2}", cost.cpu / first.cpu) },
        );
    }
}
