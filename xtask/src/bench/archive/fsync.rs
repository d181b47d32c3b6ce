//! What crash safety costs: Larder as it is, and under `eatmydata`, a library that turns fsync into nothing. And what
//! the other way would cost, to read the store again after an unclean boot.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::ensure;
use larder_tests::process::run as run_program;

use super::{NAME, SMALL_NAME, Stage, text};
use crate::bench::contest::{Entrant, hold};

/// Cheap, and as restless as the disk: three times as often as the rest.
const TIMES: usize = 3;
const LIBRARY: &str = "libeatmydata.so";

pub fn run(stage: &Stage) -> anyhow::Result<()> {
    // The loader only warns of a library that it does not find.
    let tried =
        run_program(&stage.larder, &["--version"], &[("LD_PRELOAD", OsStr::new(LIBRARY))], b"")?.ok()?;
    ensure!(tried.stderr.is_empty(), "{}", tried.stderr.trim());
    let host = stage.registry.host();
    let names = [format!("{host}/fsync:v1"), format!("{host}/fsync-small:v1")];
    stage.larder(&["tag", NAME, &names[0]])?;
    stage.larder(&["push", "--quiet", &names[0]])?;
    let small = Stage::small_image()?;
    stage.registry.push(&small, "fsync-small", "v1")?;
    let layout = stage.scratch.folder("small")?;
    small.write_layout(&layout, SMALL_NAME)?;
    stage.larder(&["load", "--quiet", "--input", &text(&layout)])?;
    let what = ["the image", "100 layers of 50 kB"];
    for (name, what) in names.iter().zip(what) {
        with_and_without(stage, &format!("pull, {what}"), |folder| {
            stage.larder_command(&folder.join("store"), &["pull", "--quiet", name])
        })?;
    }
    for (name, what) in [NAME, SMALL_NAME].into_iter().zip(what) {
        let file = text(&stage.scratch.path().join("fsync.tar"));
        stage.larder(&["save", "--output", &file, name])?;
        with_and_without(stage, &format!("load, {what}"), |folder| {
            stage.larder_command(&folder.join("store"), &["load", "--quiet", "--input", &file])
        })?;
    }
    with_and_without(stage, "save, the image", |folder| {
        let file = text(&folder.join("image.tar"));
        stage.larder_command(&stage.store, &["save", "--output", &file, NAME])
    })?;
    // Of a store that is in the kernel's memory, which after a boot it is not.
    let args = ["verify", "--no-mend"];
    let verify = Entrant::new("larder verify", |_, _| Ok(stage.larder_command(&stage.store, &args)));
    hold("verifying a store that holds both images", stage.runs, &[verify], &stage.scratch)
}

fn with_and_without(
    stage: &Stage,
    title: &str,
    command: impl Fn(&Path) -> Vec<String> + Copy,
) -> anyhow::Result<()> {
    let prepare = move |folder: &Path, _| Ok(command(folder));
    let entrants = [
        Entrant::new("larder without fsync", prepare).env("LD_PRELOAD", LIBRARY),
        Entrant::new("larder", prepare),
    ];
    hold(&format!("{title}, with and without fsync"), stage.runs * TIMES, &entrants, &stage.scratch)
}
