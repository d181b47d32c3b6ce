use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

/// A helper that keeps logins in a folder, by the protocol that real ones speak, and notes its arguments.
const HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$@" >> arguments
case "$1" in
store) cat > stored ;;
get)
    cat > asked
    [ "$(cat asked)" = broken ] && { echo "the key ring is locked"; exit 1; }
    [ -f stored ] || { echo "credentials not found in native keychain"; exit 1; }
    cat stored ;;
erase) cat > asked; rm -f stored ;;
esac
"#;

struct Place {
    folder: TempDir,
    config: DockerConfig,
}

fn place(content: &str) -> Place {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.json"), content).unwrap();
    let helper = folder.path().join("docker-credential-fake");
    fs::write(&helper, HELPER).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let config = DockerConfig::new(folder.path().join("config.json")).with_search_path(folder.path());
    Place { folder, config }
}

impl Place {
    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }
}

fn login() -> Credential {
    Credential::Password { username: "user".to_owned(), password: "hunter2".to_owned().into() }
}

fn password_of(credential: Option<Credential>) -> Option<String> {
    match credential {
        Some(Credential::Password { username, password }) => {
            Some(format!("{username}:{}", password.expose_secret()))
        }
        Some(Credential::IdentityToken(token)) => Some(format!("token {}", token.expose_secret())),
        _ => None,
    }
}

#[tokio::test]
async fn a_login_in_the_file_is_kept_for_its_owner_alone() {
    let place = place(r#"{"detachKeys": "ctrl-a"}"#);
    fs::set_permissions(place.config.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let stored = place.config.store("a.corp:5000", &login()).await.unwrap();
    assert_eq!(stored, StoredIn::File(place.config.path().to_owned()));
    let mode = fs::metadata(place.config.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(place.text("config.json").contains("ctrl-a"));
    let found = place.config.get("a.corp:5000").await.unwrap();
    assert_eq!(password_of(found).as_deref(), Some("user:hunter2"));
    assert!(place.config.erase("a.corp:5000").await.unwrap());
    assert!(!place.config.erase("a.corp:5000").await.unwrap());
    assert!(place.config.get("a.corp:5000").await.unwrap().is_none());
    let left: Vec<_> = fs::read_dir(place.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no temporary file stays: {left:?}");
}

#[tokio::test]
async fn a_missing_file_and_folder_are_made() {
    let folder = TempDir::new().unwrap();
    let config = DockerConfig::new(folder.path().join("new/.docker/config.json"));
    assert!(config.get("a.corp").await.unwrap().is_none());
    config.store("a.corp", &login()).await.unwrap();
    let mode = fs::metadata(folder.path().join("new/.docker")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_link_stays_a_link() {
    let place = place("{}");
    let link = place.folder.path().join("link.json");
    std::os::unix::fs::symlink(place.config.path(), &link).unwrap();
    DockerConfig::new(&link).store("a.corp", &login()).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(place.config.get("a.corp").await.unwrap().is_some());
}

#[tokio::test]
async fn a_helper_keeps_the_secret() {
    let place = place(r#"{"credHelpers": {"https://index.docker.io/v1/": "fake"}}"#);
    assert!(place.config.get("docker.io").await.unwrap().is_none());
    let stored = place.config.store("docker.io", &login()).await.unwrap();
    assert_eq!(stored, StoredIn::Helper("fake".to_owned()));
    let found = place.config.get("docker.io").await.unwrap();
    assert_eq!(password_of(found).as_deref(), Some("user:hunter2"));
    assert_eq!(place.text("asked"), "https://index.docker.io/v1/");
    let token = Credential::IdentityToken("it".to_owned().into());
    place.config.store("docker.io", &token).await.unwrap();
    assert!(place.text("stored").contains("<token>"));
    let found = place.config.get("docker.io").await.unwrap();
    assert_eq!(password_of(found).as_deref(), Some("token it"));
    assert!(!place.text("config.json").contains("hunter2"));
    assert!(!place.text("arguments").contains("hunter2"), "secrets are no arguments");
    assert!(place.config.erase("docker.io").await.unwrap());
    assert!(place.config.get("docker.io").await.unwrap().is_none());
}

#[tokio::test]
async fn a_helper_that_fails_says_why() {
    let broken = place(r#"{"credsStore": "fake"}"#);
    let error = broken.config.get("broken").await.unwrap_err().to_string();
    assert_eq!(error, "docker-credential-fake get failed: the key ring is locked");
    let missing = place(r#"{"credsStore": "absent"}"#);
    let error = missing.config.get("a.corp").await.unwrap_err().to_string();
    assert!(error.contains("docker-credential-absent") && error.contains("PATH"), "{error}");
    let evil = place(r#"{"credsStore": "../fake"}"#);
    let error = evil.config.get("a.corp").await.unwrap_err().to_string();
    assert!(error.contains("not a name"), "{error}");
}

#[tokio::test]
async fn a_huge_file_is_refused() {
    let place = place(&" ".repeat(usize::try_from(MAX_FILE).unwrap() + 1));
    let error = place.config.get("a.corp").await.unwrap_err().to_string();
    assert!(error.contains("larger than 4 MiB"), "{error}");
}
