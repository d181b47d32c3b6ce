use std::{
    fs,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

use super::*;

struct Folder {
    root: TempDir,
    hosts: Hosts,
}

impl Folder {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let hosts =
            Hosts::new(Some(root.path().to_owned()), vec!["plain.lab".to_owned()], crate::STALL_TIMEOUT);
        Self { root, hosts }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The hosts for something, as URLs of a blob.
    fn urls(&self, registry: &str, purpose: Purpose) -> Vec<String> {
        let name: ImageName = format!("{registry}/app").parse().unwrap();
        let endpoints = self.hosts.endpoints(registry, purpose).unwrap();
        endpoints.iter().map(|at| at.url(&name, "blobs/x").to_string()).collect()
    }
}

#[test]
fn without_configuration_it_is_the_registry_itself() {
    let folder = Folder::new();
    for (registry, url) in [
        ("docker.io", "https://registry-1.docker.io/v2/library/app/blobs/x"),
        ("quay.io", "https://quay.io/v2/app/blobs/x"),
        ("a.corp:5000", "https://a.corp:5000/v2/app/blobs/x"),
        ("a.corp:443", "https://a.corp/v2/app/blobs/x"),
        ("plain.lab", "http://plain.lab/v2/app/blobs/x"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2/app/blobs/x"),
        ("localhost:5000", "http://localhost:5000/v2/app/blobs/x"),
    ] {
        assert_eq!(folder.urls(registry, Purpose::Pull), [url]);
    }
    let none = Hosts::new(None, Vec::new(), crate::STALL_TIMEOUT);
    assert_eq!(none.endpoints("quay.io", Purpose::Push).unwrap().len(), 1);
}

#[test]
fn mirrors_come_first_and_are_told_whom_they_stand_for() {
    let folder = Folder::new();
    folder.write(
        "docker.io/hosts.toml",
        "[host.'https://tags.corp']\ncapabilities = ['pull', 'resolve']\n\
         [host.'http://blobs.corp:5000/hub']\ncapabilities = ['pull']\n\
         [host.'https://registry-1.docker.io']\n",
    );
    let hub = "https://registry-1.docker.io/v2/library/app/blobs/x";
    let tags = "https://tags.corp/v2/library/app/blobs/x?ns=docker.io";
    let blobs = "http://blobs.corp:5000/hub/v2/library/app/blobs/x?ns=docker.io";
    assert_eq!(folder.urls("docker.io", Purpose::Pull), [tags, blobs, hub]);
    assert_eq!(folder.urls("docker.io", Purpose::Resolve), [tags, hub]);
    assert_eq!(folder.urls("docker.io", Purpose::Push), [hub]);
    let own = folder.hosts.own("docker.io").unwrap().unwrap();
    assert_eq!((own.name().as_str(), own.root().as_str()), ("docker.io", "https://registry-1.docker.io/v2/"));
}

#[test]
fn the_folder_is_found_by_name_and_port() {
    let folder = Folder::new();
    let server = |name: &str| format!("server = 'https://{name}'");
    folder.write("_default/hosts.toml", &server("default.corp"));
    let of = |registry: &str| folder.urls(registry, Purpose::Pull).remove(0);
    assert!(of("a.corp:5000").starts_with("https://default.corp/"));
    folder.write("a.corp:5000/hosts.toml", &server("colon.corp"));
    assert!(of("a.corp:5000").starts_with("https://colon.corp/"));
    folder.write("a.corp_5000_/hosts.toml", &server("underscore.corp"));
    assert!(of("a.corp:5000").starts_with("https://underscore.corp/"));
    assert!(of("b.corp").starts_with("https://default.corp/"));
}

#[test]
fn a_file_that_changed_is_read_again_and_no_other() {
    let folder = Folder::new();
    folder.write("a.corp/hosts.toml", "server = 'https://one.corp'");
    let first = folder.hosts.endpoints("a.corp", Purpose::Pull).unwrap();
    let again = folder.hosts.endpoints("a.corp", Purpose::Pull).unwrap();
    assert!(Arc::ptr_eq(&first[0], &again[0]), "connections and certificates are kept");
    folder.write("a.corp/hosts.toml", "server = 'https://two.corp'");
    // The clock of some file systems is coarse, and the size is the same.
    let file = fs::File::options().write(true).open(folder.root.path().join("a.corp/hosts.toml")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
    assert_eq!(folder.urls("a.corp", Purpose::Pull), ["https://two.corp/v2/app/blobs/x?ns=a.corp"]);
    fs::remove_dir_all(folder.root.path().join("a.corp")).unwrap();
    assert_eq!(folder.urls("a.corp", Purpose::Pull), ["https://a.corp/v2/app/blobs/x"]);
}

#[test]
fn certificates_beside_no_hosts_file_count() {
    let folder = Folder::new();
    for file in ["127.0.0.1_5000_/ca.crt", "127.0.0.1_5000_/client.cert", "127.0.0.1_5000_/client.key"] {
        folder.write(file, "");
    }
    let url = "https://127.0.0.1:5000/v2/app/blobs/x";
    assert_eq!(folder.urls("127.0.0.1:5000", Purpose::Pull), [url], "who has certificates speaks TLS");
    folder.write("127.0.0.1_5000_/second.cert", "");
    let error = folder.hosts.endpoints("127.0.0.1:5000", Purpose::Pull).unwrap_err().to_string();
    assert!(error.contains("second.cert") && error.contains("only one client certificate"), "{error}");
}

#[test]
fn what_cannot_be_used_is_one_clear_error() {
    let folder = Folder::new();
    let error = |registry: &str| folder.hosts.endpoints(registry, Purpose::Push).unwrap_err().to_string();
    folder.write("bad.corp/hosts.toml", "\nserver = 3");
    assert!(error("bad.corp").contains("bad.corp/hosts.toml, line 2"), "{}", error("bad.corp"));
    folder.write("huge.corp/hosts.toml", &"#".repeat(300 << 10));
    assert!(error("huge.corp").contains("larger than 256 KiB"), "{}", error("huge.corp"));
    folder.write("read.corp/hosts.toml", "capabilities = ['pull']");
    assert!(error("read.corp").contains("has the capability \"push\""), "{}", error("read.corp"));
    for registry in ["", "a/b", "a b", "a?b", "u@a", "..", "a:b:c"] {
        let error = folder.hosts.own(registry).map(|own| own.unwrap().root()).unwrap_err().to_string();
        assert!(error.contains("not a host"), "{registry}: {error}");
    }
}

#[test]
fn a_mirror_that_failed_is_passed_over_while_there_is_another() {
    let folder = Folder::new();
    folder.write("a.corp/hosts.toml", "[host.'https://m.corp']");
    folder.hosts.set_aside("m.corp");
    assert_eq!(folder.urls("a.corp", Purpose::Pull), ["https://a.corp/v2/app/blobs/x"]);
    folder.hosts.set_aside("a.corp");
    assert_eq!(folder.urls("a.corp", Purpose::Pull).len(), 2, "somebody is always asked");
}

#[test]
fn what_goes_to_a_host_goes_to_no_other() {
    let endpoint = Endpoint::new("a.corp:5000", Host::default(), false, crate::STALL_TIMEOUT).unwrap();
    for (url, own) in [
        ("https://a.corp:5000/anything", true),
        ("http://a.corp:5000/", false),
        ("https://a.corp/", false),
        ("https://a.corp.evil:5000/", false),
    ] {
        assert_eq!(endpoint.owns(&url.parse().unwrap()), own, "{url}");
    }
}
