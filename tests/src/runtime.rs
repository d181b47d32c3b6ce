//! The harness' own tokio runtime: the proxy and the HTTP client run on it.

use std::future::Future;
use std::sync::{OnceLock, mpsc};

use tokio::runtime::{Builder, Runtime};

use crate::{Error, Result};

/// One runtime for the whole process. It is never shut down: what runs on it is ended by whoever started it.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            // Its threads must outlive any test's: reqwest and the proxy share this runtime.
            rustls::crypto::ring::default_provider().install_default().ok();
            Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("harness")
                .enable_all()
                .build()
                .map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|problem| Error::Data { what: "tokio runtime", problem: problem.clone() })
}

/// Runs a future to its end. Unlike `Runtime::block_on` this may be called from within another runtime.
pub(crate) fn block_on<T: Send + 'static>(
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime()?.spawn(async move { sender.send(future.await).ok() });
    receiver.recv().map_err(Error::data("harness task panicked"))?
}
