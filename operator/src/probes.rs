//! What answers over HTTP: probes and metrics. Nothing here changes anything.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{
    health::Health,
    metrics::{Metrics, Snapshot},
    reconcile::Context,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What those who answer and those who work have in common.
pub(crate) struct Shared {
    pub health: Health,
    pub metrics: Metrics,
    /// Set once everything has been listed.
    pub context: OnceLock<Arc<Context>>,
}

impl Shared {
    pub fn new() -> Self {
        Self { health: Health::new(), metrics: Metrics::new(), context: OnceLock::new() }
    }

    fn snapshot(&self) -> Snapshot {
        // A replica that stands by has the same objects, and works on none of them.
        let leads = self.health.standing().leads();
        let context = self.context.get().filter(|_| leads);
        Snapshot {
            leads,
            queue: context.map(|context| context.queue.depth()).unwrap_or_default(),
            census: context.map(|context| context.index().census()),
        }
    }
}

/// Takes the first address that can be had.
pub(crate) async fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    TcpListener::bind(addresses).await
}

/// Answers for as long as the process runs.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> io::Error {
    let router = Router::new()
        .route("/healthz", get(async |State(shared): State<Arc<Shared>>| answer(shared.health.alive())))
        .route("/readyz", get(async |State(shared): State<Arc<Shared>>| answer(shared.health.ready())))
        .route("/metrics", get(async |State(shared): State<Arc<Shared>>| metrics(&shared)))
        .with_state(shared);
    let ended = axum::serve(listener, router).await;
    ended.err().unwrap_or_else(|| io::Error::other("the server ended"))
}

fn answer(verdict: Result<&'static str, String>) -> Response {
    match verdict {
        Ok(word) => format!("{word}\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

fn metrics(shared: &Shared) -> Response {
    match shared.metrics.text(shared.snapshot()) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
