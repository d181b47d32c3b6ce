//! A real registry: Debian's docker-registry (distribution 2.8), on loopback or within a cluster's network.

mod access_log;
mod push;
mod tokens;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::certificates::Authority;
use crate::machine::{Network, Relay};
use crate::port::Port;
use crate::process::Program;
use crate::runtime::block_on;
use crate::tools::in_path;
use crate::wait::{PATIENCE, until};
use crate::{Error, Image, Pushed, Result, Scratch};

pub use access_log::{Request, Requests};
pub use tokens::TokenOptions;

/// The file with the users that it lets in.
const USERS: &str = "htpasswd";
/// The harness' own look-outs, which are no part of what a test counts.
const PROBE_AGENT: &str = "larder-tests-probe";
/// What pushes of the harness call themselves in the access log.
pub const PUSH_AGENT: &str = "larder-tests-push";

/// A host name that its certificate is for too. It leads nowhere unless a test says where, in an /etc/hosts.
pub const REGISTRY_NAME: &str = "registry.test";

/// How a registry is set up.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// A fixed port; any free one otherwise.
    pub port: Option<u16>,
    /// User and password that every request must bring (HTTP Basic).
    pub login: Option<(String, String)>,
    /// Further users that it lets in, where it asks for a login.
    pub other_logins: Vec<(String, String)>,
    /// Send clients to a token server, which knows [`RegistryOptions::login`].
    pub tokens: Option<TokenOptions>,
    /// Serve HTTPS, with a certificate of a private authority.
    pub tls: bool,
    /// Allow manifests and blobs to be deleted.
    pub delete: bool,
    /// Where it listens; loopback otherwise.
    pub place: Option<Place>,
}

/// An address in a network namespace. The harness reaches a registry there by the same port on loopback.
#[derive(Debug, Clone)]
pub struct Place {
    /// The namespace.
    pub network: Network,
    /// An address in it.
    pub address: IpAddr,
    /// A folder that goes with the namespace. The registry's own is in it.
    pub folder: PathBuf,
}

/// docker-registry, running. Dropping it ends it and removes its content.
#[derive(Debug)]
pub struct Registry {
    program: Program,
    options: RegistryOptions,
    authority: Option<Authority>,
    tokens: Option<tokens::TokenServer>,
    ca_file: Option<PathBuf>,
    access_log: PathBuf,
    client: reqwest::Client,
    front: Front,
    scratch: Scratch,
}

/// How the harness gets to it.
#[derive(Debug)]
enum Front {
    Port(Port),
    Relay(Relay),
}

/// A place in the access log: see [`Registry::requests_since`].
#[derive(Debug, Clone, Copy)]
pub struct Mark(usize);

impl Registry {
    /// Starts one and waits until it answers.
    pub fn start(options: RegistryOptions) -> Result<Self> {
        let scratch = match &options.place {
            Some(place) => Scratch::in_folder(&place.folder, "registry")?,
            None => Scratch::new("registry")?,
        };
        let front = Front::new(&options)?;
        let authority = options.tls.then(|| Authority::new("larder-tests registry")).transpose()?;
        let ca_file = authority.as_ref().map(|ca| scratch.write("ca.crt", ca.pem())).transpose()?;
        let tokens = token_server(&options)?;
        let config = configuration(&scratch, &options, authority.as_ref(), &front.inside(&options))?;
        let config = match &tokens {
            Some((server, authority)) => with_token_server(&scratch, &config, server, authority)?,
            None => config,
        };
        let access_log = scratch.path().join("access.log");
        let (name, path) = ("docker-registry", in_path("docker-registry")?);
        let program = match &options.place {
            Some(place) => place.network.program(name, &path, scratch.path())?,
            None => Program::new(name, &path, scratch.path()),
        };
        let program = program.stdout(&access_log).args([Path::new("serve"), &config]);
        let client = push::client(authority.as_ref())?;
        let registry = Self {
            program,
            options,
            authority,
            tokens: tokens.map(|(server, _)| server),
            ca_file,
            access_log,
            client,
            front,
            scratch,
        };
        registry.restart()?;
        Ok(registry)
    }

    /// `ADDRESS:PORT`, as names of images begin where it is used: on loopback, or in the network of [`Place`].
    #[must_use]
    pub fn host(&self) -> String {
        self.front.inside(&self.options)
    }

