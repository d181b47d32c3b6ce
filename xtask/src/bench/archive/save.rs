//! Saving: `larder save` from the store, `skopeo copy` from a layout and a program that compresses.

use std::path::Path;

use super::{COMPRESSIONS, Compression, NAME, Stage, followed_by, text};
use crate::bench::contest::{Entrant, hold};

pub fn run(stage: &Stage) -> anyhow::Result<()> {
    for form in ["oci-archive", "docker-archive"] {
        for compression in COMPRESSIONS {
            // What compresses does the same work for either form.
            if form == "oci-archive" || compression == Compression::None {
                one(stage, form, compression)?;
            }
        }
    }
    Ok(())
}

fn one(stage: &Stage, form: &'static str, compression: Compression) -> anyhow::Result<()> {
    let ours = move |folder: &Path, _| {
        let file = text(&folder.join("image"));
        let args = ["save", "--format", form, "--compress", compression.name(), "--output", &file, NAME];
        Ok(stage.larder_command(&stage.store, &args))
    };
    let skopeo = move |folder: &Path| {
        let file = folder.join("image.tar");
        let command = stage.skopeo_command(&[&stage.source(), &format!("{form}:{}:{NAME}", file.display())]);
        (file, command)
    };
    let mut entrants = vec![Entrant::new("larder save", ours)];
    if compression == Compression::None {
        entrants.push(Entrant::new("skopeo", move |folder, _| Ok(skopeo(folder).1)));
    }
    for program in compression.programs() {
        let name = program.split(' ').next().unwrap_or(program);
        entrants.push(Entrant::new(format!("skopeo, then {name}"), move |folder, _| {
            let (file, command) = skopeo(folder);
            Ok(followed_by(&command, program, &file))
        }));
    }
    hold(&format!("save, {form}, {}", compression.name()), stage.runs, &entrants, &stage.scratch)
}
