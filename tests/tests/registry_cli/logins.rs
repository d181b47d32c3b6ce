//! `larder login` and `logout`, on a registry with a private authority and a password file.

use larder_tests::{Registry, RegistryOptions};

use crate::support::{Desk, image, mode, registry};

fn closed() -> Registry {
    Registry::start(RegistryOptions {
        login: Some(("writer".to_owned(), "one secret".to_owned())),
        other_logins: vec![("reader".to_owned(), "another".to_owned())],
        tls: true,
        ..RegistryOptions::default()
    })
    .unwrap()
}

/// A desk that trusts the registry's authority.
fn trusting(registry: &Registry) -> Desk {
    let desk = Desk::new();
    let (host, ca) = (registry.host(), registry.ca_file().unwrap().display().to_string());
    desk.hosts(&host, &format!("server = 'https://{host}'\nca = '{ca}'\n"));
    desk
}

fn login(desk: &Desk, host: &str, user: &str, password: &str) -> larder_tests::process::Ran {
    desk.larder_with(&["login", "--username", user, "--password-stdin", host], &[], &format!("{password}\n"))
}

#[test]
fn one_user_pushes_and_another_pulls() {
    let (registry, open) = (closed(), registry());
    let host = registry.host();
    let (writer, reader) = (trusting(&registry), trusting(&registry));
    let pulled = open.push(&image(400, &[100_000]), "app", "v1").unwrap();
    let name = format!("{host}/team/app:v1");
    writer.ok(&["pull", "-q", &pulled.name]);
    writer.ok(&["tag", &pulled.name, &name]);
    let error = writer.fails(&["push", &name]);
    assert!(error.contains("push access denied"), "{error}");

    // A login that is refused is not kept.
    let refused = login(&writer, &host, "writer", "wrong");
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("incorrect username or password"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("wrong\n") && !refused.stdout.contains("wrong"));
    let config = writer.scratch.path().join("docker/config.json");
    assert!(!config.exists());

    let ran = login(&writer, &host, "writer", "one secret").ok().unwrap();
    assert_eq!(ran.stdout, "Login Succeeded\n");
    assert!(ran.stderr.contains("WARNING! Your credentials are stored unencrypted"), "{}", ran.stderr);
    assert_eq!(mode(&config), 0o600);
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    assert!(kept["auths"][host.as_str()]["auth"].is_string(), "{kept}");
    assert!(writer.ok(&["login", &host]).contains("Authenticating with existing credentials..."));
    writer.ok(&["push", &name]);

    assert!(reader.fails(&["pull", &name]).contains("pull access denied"));
    login(&reader, &host, "reader", "another").ok().unwrap();
    let output = reader.ok(&["pull", &name]);
    assert!(output.contains(&format!("Digest: {}", pulled.digest)), "{output}");
    reader.check_store();

    assert_eq!(reader.ok(&["logout", &host]), format!("Removing login credentials for {host}\n"));
    assert_eq!(reader.ok(&["logout", &host]), format!("Not logged in to {host}\n"));
    assert!(reader.fails(&["pull", "--platform", "linux/arm64", &name]).contains("pull access denied"));
}

#[test]
fn an_authority_that_is_not_trusted_is_an_error() {
    let (registry, desk) = (closed(), Desk::new());
    let host = registry.host();
    desk.hosts(&host, &format!("server = 'https://{host}'\n"));
    let ran = login(&desk, &host, "reader", "another");
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("certificate"), "{}", ran.stderr);
}

#[test]
fn what_is_wrong_with_the_flags_is_told_in_dockers_words() {
    let desk = Desk::new();
    for (args, message) in [
        (&["login", "--password-stdin"][..], "the --password-stdin option requires --username to be set"),
        (
            &["login", "-u", "a", "-p", "b", "--password-stdin"],
            "conflicting options: cannot specify both --password and --password-stdin",
        ),
        (&["login", "127.0.0.1:1"], "cannot perform an interactive login from a non-TTY device"),
        (
            &["login", "-u", "a", "-p", "b", "127.0.0.1:1"],
            "WARNING! Using --password via the CLI is insecure",
        ),
    ] {
        let error = desk.fails(args);
        assert!(error.contains(message), "{args:?}: {error}");
    }
}

#[test]
fn a_helper_keeps_the_login() {
    use std::os::unix::fs::PermissionsExt;
    let (registry, desk) = (closed(), Desk::new());
    let (host, ca) = (registry.host(), registry.ca_file().unwrap().display().to_string());
    desk.hosts(&host, &format!("server = 'https://{host}'\nca = '{ca}'\n"));
    // As simple as a helper can be: one file, whose content is what was stored.
    let kept = desk.scratch.path().join("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {0};;\nget) cat > /dev/null; if [ -f {0} ]; then cat {0}; else \
         echo 'credentials not found in native keychain'; exit 1; fi;;\nerase) cat > /dev/null; rm -f {0};;\nesac\n",
        kept.display()
    );
    desk.scratch.folder("bin").unwrap();
    let helper = desk.scratch.write("bin/docker-credential-file", script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o700)).unwrap();
    desk.scratch.folder("docker").unwrap();
    desk.scratch.write("docker/config.json", r#"{"credsStore":"file","HttpHeaders":{"x":"y"}}"#).unwrap();
    let path = format!("{}:/usr/bin:/bin", helper.parent().unwrap().display());
    let env = [("PATH", std::ffi::OsStr::new(&path))];
    let args = ["login", "-u", "reader", "--password-stdin", &host];
    let ran = desk.larder_with(&args, &env, "another").ok().unwrap();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("Login Succeeded\n", ""));
    assert!(std::fs::read_to_string(&kept).unwrap().contains("another"));
    let config = std::fs::read_to_string(desk.scratch.path().join("docker/config.json")).unwrap();
    assert!(!config.contains("another") && config.contains("HttpHeaders"), "{config}");
    desk.larder_with(&["logout", &host], &env, "").ok().unwrap();
    assert!(!kept.exists());
}
