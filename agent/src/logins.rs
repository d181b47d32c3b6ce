//! Logins from a file that may change at any time: a mounted `kubernetes.io/dockerconfigjson` secret.

use std::{
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::future::BoxFuture;
use larder_registry::{ConfigFile, Credential, Credentials, CredentialsError};
use tokio::{io::AsyncReadExt, sync::Mutex};

/// The largest file that is read, in bytes. A secret has at most 1 MiB.
const MAX_FILE: u64 = 4 << 20;

/// The logins in a file, read again when it has changed. Where there is no file there are no logins; what can't be read
/// counts as none, and is said once in the log.
#[derive(Debug)]
pub struct LoginsFile {
    path: PathBuf,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    stamp: Option<Stamp>,
    logins: Arc<ConfigFile>,
    /// What was said to be wrong, while it is.
    trouble: Option<String>,
}

/// What tells one version of a file from another. Kubernetes swaps a link to a folder, so that the inode is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl LoginsFile {
    /// The logins in this file, which need not be there (yet). It is read when a login is asked for.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), last: Mutex::default() }
    }

    async fn current(&self) -> Arc<ConfigFile> {
        // Held while the file is read: pulls that begin together read it once, and say so once.
        let mut last = self.last.lock().await;
        let stamp = match stamp(&self.path).await {
            Ok(stamp) => stamp,
            Err(error) => {
                let file = self.path.display();
                last.tell(format!(
                    "registry logins cannot be read; going on with those read last: {file}: {error}"
                ));
                return Arc::clone(&last.logins);
            }
        };
        if stamp == last.stamp {
            last.trouble = None;
            return Arc::clone(&last.logins);
        }
        let logins = match stamp {
            None => Ok(ConfigFile::default()),
            Some(_) => read(&self.path).await,
        };
        last.stamp = stamp;
        last.logins = Arc::new(match logins {
            Ok(logins) => {
                last.trouble = None;
                if stamp.is_some() {
                    tracing::info!(file = %self.path.display(), registries = logins.hosts().count(), "registry logins read");
                }
                logins
            }
            Err(error) => {
                last.tell(format!("registry logins cannot be used; going on without: {error}"));
                ConfigFile::default()
            }
        });
        Arc::clone(&last.logins)
    }
}

impl Last {
    /// Says what is wrong, once for as long as it is the same. Whether it has said it now.
    fn tell(&mut self, trouble: String) -> bool {
        let is_news = self.trouble.as_ref() != Some(&trouble);
        if is_news {
            tracing::warn!("{trouble}");
            self.trouble = Some(trouble);
        }
        is_news
    }
}

impl Credentials for LoginsFile {
    fn find<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(async move { self.current().await.for_repository(host, repository) })
    }
}

/// `None` where there is no file.
async fn stamp(path: &Path) -> std::io::Result<Option<Stamp>> {
    match tokio::fs::metadata(path).await {
        Ok(found) => Ok(Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        })),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read(path: &Path) -> Result<ConfigFile, CredentialsError> {
    let failed = |source| CredentialsError::File { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        let why = format!("it is larger than {} MiB", MAX_FILE >> 20);
        return Err(CredentialsError::Malformed { path: path.to_owned(), why });
    }
    ConfigFile::parse(path, &bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use larder_registry::ExposeSecret;

    use super::*;

    fn content(password: &str) -> String {
        format!(r#"{{"auths": {{"a.corp": {{"username": "user", "password": "{password}"}}}}}}"#)
    }

    async fn password(logins: &LoginsFile) -> Option<String> {
        match logins.find("a.corp", "app").await.unwrap() {
            Some(Credential::Password { password, .. }) => Some(password.expose_secret().to_owned()),
            _ => None,
        }
    }

    /// As kubelet writes a secret: each version a folder, and a link that is replaced.
    #[tokio::test]
    async fn a_secret_that_is_rotated_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let logins = LoginsFile::new(&at("data/.dockerconfigjson"));
        assert_eq!(password(&logins).await, None, "no secret yet");
        for (version, text) in [("1", content("one")), ("2", content("two"))] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join(".dockerconfigjson"), text).unwrap();
            symlink(at(version), at("new")).unwrap();
            fs::rename(at("new"), at("data")).unwrap();
            let expected = if version == "1" { "one" } else { "two" };
            assert_eq!(password(&logins).await.as_deref(), Some(expected));
        }
        fs::remove_file(at("data")).unwrap();
        assert_eq!(password(&logins).await, None, "the secret is gone");
    }

    #[tokio::test]
    async fn what_cannot_be_used_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logins.json");
        let logins = LoginsFile::new(&path);
        fs::write(&path, content("one")).unwrap();
        assert!(password(&logins).await.is_some());
        fs::write(&path, "no JSON at all").unwrap();
        assert_eq!(password(&logins).await, None);
        fs::write(&path, content("three")).unwrap();
        assert_eq!(password(&logins).await.as_deref(), Some("three"));
        fs::write(&path, " ".repeat(usize::try_from(MAX_FILE).unwrap() + 1)).unwrap();
        assert_eq!(password(&logins).await, None);
    }

    #[tokio::test]
    async fn lookups_at_the_same_time_read_the_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logins.json");
        let logins = LoginsFile::new(&path);
        for text in [content("one"), "no JSON at all".to_owned()] {
            fs::write(&path, text).unwrap();
            let all = futures::future::join_all((0..8).map(|_| logins.current())).await;
            assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_once_and_again_when_it_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logins.json");
        let logins = LoginsFile::new(&path);
        fs::write(&path, content("one")).unwrap();
        assert!(password(&logins).await.is_some());
        // A link to itself: not even looked at.
        fs::rename(&path, folder.path().join("kept")).unwrap();
        symlink(&path, &path).unwrap();
        assert_eq!(password(&logins).await.as_deref(), Some("one"));
        let said = logins.last.lock().await.trouble.clone().unwrap();
        assert!(!logins.last.lock().await.tell(said.clone()), "it has been said");
        fs::rename(folder.path().join("kept"), &path).unwrap();
        assert_eq!(password(&logins).await.as_deref(), Some("one"));
        assert!(logins.last.lock().await.tell(said), "it was over");
    }
}
