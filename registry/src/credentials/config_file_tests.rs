use proptest::prelude::*;
use serde_json::json;

use super::*;

fn file(content: &Value) -> ConfigFile {
    ConfigFile::parse(Path::new("config.json"), content.to_string().as_bytes()).unwrap()
}

fn password(username: &str, password: &str) -> Credential {
    Credential::Password { username: username.to_owned(), password: password.to_owned().into() }
}

/// A credential in a form that can be compared.
fn plain(credential: Option<Credential>) -> String {
    match credential {
        Some(Credential::Password { username, password }) => {
            format!("{username}:{}", password.expose_secret())
        }
        Some(Credential::IdentityToken(token)) => format!("identity {}", token.expose_secret()),
        Some(Credential::RegistryToken(token)) => format!("registry {}", token.expose_secret()),
        None => "none".to_owned(),
    }
}

#[test]
fn every_form_of_a_login_is_read() {
    let auth = BASE64_STANDARD.encode("user:pa:ss\0");
    let config = file(&json!({"auths": {
        "a.corp": {"auth": auth, "email": "x@a.corp"},
        "b.corp:5000": {"auth": BASE64_STANDARD.encode("<token>:"), "identitytoken": "it"},
        "c.corp": {"registrytoken": "rt"},
        "d.corp": {"username": "u", "password": "p"},
        "https://e.corp/v1/": {"auth": auth},
        "https://index.docker.io/v1/": {"auth": BASE64_STANDARD.encode("hub:pw")},
        "f.corp": {},
    }}));
    for (host, expected) in [
        ("a.corp", "user:pa:ss"),
        ("b.corp:5000", "identity it"),
        ("c.corp", "registry rt"),
        ("d.corp", "u:p"),
        ("e.corp", "user:pa:ss"),
        ("docker.io", "hub:pw"),
        ("f.corp", "none"),
        ("b.corp", "none"),
    ] {
        assert_eq!(plain(config.find(host).unwrap()), expected, "{host}");
    }
}

#[test]
fn the_longest_path_wins() {
    let entry = |user: &str| json!({"auth": BASE64_STANDARD.encode(format!("{user}:p"))});
    let config = file(&json!({"auths": {
        "a.corp": entry("host"), "a.corp/team": entry("team"), "a.corp/team/app": entry("app"),
    }}));
    for (repository, user) in [
        ("other", "host"),
        ("teams/x", "host"),
        ("team/x", "team"),
        ("team/app", "app"),
        ("team/app/y", "app"),
    ] {
        let found = plain(config.for_repository("a.corp", repository).unwrap());
        assert_eq!(found, format!("{user}:p"), "{repository}");
    }
}

#[test]
fn helpers_are_looked_up_as_docker_does() {
    let config = file(&json!({
        "credsStore": "secretservice",
        "credHelpers": {"gcr.io": "gcloud", "https://index.docker.io/v1/": "hub"},
    }));
    assert_eq!(config.helper("gcr.io"), Some("gcloud"));
    assert_eq!(config.helper("docker.io"), Some("hub"));
    assert_eq!(config.helper("quay.io"), Some("secretservice"));
    assert_eq!(file(&json!({"credsStore": ""})).helper("quay.io"), None);
}

#[test]
fn a_login_is_added_and_removed_and_all_else_stays() {
    let before = json!({
        "HttpHeaders": {"X": "y"},
        "auths": {"a.corp": {"auth": "dTpw"}, "https://b.corp/v1/": {"auth": "dTpw"}},
        "plugins": {"x": {"y": "z"}},
        "future": [1, null, {"a": 1.5}],
    });
    let mut config = file(&before);
    config.insert("c.corp", &password("u", "p"));
    config.insert("docker.io", &Credential::IdentityToken("it".to_owned().into()));
    let after: Value = serde_json::from_slice(&config.to_bytes().unwrap()).unwrap();
    assert_eq!(after["auths"]["c.corp"], json!({"auth": BASE64_STANDARD.encode("u:p")}));
    assert_eq!(after["auths"]["https://index.docker.io/v1/"]["identitytoken"], "it");
    assert!(config.remove("docker.io") && config.remove("c.corp") && !config.remove("c.corp"));
    let again: Value = serde_json::from_slice(&config.to_bytes().unwrap()).unwrap();
    assert_eq!(again, before);
    assert!(config.remove("b.corp"), "an old-style key is removed by its host");
}

