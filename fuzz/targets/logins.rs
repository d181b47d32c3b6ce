//! docker's `config.json` and `kubernetes.io/dockerconfigjson`.
#![no_main]

use std::path::Path;

use larder_registry::{ConfigFile, Credential};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("config.json");
    let Ok(mut config) = ConfigFile::parse(path, bytes) else { return };
    let hosts: Vec<String> = config.hosts().map(str::to_owned).collect();
    for host in hosts.iter().map(String::as_str).chain(["docker.io", "a.corp:5000", ""]) {
        let _ = config.helper(host);
        let _ = config.find(host);
        let _ = config.for_repository(host, "library/ubuntu");
        let _ = config.for_repository(host, "");
    }
    // What is added is there after it has been written and read, and gone once it has been removed.
    let login = Credential::Password { username: "alice".to_owned(), password: "se:cret".to_owned().into() };
    config.insert("new.corp", &login);
    let bytes = config.to_bytes().expect("what was read can be written");
    let mut again = ConfigFile::parse(path, &bytes).expect("what was written can be read");
    assert!(matches!(again.find("new.corp"), Ok(Some(Credential::Password { .. }))));
    assert!(again.remove("new.corp"));
    assert!(matches!(again.find("new.corp"), Ok(None)));
});
