//! Test data of other projects, inside their Go modules.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::process::run;
use crate::tools::in_path;
use crate::{Error, Result};

/// The modules that `xtask/tools/testdata/go.mod` requires, and where they are in Go's module cache, which they are
/// downloaded to if they are not there yet.
pub fn folders() -> Result<Vec<(String, PathBuf)>> {
    let wanted: Vec<String> = required().map(|(path, version)| format!("{path}@{version}")).collect();
    let mut args = vec!["mod", "download", "-json"];
    args.extend(wanted.iter().map(String::as_str));
    let env = [("GOWORK", OsStr::new("off")), ("GOFLAGS", OsStr::new("-mod=mod"))];
    let ran = run(&in_path("go")?, &args, &env, b"")?.ok()?;
    let modules = serde_json::Deserializer::from_str(&ran.stdout).into_iter::<serde_json::Value>();
    modules
        .map(|module| {
            let module = module.map_err(Error::data("answer of `go mod download`"))?;
            let text = |key: &str| module[key].as_str().map(str::to_owned);
            text("Path").zip(text("Dir").map(PathBuf::from)).ok_or_else(|| Error::Data {
                what: "answer of `go mod download`",
                problem: module.to_string(),
            })
        })
        .collect()
}

/// Paths and versions.
fn required() -> impl Iterator<Item = (&'static str, &'static str)> {
    let go_mod = include_str!("../../xtask/tools/testdata/go.mod");
    go_mod.lines().filter_map(|line| line.strip_prefix('\t')?.split_once(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_has_a_version() {
        assert!(required().count() >= 3);
        assert!(required().all(|(path, version)| path.contains('/') && version.starts_with('v')));
    }
}