#[test]
fn errors_name_the_place_and_no_secret() {
    let parse = |text: &str| ConfigFile::parse(Path::new("/home/u/config.json"), text.as_bytes());
    for (text, what) in [
        ("{\"auths\": {\"a\": {\"auth\": \"hunter2\"", "line 1"),
        ("[\"hunter2\"]", "not a JSON object"),
        ("{\"auths\": {}} hunter2", "not JSON"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with("/home/u/config.json: ") && error.contains(what), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for auth in ["hunter2", &BASE64_STANDARD.encode("hunter2"), &BASE64_STANDARD.encode(":hunter2")] {
        let config = file(&json!({"auths": {"a.corp": {"auth": auth}}}));
        let error = config.find("a.corp").unwrap_err().to_string();
        assert!(error.contains("a.corp") && !error.contains(auth), "{error}");
        assert!(!format!("{config:?}").contains(auth));
    }
    assert!(parse("").unwrap().find("a.corp").unwrap().is_none());
    assert!(parse("{\"auths\": 3}").unwrap().find("a.corp").unwrap().is_none());
    assert_eq!(format!("{:?}", password("u", "hunter2")).find("hunter2"), None);
}

#[test]
fn the_longest_key_says_how_long_it_is() {
    let config = file(&json!({"auths": {
        "a.corp": {"username": "all", "password": "p"},
        "a.corp/team": {"username": "team", "password": "p"},
        "a.corp/team/deep": {"username": "deep", "password": "p"},
    }}));
    for (repository, parts, expected) in [
        ("app", 0, "all:p"),
        ("teamwork/app", 0, "all:p"),
        ("team/app", 1, "team:p"),
        ("team/deep/app", 2, "deep:p"),
    ] {
        let (found, credential) = config.most_specific("a.corp", repository).unwrap().unwrap();
        assert_eq!((found, plain(Some(credential))), (parts, expected.to_owned()), "{repository}");
    }
    assert!(config.most_specific("b.corp", "team/app").unwrap().is_none());
}

#[test]
fn a_file_that_can_be_used_has_a_login_and_none_that_cannot_be_read() {
    let login = json!({"username": "u", "password": "p"});
    file(&json!({"auths": {"a.corp": login, "b.corp": {}}})).check().unwrap();
    for (auths, why) in [
        (json!({}), "there is no login in it"),
        (json!([]), "there is no login in it"),
        (json!({"a.corp": {}}), "there is no login in it"),
        (
            json!({"a.corp": login, "b.corp": {"auth": "hunter2"}}),
            "b.corp: auth is not user:password in base64",
        ),
    ] {
        let error = file(&json!({"auths": auths})).check().unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        host in "[a-z]{1,10}(\\.[a-z]{2,3})?(:[0-9]{2,4})?",
        user in "[^:\0]{1,20}",
        secret in "[^\0]{0,40}",
        other in "[a-zA-Z]{1,10}"
    ) {
        let mut config = file(&json!({other.clone(): {"kept": true}}));
        config.insert(&host, &password(&user, &secret));
        let read = ConfigFile::parse(Path::new("x"), &config.to_bytes().unwrap()).unwrap();
        prop_assert_eq!(plain(read.find(&host).unwrap()), format!("{user}:{secret}"));
        if other != "auths" {
            prop_assert_eq!(&read.root[&other], &json!({"kept": true}));
        }
    }
}
