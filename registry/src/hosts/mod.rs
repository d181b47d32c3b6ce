//! Which hosts stand for a registry: `hosts.toml` in containerd's `certs.d` form, so that one configuration serves
//! the node's runtime and us (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>).

mod file;
mod folder;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use larder_oci::ImageName;
use reqwest::{Url, header::HeaderMap};

use crate::{RegistryError, client::Clients, http::is_plain};

use file::{Host, HostsFile};
use folder::Found;
pub(crate) use folder::read_bounded;

/// Whether a `hosts.toml` can be used, for the fuzz target.
#[cfg(fuzzing)]
pub(crate) fn check(path: &std::path::Path, text: &str) -> Result<(), String> {
    file::parse(path, text).map(drop).map_err(|error| error.to_string())
}

/// Where Docker Hub's API is.
pub(crate) const DOCKER_HUB: &str = "registry-1.docker.io";
/// How long a mirror that failed is not asked again. Every blob would wait for its time-out otherwise.
const SET_ASIDE: Duration = Duration::from_secs(30);
/// Registries that are remembered. More are forgotten and read again.
const MAX_CACHED: usize = 1024;

/// Why a registry's host configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than such a file can be.
    #[error("{} is larger than {} KiB; is it the right file?", path.display(), limit >> 10)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// It is not TOML, or a field has the wrong type.
    #[error("{}, line {line}: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        why: String,
    },
    /// A field has a value that it cannot have.
    #[error("{}, line {line}: {field}: {why}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
        /// What is wrong with its value.
        why: String,
    },
    /// A certificate or key cannot be used.
    #[error("{}: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No host may do what is to be done.
    #[error("no host of {} has the capability {capability:?}", path.display())]
    Capability {
        /// The registry's folder.
        path: PathBuf,
        /// What is to be done.
        capability: &'static str,
    },
}

/// What a host may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub pull: bool,
    pub resolve: bool,
    pub push: bool,
}

impl Capabilities {
    const NONE: Self = Self { pull: false, resolve: false, push: false };
    const ALL: Self = Self { pull: true, resolve: true, push: true };
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::ALL
    }
}

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Content by digest: any host will do, the digest is checked.
    Pull,
    /// What a tag stands for: only hosts that are trusted to say.
    Resolve,
    /// Writing.
    Push,
}

impl Purpose {
    fn is_allowed(self, to: Capabilities) -> bool {
        match self {
            Self::Pull => to.pull,
            Self::Resolve => to.resolve,
            Self::Push => to.push,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
            Self::Push => "push",
        }
    }
}

/// One host that stands for a registry.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The root of its API.
    base: Url,
    /// The registry it stands for, as image names begin.
    registry: String,
    capabilities: Capabilities,
    /// Sent with each request to this host, and to no other.
    pub headers: HeaderMap,
    pub clients: Clients,
}

impl Endpoint {
    fn new(registry: &str, host: Host, plain: bool, stall_timeout: Duration) -> Result<Self, RegistryError> {
        let base = match host.base {
            Some(base) => base,
            None => own_base(registry, plain)?,
        };
        Ok(Self {
            base,
            registry: registry.to_owned(),
            capabilities: host.capabilities,
            headers: host.headers,
            clients: Clients::new(host.transport, stall_timeout),
        })
    }

    /// Host and port.
    pub fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Whether it is another host than the registry: it is told whom it stands for, and has logins of its own.
    pub fn is_mirror(&self) -> bool {
        let (host, own) = (self.host(), own_host(&self.registry));
        let with_port = self.base.port_or_known_default().map(|port| format!("{host}:{port}"));
        host != own && with_port.as_deref() != Some(own)
    }

    /// What to call it in messages and where to look for logins: the registry's name as people write it, or the
    /// mirror's host.
    pub fn name(&self) -> String {
        if self.is_mirror() { self.host() } else { self.registry.clone() }
    }

    /// Whether it is spoken to without TLS.
    pub fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }

    /// Whether a URL is this host's, so that logins and headers may go there.
    pub fn owns(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    /// The URL that is the root of the API, with a slash at the end.
    pub fn root(&self) -> Url {
        self.with_path("/")
    }

    /// The URL of something in a repository, such as `manifests/latest`.
    pub fn url(&self, name: &ImageName, rest: &str) -> Url {
        self.with_path(&format!("/{}/{rest}", name.repository()))
    }

    fn with_path(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if self.is_mirror() {
            url.query_pairs_mut().append_pair("ns", &self.registry);
        }
        url
    }
}

