//! A token server (<https://distribution.github.io/distribution/spec/auth/token/>): ours gives out the tokens,
//! docker-registry itself checks them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use crate::certificates::Authority;
use crate::runtime::{block_on, runtime};
use crate::{Error, Result};

/// What docker-registry adds to the end of a token, for clocks that differ.
const LEEWAY: u64 = 60;
/// Who gives out the tokens, as they say themselves, and who they are for.
const ISSUER: &str = "larder-tests";
const SERVICE: &str = "registry";

/// How a registry with a token server is set up. It lets in [`RegistryOptions::login`](super::RegistryOptions), to read.
#[derive(Debug, Clone, Copy)]
pub struct TokenOptions {
    /// How long a token holds, to the second.
    pub holds: Duration,
    /// How long it holds by the token server's word.
    pub says: Duration,
}

/// The token server, running until it is dropped.
#[derive(Debug)]
pub(super) struct TokenServer {
    host: String,
    shared: Arc<Shared>,
    server: AbortHandle,
}

struct Shared {
    key: EcdsaKeyPair,
    certificate: String,
    login: (String, String),
    options: TokenOptions,
    given: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({:?})", self.options)
    }
}

impl TokenServer {
    /// Starts one on a free loopback port.
    pub fn start(options: TokenOptions, login: (String, String), authority: &Authority) -> Result<Self> {
        let identity = authority.client("token server", None)?;
        let unusable = || Error::Data { what: "token server's key", problem: "unusable".to_owned() };
        let key = pem_body(&identity.key).ok_or_else(unusable)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &SystemRandom::new())
            .map_err(Error::data("token server's key"))?;
        let certificate = BASE64_STANDARD.encode(pem_body(&identity.certificate).ok_or_else(unusable)?);
        let bind =
            async { TcpListener::bind("127.0.0.1:0").await.map_err(Error::data("token server's socket")) };
        let listener = block_on(bind)?;
        let host = listener.local_addr().map_err(Error::data("token server's socket"))?.to_string();
        let shared = Arc::new(Shared { key, certificate, login, options, given: AtomicU64::new(0) });
        let server = runtime()?.spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { host, shared, server })
    }

    /// docker-registry's configuration for it; `authority` is a file with its authority's certificate.
    pub fn configuration(&self, authority: &std::path::Path) -> serde_json::Value {
        let realm = format!("http://{}/token", self.host);
        json!({"token": {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": authority}})
    }

    /// How many tokens it has given out.
    pub fn given(&self) -> u64 {
        self.shared.given.load(Ordering::SeqCst)
    }

    /// A token for the harness itself, with which a repository can be written.
    pub fn for_pushing(&self, repository: &str) -> Result<String> {
        let access = json!([{"type": "repository", "name": repository, "actions": ["pull", "push"]}]);
        self.shared.sign(&access, Duration::from_secs(300))
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn pem_body(pem: &str) -> Option<Vec<u8>> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).map(str::trim).collect();
    BASE64_STANDARD.decode(body).ok()
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answer = shared.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        connections.spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            http.serve_connection(TokioIo::new(stream), service).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (user, password) = &self.login;
        let login = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let known = request.headers().get(header::AUTHORIZATION).is_some_and(|header| header == &login);
        let scopes = query(request.uri().query().unwrap_or_default(), "scope");
        let token = known.then(|| self.token(&scopes).ok()).flatten();
        let (status, body) = match token {
            Some(token) => {
                self.given.fetch_add(1, Ordering::SeqCst);
                (StatusCode::OK, json!({"token": token, "expires_in": self.options.says.as_secs()}))
            }
            None => (StatusCode::UNAUTHORIZED, json!({"details": "incorrect username or password"})),
        };
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        response
    }

    /// A token to read what the scopes name.
    fn token(&self, scopes: &[String]) -> Result<String> {
        let access = scopes.iter().filter_map(|scope| {
            let repository = scope.strip_prefix("repository:")?.rsplit_once(':')?.0;
            Some(json!({"type": "repository", "name": repository, "actions": ["pull"]}))
        });
        self.sign(&access.collect(), self.options.holds)
    }

    /// A JSON Web Token as the specification has it, signed with ES256.
    fn sign(&self, access: &serde_json::Value, holds: Duration) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Error::data("clock"))?.as_secs();
        let head = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER, "sub": "", "aud": SERVICE, "jti": format!("{:016x}", fastrand::u64(..)),
            "nbf": now - 3600, "iat": now - 3600, "exp": now + holds.as_secs() - LEEWAY,
            "access": access,
        });
        let encode = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&head), encode(&claims));
        let signature = (self.key.sign(&SystemRandom::new(), signed.as_bytes()))
            .map_err(Error::data("token's signature"))?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

/// The values of a query's parameter.
fn query(query: &str, name: &str) -> Vec<String> {
    let Ok(url) = reqwest::Url::parse(&format!("form:?{query}")) else { return Vec::new() };
    url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}
