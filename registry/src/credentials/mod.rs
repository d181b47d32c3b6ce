//! Logins: what they are, and where they come from.
//!
//! A [`Credentials`] answers which login to use for a host and a repository there. [`DockerConfig`] is docker's
//! `config.json` with its credential helpers; an agent with pull secrets brings its own. Secrets are
//! [`SecretString`]s: they print as `[REDACTED]` and are wiped when they are dropped.

mod config_file;
mod docker;
mod first_of;
mod helper;

use std::{fmt, path::PathBuf};

use futures::future::BoxFuture;
pub use secrecy::{ExposeSecret, SecretString};

pub use config_file::ConfigFile;
pub use docker::{DockerConfig, StoredIn};
pub use first_of::FirstOf;

/// A login.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A user name and a password or access token.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// A long-lived token that the token server changes for short-lived ones; also called refresh token.
    IdentityToken(SecretString),
    /// A token that goes to the registry as it is.
    RegistryToken(SecretString),
}

/// Where logins come from.
pub trait Credentials: fmt::Debug + Send + Sync {
    /// The login for a repository on a host. `None`: there is none, go on without.
    ///
    /// `host` is the registry as image names begin (`docker.io`, `registry.corp:5000`), or a mirror's host.
    fn find<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>>;
}

/// No logins at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

impl Credentials for Anonymous {
    fn find<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(async { Ok(None) })
    }
}

/// The logins of one `config.json` that is at hand, such as that of a `kubernetes.io/dockerconfigjson` secret.
/// Credential helpers that it names are not asked: whoever wrote it has no say in what runs here.
impl Credentials for ConfigFile {
    fn find<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(async move { self.for_repository(host, repository) })
    }
}

/// Why a login cannot be had, kept or removed. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The disk that the file is on, or the user's share of it, has no room left.
    #[error("no space left to write {}: free some space, or let DOCKER_CONFIG name a folder on another disk ({source})", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not docker's configuration.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What holds the logins is not there, or cannot be used.
    #[error("{why}")]
    Unavailable {
        /// What is wrong, and what to do about it.
        why: String,
        /// Whether it may well be there a moment later, without anybody's doing.
        is_passing: bool,
    },
    /// There is no place for it: neither `DOCKER_CONFIG` nor `HOME` is set.
    #[error("no place for docker's config.json: set DOCKER_CONFIG or HOME")]
    NoPlace,
    /// A credential helper failed.
    #[error("docker-credential-{helper} {verb} failed: {why}")]
    Helper {
        /// The helper, without `docker-credential-`.
        helper: String,
        /// What it was to do.
        verb: &'static str,
        /// What went wrong, in its own words where those can't be secret.
        why: String,
    },
}

/// The name under which docker keeps the login for a registry.
pub(crate) fn key_of(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" => "https://index.docker.io/v1/",
        other => other,
    }
}
