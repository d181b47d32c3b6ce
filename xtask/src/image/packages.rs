//! Where libraries come from, for those who scan images for vulnerabilities and licences.
//!
//! As Google's distroless images do: `/etc/os-release` says which distribution it is, each file in
//! `/var/lib/dpkg/status.d` is the record of one package, and the licences are where the packages have them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use larder_tests::tools::in_path;

use super::layer::Files;

/// Adds the records of the packages that the files on this machine belong to; nothing, where `dpkg` knows nothing.
pub fn record<'a>(files: &mut Files, sources: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<()> {
    let Ok(dpkg) = in_path("dpkg-query") else { return Ok(()) };
    let owners: BTreeSet<String> = sources.into_iter().filter_map(|source| owner(&dpkg, source)).collect();
    if owners.is_empty() {
        return Ok(());
    }
    let records: BTreeMap<&str, String> = owners
        .iter()
        .map(|package| {
            let record = query(&dpkg, &["--status".as_ref(), package.as_ref()])
                .with_context(|| format!("dpkg has no record of {package}"))?;
            Ok((package.split(':').next().unwrap_or(package), record))
        })
        .collect::<anyhow::Result<_>>()?;
    copy(files, Path::new("/usr/lib/os-release"), "/etc/os-release")?;
    for (package, record) in records {
        files.file(&format!("/var/lib/dpkg/status.d/{package}"), record);
        let licence = format!("/usr/share/doc/{package}/copyright");
        copy(files, Path::new(&licence), &licence)?;
    }
    Ok(())
}

/// The package that a file belongs to, such as `libc6:amd64`.
fn owner(dpkg: &Path, file: &Path) -> Option<String> {
    // Where /lib is a link to /usr/lib, a package may know its files by either name.
    let real = std::fs::canonicalize(file).ok()?;
    let usr = file.strip_prefix("/").ok().map(|rest| Path::new("/usr").join(rest));
    let bare = real.strip_prefix("/usr").ok().map(|rest| Path::new("/").join(rest));
    let names: [Option<PathBuf>; 4] = [Some(file.to_owned()), Some(real), bare, usr];
    let answer =
        names.iter().flatten().find_map(|name| query(dpkg, &["--search".as_ref(), name.as_os_str()]))?;
    found(&answer).map(str::to_owned)
}

/// The first package that `dpkg-query --search` names. It may say first that somebody has diverted the file, as Debian 13
/// has the loader, and a file may belong to several packages.
fn found(answer: &str) -> Option<&str> {
    let line = answer.lines().find(|line| !line.starts_with("diversion by "))?;
    line.split_once(": ")?.0.split(", ").next()
}

fn query(dpkg: &Path, args: &[&std::ffi::OsStr]) -> Option<String> {
    let output = Command::new(dpkg).args(args).env("LC_ALL", "C").output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

fn copy(files: &mut Files, source: &Path, path: &str) -> anyhow::Result<()> {
    let content = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    files.file(path, content);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_told_from_what_else_dpkg_says() {
        for (answer, expected) in [
            ("libc6:amd64: /lib/x86_64-linux-gnu/libc.so.6\n", Some("libc6:amd64")),
            ("a, b:amd64: /usr/share/doc\n", Some("a")),
            (
                "diversion by usr-is-merged from: /lib64/ld-linux-x86-64.so.2\n\
                 diversion by usr-is-merged to: /lib64/ld-linux-x86-64.so.2.usr-is-merged\n\
                 libc6:amd64: /lib64/ld-linux-x86-64.so.2\n",
                Some("libc6:amd64"),
            ),
            ("diversion by x from: /y\n", None),
            ("", None),
        ] {
            assert_eq!(found(answer), expected, "{answer}");
        }
    }
}
