//! A reverse proxy that injects faults, in front of a real registry or a real API server.
//!
//! It passes bodies on in small pieces with little in flight, so that what it counts as sent is close to what the
//! client has read. Close, not the same: a few tens of KiB may be in buffers when a client is killed, and more when
//! the client was slower than the proxy. [`Proxy::limit_rate`] to less than the client's own speed keeps buffers empty.

mod body;
mod link;
mod rule;
mod server;
mod tls;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::api;
use crate::certificates::Authority;
use crate::cleanup::lock;
use crate::runtime::{block_on, runtime};
use crate::{ControlPlane, Error, Result};

pub use link::Link;
pub use rule::{Answer, Fault, Hook, Rule};

/// The proxy, running. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    host: String,
    shared: Arc<Shared>,
    server: AbortHandle,
}

/// One request that came through, and what was sent for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The request's `Range`.
    pub range: Option<String>,
    /// Whether the request had an `Authorization`.
    pub authorized: bool,
    /// The answer's status; 0 until it is known.
    pub status: u16,
    /// Bytes of the body sent so far.
    pub bytes: u64,
}

/// What a rule did so far.
#[derive(Debug, Clone)]
pub struct Hits(Arc<AtomicU64>);

impl Hits {
    /// How many requests the rule was applied to.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

type Callback = Box<dyn FnOnce() + Send>;

/// What all connections share.
pub(crate) struct Shared {
    upstream: String,
    /// Where upstream does not answer: 502, or nothing at all.
    is_gateway: bool,
    cut: Notify,
    client: reqwest::Client,
    rules: Mutex<Vec<Rule>>,
    exchanges: Mutex<Vec<Exchange>>,
    sent: AtomicU64,
    callbacks: Mutex<Vec<(u64, Callback)>>,
    pace: Mutex<Pace>,
}

#[derive(Default)]
struct Pace {
    bytes_per_second: Option<u64>,
    next: Option<Instant>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({})", self.upstream)
    }
}

impl Proxy {
    /// Starts a proxy on a free loopback port in front of a registry that speaks plain HTTP, such as
    /// `127.0.0.1:5000`. While nothing answers there, the proxy answers 502.
    pub fn start(upstream: &str) -> Result<Self> {
        Self::start_with(upstream, None)
    }

    /// The same, spoken to by HTTPS: with a certificate of this authority for `127.0.0.1`.
    pub fn start_tls(upstream: &str, authority: &Authority) -> Result<Self> {
        Self::start_with(upstream, Some(tls::acceptor(&authority.server(&["127.0.0.1"])?)?))
    }

    /// A proxy in front of an API server, spoken to by plain HTTP: whoever comes is the cluster's admin, as with
    /// `kubectl proxy`. While nothing answers there, neither does the proxy: it ends the connection.
    pub fn start_api(plane: &ControlPlane) -> Result<Self> {
        Self::start_before(plane.url(), false, api::client(plane)?, None)
    }

    fn start_with(upstream: &str, tls: Option<TlsAcceptor>) -> Result<Self> {
        let client = block_on(async {
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(Error::data("HTTP client"))
        })?;
        Self::start_before(format!("http://{upstream}"), true, client, tls)
    }

    fn start_before(
        upstream: String,
        is_gateway: bool,
        client: reqwest::Client,
        tls: Option<TlsAcceptor>,
    ) -> Result<Self> {
        let listener = block_on(async { listen().map_err(Error::data("proxy's socket")) })?;
        let host = listener.local_addr().map_err(Error::data("proxy's socket"))?.to_string();
        let shared = Arc::new(Shared {
            upstream,
            is_gateway,
            cut: Notify::new(),
            client,
            rules: Mutex::default(),
            exchanges: Mutex::default(),
            sent: AtomicU64::new(0),
            callbacks: Mutex::default(),
            pace: Mutex::default(),
        });
        let server = runtime()?.spawn(server::serve(listener, Arc::clone(&shared), tls)).abort_handle();
        Ok(Self { host, shared, server })
    }

    /// `127.0.0.1:PORT`, as image names begin.
    #[must_use]
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// Adds a rule. Every rule that matches a request is applied, in the order in which they were added.
    #[expect(clippy::must_use_candidate, reason = "the count is for those who want it")]
    pub fn add(&self, rule: Rule) -> Hits {
        let hits = Hits(Arc::clone(&rule.hits));
        lock(&self.shared.rules).push(rule);
        hits
    }

    /// Takes all rules away. Answers under way keep theirs.
    pub fn clear(&self) {
        lock(&self.shared.rules).clear();
    }

    /// Resets all connections that there are.
    pub fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    /// Limits the bytes of all bodies in a second, over all connections; `None` for no limit.
    pub fn limit_rate(&self, bytes_per_second: Option<u64>) {
        *lock(&self.shared.pace) = Pace { bytes_per_second, next: None };
    }

    /// Calls `callback` once, when `bytes` more bytes of bodies have been sent from now on, all connections taken
    /// together. It runs before the next piece is sent.
    pub fn on_bytes(&self, bytes: u64, callback: impl FnOnce() + Send + 'static) {
        lock(&self.shared.callbacks).push((self.bytes_sent() + bytes, Box::new(callback)));
    }

    /// Bytes of all bodies sent so far.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// All requests so far, in the order in which they came.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.shared.exchanges).clone()
    }

    /// Bytes of bodies sent for paths that contain `part`.
    #[must_use]
    pub fn bytes_for(&self, part: &str) -> u64 {
        lock(&self.shared.exchanges).iter().filter(|e| e.path.contains(part)).map(|e| e.bytes).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections' tasks belong to the server's and end with it.
        self.server.abort();
        lock(&self.shared.callbacks).clear();
    }
}

impl Shared {
    /// The number under which [`Self::update`] finds the exchange.
    fn record(&self, exchange: Exchange) -> usize {
        let mut exchanges = lock(&self.exchanges);
        exchanges.push(exchange);
        exchanges.len() - 1
    }

    fn update(&self, number: usize, change: impl FnOnce(&mut Exchange)) {
        if let Some(exchange) = lock(&self.exchanges).get_mut(number) {
            change(exchange);
        }
    }

    /// The faults for a request, from all rules that match and have some budget left.
    fn faults(&self, request: &hyper::http::request::Parts) -> Vec<Fault> {
        let rules = lock(&self.rules);
        rules.iter().filter(|rule| rule.take(request)).flat_map(|rule| rule.faults.clone()).collect()
    }

    /// Counts bytes as sent, and runs the callbacks that are due.
    fn count(&self, number: usize, bytes: u64) {
        self.update(number, |exchange| exchange.bytes += bytes);
        let sent = self.sent.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let due: Vec<_> = lock(&self.callbacks).extract_if(.., |(at, _)| *at <= sent).collect();
        for (_, callback) in due {
            callback();
        }
    }

    /// Waits until the limit for all connections lets so many bytes pass.
    async fn pace(&self, bytes: u64) {
        let until = {
            let mut pace = lock(&self.pace);
            let Some(rate) = pace.bytes_per_second else { return };
            let start = pace.next.unwrap_or_else(Instant::now).max(Instant::now());
            pace.next = Some(start + body::duration_of(bytes, rate));
            start
        };
        body::sleep_until(until).await;
    }
}

/// A socket with a small send buffer, which the connections inherit: what is sent and not read yet stays small.
fn listen() -> std::io::Result<tokio::net::TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(32 << 10)?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    socket.listen(1024)
}
