//! Reading from and writing to OCI registries
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md>).
//!
//! A [`Registry`] is a client for all registries at once. It takes the names that people write ([`ImageName`]), finds
//! the hosts that stand for a registry, logs in where it must, and moves manifests and blobs. It keeps nothing on disk.
//!
//! | to | call |
//! | --- | --- |
//! | resolve a name, without or with the bytes | [`Registry::head_manifest`], [`Registry::manifest`] |
//! | fetch a blob from some offset on | [`Registry::blob`] |
//! | fetch a part of it, over several connections | [`Registry::blob_range`] |
//! | list a repository's tags | [`Registry::tags`] |
//! | push a blob; a manifest | [`Registry::push_blob`]; [`Registry::put_manifest`] |
//! | try a login, then keep it | [`Registry::login`], [`DockerConfig::store`] |
//!
//! # Hosts
//!
//! [`RegistryOptions::hosts_dir`] is a folder in containerd's `certs.d` form: mirrors in order, private authorities,
//! client certificates, plain HTTP. A file that changed is read again. A request goes to each host in turn that has the
//! capability for it, until one succeeds; the error that is reported is the last one's, which is the registry's own. A
//! mirror that cannot be reached or is overloaded is not asked again for half a minute. Tags are only resolved by hosts
//! with `resolve`; a push goes to the first host with `push`, and to no other.
//!
//! Where containerd passes over a malformed `hosts.toml` with a line in its log, the request fails here: going to
//! another host than the one an administrator meant is worse. Not supported: more than one client certificate a host.
//!
//! Registries on loopback speak plain HTTP unless `hosts.toml` says otherwise. Proxies are taken from the environment
//! (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), never for loopback.
//!
//! # Logins
//!
//! [`RegistryOptions::credentials`] says which login to use: docker's `config.json` and its helpers
//! ([`DockerConfig`]), a pull secret ([`ConfigFile`]), none ([`Anonymous`]), or whatever implements [`Credentials`].
//! [`Registry::with_credentials`] gives a client with other logins that shares the connections.
//! Tokens are kept by host and repository, renewed before they end, and once when the registry refuses one in the
//! middle of a pull. A login that is refused is an error ([`RegistryError::LoginRefused`]), never a reason to go on
//! without.
//!
//! # What is retried
//!
//! Writing retries what passes by itself, and obeys `Retry-After` up to a minute. Reading does not: who reads a blob
//! knows how much of it has arrived, so the caller tries again, guided by [`RegistryError::is_passing`] and
//! [`RegistryError::retry_after`].
//!
//! # What stands still
//!
//! [`RegistryOptions::stall_timeout`] bounds every wait: for an answer to begin, and for its bytes. A registry that sends a
//! byte a second is as good as one that sends none. Neither costs more than that time a try.
//!
//! # Why not `oci-client` for all of it
//!
//! Error envelopes come from `oci-client`, and the HTTP client is the one that it uses. Its requests are not: they read
//! manifests of any size into memory, drop `Retry-After`, do not check `Content-Range`, and re-serialise manifests; see
//! the `auth` module for what its logins lack.
//!
//! # Before the first request
//!
//! The program must install a default `rustls` crypto provider, and run within a tokio runtime.

#![forbid(unsafe_code)]

mod auth;
mod client;
mod credentials;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod hosts;
mod http;
mod login;
mod read;
mod retry;
mod send;
mod source;
mod stall;
mod upload;
mod write;

use std::{path::PathBuf, sync::Arc, time::Duration};

#[cfg(doc)]
use larder_oci::ImageName;

pub use credentials::{
    Anonymous, ConfigFile, Credential, Credentials, CredentialsError, DockerConfig, ExposeSecret, FirstOf,
    SecretString, StoredIn,
};
pub use error::RegistryError;
pub use hosts::HostsError;
pub use login::LoginOutcome;
pub use read::{BlobRange, BlobStream, ManifestHead, RawManifest};
pub use send::Progress;
pub use source::{BlobFile, BlobSource, ByteStream};
pub use write::{PushOptions, PushOutcome};

use auth::Authorizer;
use hosts::Hosts;

/// What a registry client needs to know beforehand.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Registries (`host:port`) that speak plain HTTP, besides those on loopback.
    pub plain_http: Vec<String>,
    /// A folder in containerd's `certs.d` form. It need not exist.
    pub hosts_dir: Option<PathBuf>,
    /// Where logins come from.
    pub credentials: Arc<dyn Credentials>,
    /// How long a registry may keep us waiting: for the beginning of an answer, and within it for bytes that are worth the
    /// name (at least 128 a second on the whole). Then the connection is given up as broken; whoever reads a blob resumes it.
    pub stall_timeout: Duration,
}

/// [`RegistryOptions::stall_timeout`] where nobody says otherwise.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            hosts_dir: None,
            credentials: Arc::new(Anonymous),
            stall_timeout: STALL_TIMEOUT,
        }
    }
}

/// A client for all registries. Cloning it is cheap, and clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    hosts: Arc<Hosts>,
    auth: Arc<Authorizer>,
}

impl Registry {
    /// A client.
    ///
    /// # Errors
    /// None yet: what can fail, such as reading certificates, is done when a host is first spoken to.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let RegistryOptions { plain_http, hosts_dir, credentials, stall_timeout } = options;
        Ok(Self {
            hosts: Arc::new(Hosts::new(hosts_dir, plain_http, stall_timeout)),
            auth: Arc::new(Authorizer::new(credentials)),
        })
    }

    /// The same client with other logins. It shares the connections and no tokens.
    #[must_use]
    pub fn with_credentials(&self, credentials: Arc<dyn Credentials>) -> Self {
        Self { hosts: self.hosts.clone(), auth: Arc::new(Authorizer::new(credentials)) }
    }

    /// Forgets what it has been let in with: the next request to each registry asks for a login anew. For who knows that
    /// logins have changed; what a registry refuses is asked for anew by itself. Requests that are under way go on.
    pub fn forget_logins(&self) {
        self.auth.forget();
    }

    /// Passes over a mirror for half a minute: for who finds that a blob from it ([`BlobStream::host`]) is not what it
    /// should be. The registry itself cannot be passed over.
    pub fn set_aside(&self, host: &str) {
        self.hosts.set_aside(host);
    }
}