/// Where a registry's own API is.
fn own_host(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB } else { registry }
}

fn own_base(registry: &str, plain: bool) -> Result<Url, RegistryError> {
    let scheme = if plain { "http" } else { "https" };
    let not_a_host = || RegistryError::Protocol {
        registry: registry.chars().take(255).collect(),
        why: "this is not a host; write host or host:port".to_owned(),
    };
    // Logins are given a text that no image name vouches for.
    let looks_right = registry.starts_with(|c: char| c.is_alphanumeric() || c == '[')
        && !registry.contains(|c: char| "/\\?#@".contains(c) || c.is_whitespace());
    if !looks_right {
        return Err(not_a_host());
    }
    Url::parse(&format!("{scheme}://{}/v2", own_host(registry))).map_err(|_| not_a_host())
}

/// A registry's hosts, and what they were read from.
type Known = (Found, Vec<Arc<Endpoint>>);

/// The host configuration of all registries, read as it is needed and again when it has changed.
#[derive(Debug)]
pub(crate) struct Hosts {
    folder: Option<PathBuf>,
    plain: Vec<String>,
    stall_timeout: Duration,
    cache: Mutex<HashMap<String, Known>>,
    set_aside: Mutex<HashMap<String, Instant>>,
}

impl Hosts {
    pub fn new(folder: Option<PathBuf>, plain: Vec<String>, stall_timeout: Duration) -> Self {
        Self { folder, plain, stall_timeout, cache: Mutex::default(), set_aside: Mutex::default() }
    }

    /// The hosts to try for a registry, in order, each once; at least one. Mirrors that failed a moment ago are left
    /// out, while any other is left.
    pub fn endpoints(&self, registry: &str, purpose: Purpose) -> Result<Vec<Arc<Endpoint>>, RegistryError> {
        let mut endpoints = self.all(registry)?;
        endpoints.retain(|endpoint| purpose.is_allowed(endpoint.capabilities));
        // Many a hosts.toml names the registry itself among the hosts, with its authority. Asked once more, and without
        // that, it would only hide what it said the first time.
        if let Some((server, hosts)) = endpoints.split_last()
            && hosts.iter().any(|host| host.base == server.base)
        {
            endpoints.pop();
        }
        if endpoints.is_empty() {
            let path = self.folder.clone().unwrap_or_default().join(registry);
            return Err(HostsError::Capability { path, capability: purpose.as_str() }.into());
        }
        let mut aside = lock(&self.set_aside);
        let now = Instant::now();
        aside.retain(|_, until| *until > now);
        if endpoints.iter().any(|endpoint| !aside.contains_key(&endpoint.host())) {
            endpoints.retain(|endpoint| !aside.contains_key(&endpoint.host()));
        }
        Ok(endpoints)
    }

    /// The registry's own host, for logins: the entry with its name if there is one, else what comes last.
    pub fn own(&self, registry: &str) -> Result<Option<Arc<Endpoint>>, RegistryError> {
        let endpoints = self.all(registry)?;
        let own = endpoints.iter().find(|endpoint| !endpoint.is_mirror());
        Ok(own.or(endpoints.last()).cloned())
    }

    /// Passes over a mirror for a while.
    pub fn set_aside(&self, host: &str) {
        let mut aside = lock(&self.set_aside);
        if aside.len() < MAX_CACHED {
            aside.insert(host.to_owned(), Instant::now() + SET_ASIDE);
        }
    }

    fn all(&self, registry: &str) -> Result<Vec<Arc<Endpoint>>, RegistryError> {
        let found = self.folder.as_deref().map(|folder| Found::look(folder, registry)).unwrap_or_default();
        if let Some((as_of, endpoints)) = lock(&self.cache).get(registry)
            && as_of.is_still(&found)
        {
            return Ok(endpoints.clone());
        }
        let (file, found) = found.read()?;
        let endpoints = self.build(registry, file)?;
        let mut cache = lock(&self.cache);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(registry.to_owned(), (found, endpoints.clone()));
        Ok(endpoints)
    }

    fn build(&self, registry: &str, file: HostsFile) -> Result<Vec<Arc<Endpoint>>, RegistryError> {
        let with_certificates = file.server.transport.asks_for_tls();
        let plain = is_plain(registry, &self.plain) && !with_certificates;
        file.mirrors
            .into_iter()
            .chain([file.server])
            .map(|host| Endpoint::new(registry, host, plain, self.stall_timeout).map(Arc::new))
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
