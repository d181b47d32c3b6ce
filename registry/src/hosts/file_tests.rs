use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<HostsFile, HostsError> {
    parse(Path::new("/etc/certs.d/quay.io/hosts.toml"), text)
}

fn bases(file: &HostsFile) -> Vec<&str> {
    file.mirrors.iter().map(|host| host.base.as_ref().unwrap().as_str()).collect()
}

#[test]
fn mirrors_keep_the_order_of_the_file() {
    let file = read(
        r#"
        server = "https://quay.io"
        [host."https://z.corp"]
        capabilities = ["pull"]
        [host."http://a.corp:5000"]
        [host."https://m.corp/team"]
        capabilities = ["pull", "Resolve"]
        [host."https://m.corp/team".header]
        x-key = ["one", "two"]
        "#,
    )
    .unwrap();
    assert_eq!(bases(&file), ["https://z.corp/v2", "http://a.corp:5000/v2", "https://m.corp/team/v2"]);
    assert_eq!(file.server.base.as_ref().unwrap().as_str(), "https://quay.io/v2");
    let can: Vec<_> = file.mirrors.iter().map(|host| host.capabilities).collect();
    assert_eq!(can[0], Capabilities { pull: true, resolve: false, push: false });
    assert_eq!(can[1], Capabilities::ALL);
    assert_eq!(can[2], Capabilities { pull: true, resolve: true, push: false });
    assert_eq!(file.mirrors[2].headers.get_all("x-key").iter().count(), 2);
}

#[test]
fn nothing_said_is_the_registry_itself_with_all_it_can_do() {
    let file = read("").unwrap();
    assert_eq!(file, HostsFile { mirrors: Vec::new(), server: Host::default() });
    assert_eq!(file.server.capabilities, Capabilities::ALL);
}

#[test]
fn addresses() {
    for (text, base) in [
        ("server = 'quay.io'", "https://quay.io/v2"),
        ("server = 'https://quay.io/'", "https://quay.io/v2"),
        ("server = 'https://quay.io/v2/'", "https://quay.io/v2"),
        ("server = 'https://quay.io/proxy'", "https://quay.io/proxy/v2"),
        ("server = 'https://quay.io/v2/proxy'\noverride_path = true", "https://quay.io/v2/proxy"),
        ("server = 'https://docker.io'", "https://registry-1.docker.io/v2"),
        ("server = 'http://[::1]:5000'", "http://[::1]:5000/v2"),
    ] {
        assert_eq!(read(text).unwrap().server.base.unwrap().as_str(), base, "{text}");
    }
}

#[test]
fn certificates_in_every_form() {
    let path = |name: &str| PathBuf::from(format!("/etc/certs.d/quay.io/{name}"));
    let transport = |text: &str| read(text).unwrap().server.transport;
    assert_eq!(transport("ca = 'a.crt'").ca, [path("a.crt")]);
    assert_eq!(transport("ca = ['a.crt', '/b.crt']").ca, [path("a.crt"), PathBuf::from("/b.crt")]);
    let both = Some(ClientCertificate { certificate: path("c.pem"), key: None });
    let separate = Some(ClientCertificate { certificate: path("c.pem"), key: Some(path("k.pem")) });
    for (text, expected) in [
        ("client = 'c.pem'", &both),
        ("client = ['c.pem']", &both),
        ("client = [['c.pem', '']]", &both),
        ("client = [['c.pem', 'k.pem']]", &separate),
        ("client = []", &None),
    ] {
        assert_eq!(transport(text).client, *expected, "{text}");
    }
    let other = transport("skip_verify = true\ndial_timeout = '1m30s'");
    assert!(other.skip_verify);
    assert_eq!(other.dial_timeout, Some(Duration::from_secs(90)));
    assert_eq!(transport("dial_timeout = '500ms'").dial_timeout, Some(Duration::from_millis(500)));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, line, what) in [
        ("\nserver = ", 2, ""),
        ("\n\nserver = 'ftp://quay.io'", 3, "server: expected https://host"),
        ("server = 'https://u:p@quay.io'", 1, "config.json"),
        ("server = 'https://quay.io?a=b'", 1, "query"),
        ("capabilities = ['pull']\n[host.'https://a b']", 2, "host: not a URL"),
        ("[host.'https://a']\ncapabilities = ['fetch']", 2, "capabilities: unknown capability \"fetch\""),
        ("[host.'https://a']\n\ndial_timeout = 'soon'", 3, "dial_timeout: \"soon\" is not a duration"),
        ("dial_timeout = '0s'", 1, "longer than nothing"),
        ("dial_timeout = '-5s'", 1, "longer than nothing"),
        ("ca = 3", 1, "expected a path or a list of paths"),
        ("client = [['a', 'b', 'c']]", 1, "a pair is [certificate, key]"),
        ("client = ['a', 'b']", 1, "only one client certificate"),
        ("client = 3", 1, "expected a path, or a list"),
        ("skip_verify = 'yes'", 1, "boolean"),
        ("[header]\n'a b' = 'c'", 2, "header: not a name"),
        ("[header]\nx = \"a\\nb\"", 2, "header: not a value"),
        ("[header]\nx = 3", 2, "a text or a list of texts"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(&format!("quay.io/hosts.toml, line {line}")), "{text}: {error}");
        assert!(error.contains(what), "{text}: {error}");
    }
}

#[test]
fn a_secret_header_is_in_no_error_and_no_debug_output() {
    let error = read("[header]\nx-key = 'hunter2'\nx-key = 'hunter2'").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    let file = read("[header]\nx-key = 'hunter2'").unwrap();
    assert!(!format!("{file:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn never_panics_on_what_looks_right(
        key in "server|ca|client|header|host|capabilities|dial_timeout|skip_verify",
        value in "(\"[^\"\\\\]{0,8}\"|\\[[^\\]]{0,8}\\]|\\{[a-z.=\"']{0,8}\\}|[0-9]{1,4}|true)"
    ) {
        let _ = read(&format!("{key} = {value}"));
    }
}
