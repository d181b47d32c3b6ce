//! HTTP clients: one for each way to reach a host, made when it is first needed.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use reqwest::{Certificate, Client, ClientBuilder, Identity, Url, redirect};

use crate::{
    RegistryError,
    hosts::{HostsError, read_bounded},
    http::is_loopback,
};

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest certificate or key file that is read, in bytes.
const MAX_PEM: u64 = 1 << 20;

/// Which certificates to trust and to show, and how long to wait for a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transport {
    /// Files with authorities to trust besides the system's.
    pub ca: Vec<PathBuf>,
    /// What to show to servers that ask for a certificate.
    pub client: Option<ClientCertificate>,
    /// Trust any certificate.
    pub skip_verify: bool,
    /// How long to wait for a connection, where it is said.
    pub dial_timeout: Option<Duration>,
}

/// PEM files with a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub certificate: PathBuf,
    /// Absent when the first file holds both.
    pub key: Option<PathBuf>,
}

impl Transport {
    /// Whether it says something that makes sense with TLS alone.
    pub fn asks_for_tls(&self) -> bool {
        !self.ca.is_empty() || self.client.is_some() || self.skip_verify
    }

    /// All files it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let client = self.client.iter().flat_map(|client| [Some(&client.certificate), client.key.as_ref()]);
        self.ca.iter().chain(client.flatten()).map(PathBuf::as_path)
    }
}

/// What a request is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A short request, whose answer may be long.
    Read,
    /// A long request. How long the registry is silent says nothing while we speak, so whoever sends it must watch.
    Write,
}

/// The clients for one way to reach a host. Made lazily: reading the system's certificates takes a while.
#[derive(Debug)]
pub(crate) struct Clients {
    transport: Transport,
    stall_timeout: Duration,
    made: [OnceLock<Client>; 8],
}

impl Clients {
    pub fn new(transport: Transport, stall_timeout: Duration) -> Self {
        Self { transport, stall_timeout, made: Default::default() }
    }

    /// How long an answer may stand still.
    pub fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    /// The client for a URL.
    pub fn get(&self, url: &Url, kind: Kind) -> Result<&Client, RegistryError> {
        let direct = url.host_str().is_some_and(is_loopback);
        let plain = url.scheme() == "http";
        let write = matches!(kind, Kind::Write);
        let place = &self.made[usize::from(plain) * 4 + usize::from(direct) * 2 + usize::from(write)];
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let client = self.make(plain, direct, kind)?;
        Ok(place.get_or_init(|| client))
    }

    fn make(&self, plain: bool, direct: bool, kind: Kind) -> Result<Client, RegistryError> {
        let mut builder = Client::builder()
            .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.transport.dial_timeout.unwrap_or(CONNECT_TIMEOUT))
            // We follow them ourselves: what may go along depends on where they lead.
            .redirect(redirect::Policy::none())
            .referer(false);
        if matches!(kind, Kind::Read) {
            builder = builder.read_timeout(self.stall_timeout);
        }
        if direct {
            // A proxy's loopback is not ours.
            builder = builder.no_proxy();
        }
        if plain {
            // Plain HTTP needs no authorities, and to read the system's costs more than a short request.
            return built(builder.tls_certs_only([]));
        }
        if self.transport.skip_verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let mut authorities = Vec::new();
        for path in &self.transport.ca {
            let unusable = |why: String| HostsError::Certificate { path: path.clone(), why };
            let found =
                Certificate::from_pem_bundle(&read(path)?).map_err(|error| unusable(cause(&error)))?;
            if found.is_empty() {
                return Err(unusable("it holds no certificate in PEM form".to_owned()).into());
            }
            authorities.extend(found);
        }
        builder = builder.tls_certs_merge(authorities);
        if let Some(client) = &self.transport.client {
            builder = builder.identity(identity(client)?);
        }
        built(builder)
    }
}

fn built(builder: ClientBuilder) -> Result<Client, RegistryError> {
    builder.build().map_err(|error| RegistryError::Protocol {
        registry: "the HTTP client".to_owned(),
        why: cause(&error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, HostsError> {
    let gone = || HostsError::Read {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::NotFound, "no such file"),
    };
    read_bounded(path, MAX_PEM)?.ok_or_else(gone)
}

fn identity(client: &ClientCertificate) -> Result<Identity, HostsError> {
    let mut pem = read(&client.certificate)?;
    if let Some(key) = &client.key {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    Identity::from_pem(&pem).map_err(|error| {
        let path = client.certificate.clone();
        HostsError::Certificate { path, why: format!("no client certificate with a key ({})", cause(&error)) }
    })
}

fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
