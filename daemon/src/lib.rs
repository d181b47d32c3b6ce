//! What the mains of Larder's daemons have in common: logs, the client's set-up, signals.

#![forbid(unsafe_code)]

mod client;
mod log;

pub use client::{ClientError, client};
pub use log::LogFormat;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGTERM and SIGINT cancel. From here on neither ends the process by itself.
///
/// # Errors
/// The kernel's, where it refuses a handler.
pub fn shutdown_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        stop.cancel();
    });
    Ok(token)
}
