//! The layer that both images begin with: libraries, certificates, accounts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::elf::{Elf, libraries};
use super::layer::Files;
use super::packages;

/// Nothing in the images can log in; the names are for `ls` and for messages.
const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n\
                      nonroot:x:65532:65532:nonroot:/nonexistent:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n";
/// The pod's /etc/hosts before DNS. Both are part of libc itself.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// Where rustls looks for authorities by itself on every Linux.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What all the programs need beside themselves.
pub fn files(programs: &[&Elf]) -> anyhow::Result<Files> {
    let mut files = Files::default();
    files.file("/etc/passwd", PASSWD);
    files.file("/etc/group", GROUP);
    files.file("/etc/nsswitch.conf", NSSWITCH);
    files.file(CERTIFICATES, certificates());
    let libraries = libraries(programs)?;
    for (path, source) in &libraries {
        let content = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        files.program(path, content);
    }
    let sources: BTreeSet<&Path> = libraries.values().map(AsRef::as_ref).collect();
    packages::record(&mut files, sources)?;
    Ok(files)
}

/// Mozilla's authorities, in PEM form. From a crate, and not from this machine: its owner may trust more than others
/// should, and the crate is the same everywhere.
fn certificates() -> String {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = STANDARD.encode(certificate);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, next) = rest.split_at(rest.len().min(64));
            // Into a string, this cannot fail.
            let _ = writeln!(pem, "{line}");
            rest = next;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_well_formed() {
        let pem = certificates();
        let ends = pem.matches("-----END CERTIFICATE-----\n").count();
        assert_eq!(pem.matches("-----BEGIN CERTIFICATE-----\n").count(), ends);
        assert!(ends > 100, "{ends}");
        assert!(pem.lines().all(|line| line.len() <= 64));
        let first: String = pem.lines().skip(1).take_while(|line| !line.starts_with('-')).collect();
        assert_eq!(STANDARD.decode(first).unwrap(), &webpki_root_certs::TLS_SERVER_ROOT_CERTS[0][..]);
    }
}
