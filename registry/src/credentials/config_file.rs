//! docker's `config.json`, as far as logins go: read, changed, and written with all else kept as it was.
//!
//! The crate `docker_credential` reads such files too, but neither writes them nor keeps what it does not know, and
//! knows no `registrytoken` and no old-style keys.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::{Credential, CredentialsError, key_of};

/// The content of a `config.json`.
#[derive(Clone, Default)]
pub struct ConfigFile {
    /// Where it came from, for messages.
    path: PathBuf,
    root: Map<String, Value>,
}

/// Which keys are there, and no values.
impl std::fmt::Debug for ConfigFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let auths = self.auths().map(|auths| auths.keys().collect::<Vec<_>>());
        formatter
            .debug_struct("ConfigFile")
            .field("path", &self.path)
            .field("auths", &auths)
            .finish_non_exhaustive()
    }
}

impl ConfigFile {
    /// Reads the content of a file. `path` is for messages only. Empty content is an empty configuration, as docker
    /// has it.
    ///
    /// # Errors
    /// [`CredentialsError::Malformed`] when it is not a JSON object.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CredentialsError> {
        let path = path.to_owned();
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self { path, root: Map::new() });
        }
        // The parser's own message may quote what is there.
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(root)) => Ok(Self { path, root }),
            Ok(_) => Err(CredentialsError::Malformed { path, why: "not a JSON object".to_owned() }),
            Err(error) => {
                let why = format!("not JSON: line {}, column {}", error.line(), error.column());
                Err(CredentialsError::Malformed { path, why })
            }
        }
    }

    /// The bytes to write.
    ///
    /// # Errors
    /// None in practice: maps of JSON values can be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CredentialsError> {
        let mut bytes = Vec::new();
        let mut writer = serde_json::Serializer::with_formatter(
            &mut bytes,
            // docker indents by tabs. Files kept in a repository should not change all over.
            serde_json::ser::PrettyFormatter::with_indent(b"\t"),
        );
        serde::Serialize::serialize(&self.root, &mut writer)
            .map_err(|error| self.malformed(error.to_string()))?;
        Ok(bytes)
    }

    /// The helper that keeps a registry's login, if one does: `credHelpers` first, then `credsStore`.
    #[must_use]
    pub fn helper(&self, host: &str) -> Option<&str> {
        let own = self.root.get("credHelpers").and_then(|helpers| helpers.get(key_of(host)));
        let helper = own.or_else(|| self.root.get("credsStore")).and_then(Value::as_str)?;
        (!helper.is_empty()).then_some(helper)
    }

    /// The login that the file itself holds for a host.
    ///
    /// # Errors
    /// [`CredentialsError::Malformed`] when there is one, and it can't be read.
    pub fn find(&self, host: &str) -> Result<Option<Credential>, CredentialsError> {
        let Some(auths) = self.auths() else { return Ok(None) };
        let key = key_of(host);
        let legacy = || auths.iter().find(|(k, _)| host_of(k) == host).map(|(_, entry)| entry);
        auths.get(key).or_else(legacy).map_or(Ok(None), |entry| self.credential(key, entry))
    }

    /// The login for a repository: that of the longest key that the repository lies under (`registry.corp/team`), as
    /// kubelet and podman have it, else the host's.
    ///
    /// # Errors
    /// [`CredentialsError::Malformed`] when there is one, and it can't be read.
    pub fn for_repository(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialsError> {
        Ok(self.most_specific(host, repository)?.map(|(_, credential)| credential))
    }

    /// The same, and how many parts of the repository's path its key has: for who chooses among several files.
    ///
    /// # Errors
    /// [`CredentialsError::Malformed`] when there is one, and it can't be read.
    pub fn most_specific(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<(usize, Credential)>, CredentialsError> {
        let Some(auths) = self.auths() else { return Ok(None) };
        let mut path = format!("{host}/{repository}");
        while path.len() > host.len() {
            if let Some(entry) = auths.get(&path) {
                let parts = path[host.len()..].matches('/').count();
                return Ok(self.credential(&path, entry)?.map(|credential| (parts, credential)));
            }
            path.truncate(path.rfind('/').unwrap_or_default());
        }
        Ok(self.find(host)?.map(|credential| (0, credential)))
    }

    /// Whether every login that the file holds can be read, and there is one.
    ///
    /// # Errors
    /// [`CredentialsError::Malformed`], which names the first that can't.
    pub fn check(&self) -> Result<(), CredentialsError> {
        let mut logins = 0;
        for (key, entry) in self.auths().into_iter().flatten() {
            logins += usize::from(self.credential(key, entry)?.is_some());
        }
        // As docker writes it where a credential helper keeps the logins.
        let why = "there is no login in it: no entry of auths has auth, or username and password";
        if logins == 0 { Err(self.malformed(why.to_owned())) } else { Ok(()) }
    }

    /// Keeps a login in the file, in place of the one that was there.
    pub fn insert(&mut self, host: &str, credential: &Credential) {
        let mut entry = Map::new();
        match credential {
            Credential::Password { username, password } => {
                let text = SecretString::from(format!("{username}:{}", password.expose_secret()));
                entry.insert("auth".to_owned(), BASE64_STANDARD.encode(text.expose_secret()).into());
            }
            Credential::IdentityToken(token) => {
                // docker writes the user too and reads it back; its name for "a token instead" is this.
                entry.insert("auth".to_owned(), BASE64_STANDARD.encode("<token>:").into());
                entry.insert("identitytoken".to_owned(), token.expose_secret().into());
            }
            Credential::RegistryToken(token) => {
                entry.insert("registrytoken".to_owned(), token.expose_secret().into());
            }
        }
        self.set(host, entry);
    }

    /// Notes that a helper keeps the login: an entry without a secret, as docker does.
    pub(super) fn insert_empty(&mut self, host: &str) {
        self.set(host, Map::new());
    }

    /// Removes the login for a host, old-style keys included. Says whether there was one.
    pub fn remove(&mut self, host: &str) -> bool {
        let key = key_of(host);
        let Some(Value::Object(auths)) = self.root.get_mut("auths") else { return false };
        let before = auths.len();
        auths.retain(|k, _| k != key && host_of(k) != host);
        auths.len() < before
    }

    /// The keys of all logins that the file holds or knows of.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.auths().into_iter().flat_map(|auths| auths.keys().map(String::as_str))
    }

    fn auths(&self) -> Option<&Map<String, Value>> {
        self.root.get("auths").and_then(Value::as_object)
    }

    fn set(&mut self, host: &str, entry: Map<String, Value>) {
        let key = key_of(host).to_owned();
        let auths = self.root.entry("auths").or_insert(Value::Null);
        match auths {
            Value::Object(auths) => drop(auths.insert(key, entry.into())),
            _ => *auths = Map::from_iter([(key, entry.into())]).into(),
        }
    }

    fn credential(&self, key: &str, entry: &Value) -> Result<Option<Credential>, CredentialsError> {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let secret = |text: &str| SecretString::from(text.to_owned());
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credential::RegistryToken(secret(token))));
        }
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::IdentityToken(secret(token))));
        }
        if let Some(auth) = text("auth") {
            let (username, password) = decode(auth).ok_or_else(|| {
                self.malformed(format!("auths: {key}: auth is not user:password in base64"))
            })?;
            return Ok(Some(Credential::Password { username, password }));
        }
        // Kubernetes' secrets have them in the clear beside `auth`, or alone.
        Ok(text("username").zip(text("password")).map(|(username, password)| Credential::Password {
            username: username.to_owned(),
            password: secret(password),
        }))
    }

    fn malformed(&self, why: String) -> CredentialsError {
        CredentialsError::Malformed { path: self.path.clone(), why }
    }
}

fn decode(auth: &str) -> Option<(String, SecretString)> {
    let text = SecretString::from(String::from_utf8(BASE64_STANDARD.decode(auth).ok()?).ok()?);
    let (username, password) = text.expose_secret().split_once(':')?;
    let password = SecretString::from(password.trim_matches('\0').to_owned());
    (!username.is_empty()).then(|| (username.to_owned(), password))
}

/// The host of an old-style key, which may be a URL: `https://registry.corp/v1/`.
fn host_of(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split('/').next().unwrap_or_default()
}

#[cfg(test)]
#[path = "config_file_tests.rs"]
mod tests;