    /// Its base URL for this process, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.front.host())
    }

    /// The logins that it asks for, as docker keeps them (`config.json`, `kubernetes.io/dockerconfigjson`).
    #[must_use]
    pub fn docker_config(&self) -> String {
        let auths: serde_json::Map<_, _> = self
            .options
            .login
            .iter()
            .map(|(user, password)| (self.host(), json!({"username": user, "password": password})))
            .collect();
        json!({"auths": auths}).to_string()
    }

    /// What containerd, and Larder, need in `certs.d/<host>/hosts.toml` to reach it. `ca` is where its authority's
    /// certificate will be.
    #[must_use]
    pub fn hosts_toml(&self, ca: &Path) -> String {
        let host = self.host();
        if self.authority.is_none() {
            return plain_hosts_toml(&host);
        }
        format!("server = 'https://{host}'\n[host.'https://{host}']\nca = '{}'\n", ca.display())
    }

    /// The private authority's certificate, where it serves HTTPS.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Ends it at once. Its content and its port stay its own.
    pub fn stop(&self) {
        self.program.kill();
    }

    /// Starts it, anew if it runs, on the same port with the same content, and waits until it answers.
    pub fn restart(&self) -> Result<()> {
        self.program.kill();
        self.program.start_until("docker-registry to answer", || self.probe("ready").is_ok())
    }

    /// Pushes an image and gives the name to pull it by. Blobs that the repository has are not sent again.
    pub fn push(&self, image: &Image, repository: &str, tag: &str) -> Result<Pushed> {
        let target = push::Target {
            client: self.client.clone(),
            url: self.url(),
            repository: repository.to_owned(),
            login: match &self.tokens {
                Some(tokens) => push::Login::Token(tokens.for_pushing(repository)?),
                None => self
                    .options
                    .login
                    .clone()
                    .map_or(push::Login::None, |(user, password)| push::Login::Password(user, password)),
            },
        };
        let (image, reference) = (image.clone(), tag.to_owned());
        let pushed = Pushed {
            name: format!("{}/{repository}:{tag}", self.host()),
            repository: format!("{}/{repository}", self.host()),
            digest: image.digest().clone(),
            size: image.size(),
        };
        block_on(async move { target.push(&image, &reference).await })?;
        Ok(pushed)
    }

    /// Replaces [`RegistryOptions::other_logins`]. What it asks for changes with the next request.
    pub fn set_other_logins(&self, logins: &[(String, String)]) -> Result<()> {
        let users = users(self.options.login.iter().chain(logins))?;
        // It looks at the time of the last change, and at nothing else.
        self.scratch.write(USERS, users).map(drop)
    }

    /// Removes a tag's or a digest's manifest. Needs [`RegistryOptions::delete`], and a digest.
    pub fn delete_manifest(&self, repository: &str, digest: &str) -> Result<()> {
        let url = format!("{}/v2/{repository}/manifests/{digest}", self.url());
        let mut request = self.client.delete(&url);
        if let Some((user, password)) = &self.options.login {
            request = request.basic_auth(user, Some(password));
        }
        block_on(async move { push::expect_success(request, &format!("DELETE {url}")).await.map(drop) })
    }

    /// All requests so far, in order, pings of `/v2/` included, the harness' own look-outs left out.
    pub fn requests(&self) -> Result<Requests> {
        if self.program.is_running() {
            self.settle()?;
        }
        let log = std::fs::read_to_string(&self.access_log).map_err(Error::file("read", &self.access_log))?;
        Ok(log.lines().filter_map(Request::parse).filter(|request| request.agent != PROBE_AGENT).collect())
    }

    /// The place in the log where the next request will be.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(self.requests()?.len()))
    }

    /// The requests after a mark.
    pub fn requests_since(&self, mark: Mark) -> Result<Requests> {
        Ok(self.requests()?.iter().skip(mark.0).cloned().collect())
    }

    /// How many tokens its token server has given out.
    #[must_use]
    pub fn tokens_given(&self) -> u64 {
        self.tokens.as_ref().map_or(0, tokens::TokenServer::given)
    }

    /// The process.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The log is written after the answer: waits until a request of our own, sent now, is in it.
    fn settle(&self) -> Result<()> {
        let marker = format!("settle-{}", fastrand::u64(..));
        self.probe(&marker)?;
        until("the registry's access log to be written", PATIENCE, || {
            std::fs::read_to_string(&self.access_log).ok()?.contains(&marker).then_some(())
        })
    }

    fn probe(&self, marker: &str) -> Result<()> {
        let url = format!("{}/v2/?{marker}", self.url());
        let request = self.client.get(&url).header("user-agent", PROBE_AGENT);
        block_on(async move {
            request.send().await.map_err(|error| Error::Http {
                request: format!("GET {url}"),
                problem: push::with_causes(&error),
            })
        })?;
        Ok(())
    }
}

