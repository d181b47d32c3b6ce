//! docker's place for logins: `config.json` and the helpers it names.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use futures::future::BoxFuture;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use super::{ConfigFile, Credential, Credentials, CredentialsError, helper::Helper, key_of};

/// The largest `config.json` that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// docker's `config.json`, read whenever a login is asked for: what another program changes counts at once.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    path: PathBuf,
    search_path: OsString,
}

/// Where a login was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredIn {
    /// In this file, readable for whoever may read the file. docker warns of it.
    File(PathBuf),
    /// In a credential helper of this name.
    Helper(String),
}

impl DockerConfig {
    /// The file at a path. It need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), search_path: std::env::var_os("PATH").unwrap_or_default() }
    }

    /// The file where docker has it: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    ///
    /// # Errors
    /// [`CredentialsError::NoPlace`] when neither `DOCKER_CONFIG` nor `HOME` is set.
    pub fn from_env() -> Result<Self, CredentialsError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
        folder.map(|folder| Self::new(folder.join("config.json"))).ok_or(CredentialsError::NoPlace)
    }

    /// Looks for credential helpers in these folders instead of `PATH`'s.
    #[must_use]
    pub fn with_search_path(mut self, folders: impl AsRef<OsStr>) -> Self {
        folders.as_ref().clone_into(&mut self.search_path);
        self
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The login for a registry, from its helper or the file.
    ///
    /// # Errors
    /// [`CredentialsError`] when the file or the helper fails. That there is no login is no error.
    pub async fn get(&self, host: &str) -> Result<Option<Credential>, CredentialsError> {
        let file = self.read().await?;
        match file.helper(host) {
            Some(helper) => Helper::find(helper, &self.search_path)?.get(key_of(host)).await,
            None => file.find(host),
        }
    }

    /// Keeps a login: in the registry's helper where one is set, in the file otherwise.
    ///
    /// # Errors
    /// [`CredentialsError`] when the helper or the file fails. The file is changed whole or not at all.
    pub async fn store(&self, host: &str, credential: &Credential) -> Result<StoredIn, CredentialsError> {
        let mut file = self.read().await?;
        let stored_in = if let Some(helper) = file.helper(host).map(str::to_owned) {
            Helper::find(&helper, &self.search_path)?.store(key_of(host), credential).await?;
            file.insert_empty(host);
            StoredIn::Helper(helper)
        } else {
            file.insert(host, credential);
            StoredIn::File(self.path.clone())
        };
        self.write(file).await?;
        Ok(stored_in)
    }

    /// Forgets a registry's login, in its helper and in the file. Says whether the file knew of one.
    ///
    /// # Errors
    /// [`CredentialsError`] when the helper or the file fails.
    pub async fn erase(&self, host: &str) -> Result<bool, CredentialsError> {
        let mut file = self.read().await?;
        if let Some(helper) = file.helper(host) {
            Helper::find(helper, &self.search_path)?.erase(key_of(host)).await?;
        }
        let known = file.remove(host);
        if known {
            self.write(file).await?;
        }
        Ok(known)
    }

    /// The file's content; empty where there is no file.
    ///
    /// # Errors
    /// [`CredentialsError`] when it can't be read or is malformed.
    pub async fn read(&self) -> Result<ConfigFile, CredentialsError> {
        let path = self.path.clone();
        blocking(&self.path, "read", move || {
            let failed = |source| CredentialsError::File { action: "read", path: path.clone(), source };
            let file = match fs::File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return ConfigFile::parse(&path, b""),
                Err(error) => return Err(failed(error)),
            };
            let mut bytes = Vec::new();
            file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
            if bytes.len() as u64 > MAX_FILE {
                let why = format!("larger than {} MiB; is it the right file?", MAX_FILE >> 20);
                return Err(CredentialsError::Malformed { path, why });
            }
            ConfigFile::parse(&path, &bytes)
        })
        .await
    }

    async fn write(&self, file: ConfigFile) -> Result<(), CredentialsError> {
        let path = self.path.clone();
        blocking(&self.path, "write", move || {
            let bytes = file.to_bytes()?;
            replace(&path, &bytes).map_err(|source| match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    CredentialsError::DiskFull { path, source: source.kind().into() }
                }
                _ => CredentialsError::File { action: "write", path, source },
            })
        })
        .await
    }
}

impl Credentials for DockerConfig {
    fn find<'a>(
        &'a self,
        host: &'a str,
        _repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(self.get(host))
    }
}

/// Puts a file in place of another at once, for its owner's eyes only.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Where the file is a link, its target is replaced, as docker does.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        make_private_folder(folder)?;
    }
    // Made with mode 0600.
    let mut file = NamedTempFile::with_prefix_in(".config.json-", folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    fs::File::open(folder)?.sync_all()
}

fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    action: &'static str,
    work: impl FnOnce() -> Result<T, CredentialsError> + Send + 'static,
) -> Result<T, CredentialsError> {
    spawn_blocking(work).await.map_err(|_| CredentialsError::File {
        action,
        path: path.to_owned(),
        source: std::io::Error::other("interrupted"),
    })?
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
