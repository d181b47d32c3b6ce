//! Loading: archives that skopeo and the usual programs wrote, into a store by Larder and into a layout by skopeo.

use std::path::Path;

use larder_tests::process::run as run_program;
use larder_tests::tools::in_path;

use super::{COMPRESSIONS, Compression, NAME, Stage, text};
use crate::bench::contest::{Entrant, hold};
use crate::steps::step;

pub fn run(stage: &Stage) -> anyhow::Result<()> {
    let folder = stage.scratch.folder("archives")?;
    let plain = folder.join("oci.tar");
    step("writing archives to load", || write_archives(stage, &folder))?;
    for compression in COMPRESSIONS {
        let file = plain.with_extension(compression.extension());
        one(stage, "oci-archive", compression, &file)?;
    }
    // Debian's skopeo (1.9.3) fails on any docker-archive that is compressed with gzip, its own included.
    one(stage, "docker-archive", Compression::None, &folder.join("docker.tar"))?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn write_archives(stage: &Stage, folder: &Path) -> anyhow::Result<()> {
    for (form, file) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        let to = format!("{form}:{}:{NAME}", folder.join(file).display());
        let command = stage.skopeo_command(&[&stage.source(), &to]);
        let args: Vec<&str> = command.iter().skip(1).map(String::as_str).collect();
        run_program(&stage.skopeo, &args, &[], b"")?.ok()?;
    }
    let plain = text(&folder.join("oci.tar"));
    for (program, options) in
        [("gzip", ["--keep"].as_slice()), ("bzip2", &["--keep"]), ("zstd", &["--quiet", "-T0"])]
    {
        run_program(&in_path(program)?, &[options, &[&*plain]].concat(), &[], b"")?.ok()?;
    }
    Ok(())
}

fn one(stage: &Stage, form: &str, compression: Compression, file: &Path) -> anyhow::Result<()> {
    let entrants = [
        Entrant::new("larder load", |folder, _| {
            let args = ["load", "--quiet", "--input", &text(file)];
            Ok(stage.larder_command(&folder.join("store"), &args))
        }),
        Entrant::new("skopeo", |folder, _| {
            let from = format!("{form}:{}:{NAME}", file.display());
            let to = format!("oci:{}:{NAME}", folder.join("layout").display());
            // Layers stay as they are, as they do with Larder.
            Ok(stage.skopeo_command(&["--dest-oci-accept-uncompressed-layers", &from, &to]))
        }),
    ];
    hold(&format!("load, {form}, {}", compression.name()), stage.runs, &entrants, &stage.scratch)
}
