//! What stands between an agent and its containerd: every call goes on, and any of them can be the moment at which something
//! happens.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::cleanup::lock;
use crate::proxy::Hook;
use crate::runtime::{block_on, runtime};
use crate::{Error, Result};

/// Bytes of a stream that are on their way here: what is lost with the server should not have been waiting at the gate.
const WINDOW: u32 = 64 << 10;

/// A gRPC proxy on a socket of its own, before the socket of a server. Dropping it closes all connections.
#[derive(Debug)]
pub struct Gate {
    socket: PathBuf,
    shared: Arc<Shared>,
    server: AbortHandle,
}

/// When, in a call, something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The call has come, and has not gone on.
    Before,
    /// The server has begun to answer, and nothing of it has gone back.
    After,
}

#[derive(Debug)]
struct Shared {
    server: PathBuf,
    calls: Mutex<BTreeMap<String, u64>>,
    armed: Mutex<Option<Armed>>,
}

#[derive(Debug)]
struct Armed {
    method: String,
    moment: Moment,
    /// How many such calls pass before.
    left: u64,
    hook: Hook,
}

impl Gate {
    /// Starts one: whoever speaks to `socket`, which it makes, speaks to `server`. While nobody listens there, connections end.
    pub fn start(socket: &Path, server: &Path) -> Result<Self> {
        let shared =
            Arc::new(Shared { server: server.to_owned(), calls: Mutex::default(), armed: Mutex::default() });
        let path = socket.to_owned();
        let listener =
            block_on(async move { UnixListener::bind(path).map_err(Error::data("gate's socket")) })?;
        let server = runtime()?.spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { socket: socket.to_owned(), shared, server })
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How often each method was called, by its name without the package: `Content/Write`.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        lock(&self.shared.calls).clone()
    }

    /// Calls the hook once: at the first call of this method after `passing` others, from now on.
    pub fn arm(&self, method: &str, passing: u64, moment: Moment, hook: Hook) {
        let armed = Armed { method: method.to_owned(), moment, left: passing, hook };
        *lock(&self.shared.armed) = Some(armed);
    }

    /// Takes back what [`Gate::arm`] asked for, unless it has happened.
    pub fn disarm(&self) {
        lock(&self.shared.armed).take();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    /// The hook, where this call is the one.
    fn count(&self, method: &str) -> Option<(Moment, Hook)> {
        *lock(&self.calls).entry(method.to_owned()).or_default() += 1;
        let mut armed = lock(&self.armed);
        let here = armed.as_mut().filter(|armed| armed.method == method)?;
        if let Some(left) = here.left.checked_sub(1) {
            here.left = left;
            return None;
        }
        armed.take().map(|armed| (armed.moment, armed.hook))
    }
}

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move { connection(client, &shared).await.ok() });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(client: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let stream = TokioIo::new(UnixStream::connect(&shared.server).await?);
    let (sender, upstream) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_send_buf_size(WINDOW as usize)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let (mut sender, shared) = (sender.clone(), Arc::clone(shared));
        async move {
            let hook = shared.count(&method(request.uri().path()));
            if let Some((Moment::Before, hook)) = &hook {
                hook.call();
            }
            let answer = sender.send_request(request).await;
            if let Some((Moment::After, hook)) = &hook {
                hook.call();
            }
            answer
        }
    });
    let downstream = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(client), service);
    // Both ends go together: a connection to a server that is gone is of no use.
    tokio::select! {
        ended = downstream => ended.map_err(io::Error::other),
        ended = upstream => ended.map_err(io::Error::other),
    }
}

/// `/containerd.services.content.v1.Content/Write` is `Content/Write`.
fn method(path: &str) -> String {
    path.rsplit('.').next().unwrap_or(path).trim_start_matches('/').to_owned()
}
