//! Registries set up as the tests need them, and connections that break.

use std::{
    collections::VecDeque,
    fmt::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::TryStreamExt;
use larder_oci::{Digest, ImageName};
use larder_registry::{BlobStream, Credential, Registry, RegistryError, RegistryOptions};
use larder_tests::{
    Program, Scratch,
    certificates::{Authority, Identity},
    port::Port,
    tools::in_path,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::AbortHandle,
};

/// How a docker-registry is set up.
#[derive(Default)]
pub struct Setup<'a> {
    /// Users and passwords.
    pub users: &'a [(&'a str, &'a str)],
    /// Who signs its certificate; plain HTTP without.
    pub authority: Option<&'a Authority>,
    /// Whose clients it lets in, by certificate.
    pub clients_of: Option<&'a Authority>,
    /// The rest of its configuration.
    pub more: String,
}

/// A docker-registry, running until it is dropped.
pub struct Server {
    _program: Program,
    port: Port,
    _scratch: Scratch,
}

impl Server {
    pub fn start(setup: &Setup<'_>) -> Self {
        let scratch = Scratch::new("registry-client").unwrap();
        let port = Port::free().unwrap();
        let storage = scratch.folder("storage").unwrap();
        let mut config = format!(
            "version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: {}\n",
            storage.display(),
            port.host()
        );
        if let Some(authority) = setup.authority {
            let identity = authority.server(&["127.0.0.1"]).unwrap();
            let certificate = scratch.write("server.crt", identity.certificate).unwrap();
            let key = scratch.write("server.key", identity.key).unwrap();
            let (certificate, key) = (certificate.display(), key.display());
            write!(config, "  tls:\n    certificate: {certificate}\n    key: {key}\n").unwrap();
        }
        if let Some(authority) = setup.clients_of {
            let ca = scratch.write("clients.crt", authority.pem()).unwrap();
            writeln!(config, "    clientcas: [{}]", ca.display()).unwrap();
        }
        if !setup.users.is_empty() {
            let lines = setup
                .users
                .iter()
                .map(|(user, password)| format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap()));
            let file = scratch.write("htpasswd", lines.collect::<String>()).unwrap();
            writeln!(config, "auth: {{htpasswd: {{realm: test, path: {}}}}}", file.display()).unwrap();
        }
        config.push_str(&setup.more);
        let config = scratch.write("config.yml", config).unwrap();
        let program = Program::new("docker-registry", &in_path("docker-registry").unwrap(), scratch.path())
            .args([Path::new("serve"), &config]);
        program.start_until("docker-registry to listen", || TcpStream::connect(port.host()).is_ok()).unwrap();
        Self { _program: program, port, _scratch: scratch }
    }

    pub fn host(&self) -> String {
        self.port.host()
    }
}

/// A folder in the form of `certs.d`.
pub struct HostsDir(Scratch);

impl HostsDir {
    pub fn new() -> Self {
        Self(Scratch::new("certs.d").unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Writes a file of a registry's folder.
    pub fn write(&self, registry: &str, file: &str, content: &str) {
        let folder = registry.replace(':', "_") + "_";
        self.0.folder(&folder).unwrap();
        self.0.write(&format!("{folder}/{file}"), content).unwrap();
    }

    pub fn write_identity(&self, registry: &str, identity: &Identity) {
        self.write(registry, "client.cert", &identity.certificate);
        self.write(registry, "client.key", &identity.key);
    }
}

/// A client; the program that it is part of has chosen a TLS provider.
pub fn client(options: RegistryOptions) -> Registry {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    Registry::new(options).unwrap()
}

/// A client without any configuration.
pub fn plain_client() -> Registry {
    client(RegistryOptions::default())
}

pub fn password(username: &str, password: &str) -> Credential {
    Credential::Password { username: username.to_owned(), password: password.to_owned().into() }
}

pub fn name(host: &str, rest: &str) -> ImageName {
    format!("{host}/{rest}").parse().unwrap()
}

/// Bytes that don't compress and are the same for the same seed.
pub fn random_bytes(seed: u64, length: usize) -> (Digest, Bytes) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    (Digest::sha256(&bytes), bytes.into())
}

pub async fn read(stream: BlobStream) -> Result<Vec<u8>, RegistryError> {
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    Ok(pieces.concat())
}

/// A relay in front of a server that breaks connections, as networks do.
pub struct Relay {
    host: String,
    sent: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Relay {
    /// The first connections break after so many bytes of the client's each; all others last.
    pub async fn start(upstream: String, limits: &[u64]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let sent = Arc::new(AtomicU64::new(0));
        let limits = Mutex::new(limits.iter().copied().collect::<VecDeque<_>>());
        let counter = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let limit = limits.lock().unwrap().pop_front().unwrap_or(u64::MAX);
                let server = tokio::net::TcpStream::connect(&upstream).await.unwrap();
                tokio::spawn(relay(client, server, limit, Arc::clone(&counter)));
            }
        });
        Self { host, sent, task: task.abort_handle() }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// The bytes that came from the client so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(
    client: tokio::net::TcpStream,
    server: tokio::net::TcpStream,
    limit: u64,
    sent: Arc<AtomicU64>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upwards = async {
        let mut passed = 0;
        let mut buffer = vec![0; 64 << 10];
        while passed < limit {
            let Ok(length @ 1..) = from_client.read(&mut buffer).await else { break };
            passed += length as u64;
            sent.fetch_add(length as u64, Ordering::SeqCst);
            if to_server.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    let downwards = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = upwards => {}
        _ = downwards => {}
    }
}