/// `hosts.toml` for a registry, or a proxy before one, that speaks plain HTTP.
#[must_use]
pub fn plain_hosts_toml(host: &str) -> String {
    format!("server = 'http://{host}'\n[host.'http://{host}']\n")
}

impl Front {
    fn new(options: &RegistryOptions) -> Result<Self> {
        let Some(Place { network, address, .. }) = &options.place else {
            return Ok(Self::Port(options.port.map_or_else(Port::free, Port::exactly)?));
        };
        // One number for both: what is free here is ours among harnesses, and the namespace is ours anyway.
        let number = options.port.map_or_else(|| Port::free().map(|port| port.number()), Ok)?;
        Ok(Self::Relay(Relay::start(network, SocketAddr::new(*address, number), Some(number))?))
    }

    /// As the harness sees it.
    fn host(&self) -> String {
        match self {
            Self::Port(port) => port.host(),
            Self::Relay(relay) => relay.host(),
        }
    }

    /// As its users see it.
    fn inside(&self, options: &RegistryOptions) -> String {
        match (self, &options.place) {
            (Self::Relay(relay), Some(place)) => {
                SocketAddr::new(place.address, relay.address().port()).to_string()
            }
            _ => self.host(),
        }
    }
}

/// The content of a file of users, as Apache has it.
fn users<'a>(logins: impl Iterator<Item = &'a (String, String)>) -> Result<String> {
    let mut users = String::new();
    for (user, password) in logins {
        // The least cost that bcrypt has: every request of a test pays it.
        let hash = bcrypt::hash(password, 4).map_err(Error::data("password hash"))?;
        users.extend([user, ":", &hash, "\n"]);
    }
    Ok(users)
}

/// The token server that the options ask for, and the authority of its key.
fn token_server(options: &RegistryOptions) -> Result<Option<(tokens::TokenServer, Authority)>> {
    let Some(tokens) = options.tokens else { return Ok(None) };
    let login = options.login.clone().unwrap_or_default();
    let authority = Authority::new("larder-tests tokens")?;
    Ok(Some((tokens::TokenServer::start(tokens, login, &authority)?, authority)))
}

/// Puts a token server into a configuration file, in place of passwords.
fn with_token_server(
    scratch: &Scratch,
    config: &Path,
    server: &tokens::TokenServer,
    authority: &Authority,
) -> Result<PathBuf> {
    let text = std::fs::read_to_string(config).map_err(Error::file("read", config))?;
    let mut config: serde_json::Value =
        serde_json::from_str(&text).map_err(Error::data("registry's configuration"))?;
    config["auth"] = server.configuration(&scratch.write("tokens.crt", authority.pem())?);
    scratch.write("config.yml", format!("{config:#}\n"))
}

/// Writes distribution's configuration file (JSON, which is YAML too), and the files it names.
fn configuration(
    scratch: &Scratch,
    options: &RegistryOptions,
    authority: Option<&Authority>,
    listen: &str,
) -> Result<PathBuf> {
    let mut config = json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": false}},
        "storage": {
            "filesystem": {"rootdirectory": scratch.folder("storage")?},
            "delete": {"enabled": options.delete},
            "maintenance": {"uploadpurging": {"enabled": false}},
        },
        "http": {"addr": listen, "secret": "of no use to anybody"},
    });
    if let Some(authority) = authority {
        let address = options.place.as_ref().map(|place| place.address.to_string());
        let names = ["127.0.0.1", "localhost", REGISTRY_NAME]
            .into_iter()
            .chain(address.as_deref())
            .collect::<Vec<_>>();
        let identity = authority.server(&names)?;
        config["http"]["tls"] = json!({
            "certificate": scratch.write("registry.crt", &identity.certificate)?,
            "key": scratch.write("registry.key", &identity.key)?,
        });
    }
    if let Some(login) = &options.login {
        let file = scratch.write(USERS, users(std::iter::once(login).chain(&options.other_logins))?)?;
        config["auth"] = json!({"htpasswd": {"realm": "larder-tests", "path": file}});
    }
    scratch.write("config.yml", format!("{config:#}\n"))
}
