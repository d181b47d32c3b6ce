//! Which state of the source images are made of.

use std::process::Command;

use anyhow::Context;
use jiff::Timestamp;

use crate::steps::root;

/// The commit, with `-dirty` at its end where files differ from it. Nothing outside of a git checkout.
pub fn revision() -> Option<String> {
    // Without `--exclude`, a tag's name would come instead.
    git(&["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"])
}

/// What counts as the time at which images were made: `SOURCE_DATE_EPOCH`
/// (<https://reproducible-builds.org/specs/source-date-epoch/>), else the commit's time, else the epoch.
pub fn created() -> anyhow::Result<Timestamp> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => timestamp(&text)
            .with_context(|| format!("SOURCE_DATE_EPOCH={text:?} is no number of seconds since 1970")),
        Err(_) => Ok(git(&["log", "-1", "--format=%ct"])
            .and_then(|text| timestamp(&text).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH)),
    }
}

fn timestamp(text: &str) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::from_second(text.parse()?)?)
}

fn git(args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    // Others may be at work in the same checkout: read it, and lock nothing.
    let output = command.arg("--no-optional-locks").args(args).current_dir(root()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_time() {
        assert_eq!(timestamp("1700000000").unwrap().to_string(), "2023-11-14T22:13:20Z");
        timestamp("yesterday").unwrap_err();
        timestamp("99999999999999999").unwrap_err();
    }
}
