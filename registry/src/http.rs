//! What HTTP says beyond the body: statuses, error envelopes, `Retry-After`, and who speaks plain HTTP.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use jiff::{Timestamp, fmt::rfc2822};
use oci_client::errors::OciEnvelope;
use reqwest::{Response, StatusCode, header};
use tokio::time::timeout;

use crate::{RegistryError, headers::content_length, stall::Body};

/// As much of an error's body as is read.
const MAX_ERROR_BODY: usize = 8 << 10;
/// How long to wait for it. The status has been said; what is left is decoration.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait that a registry may ask for. Beyond it, somebody's clock is wrong.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// Whether a registry is spoken to without TLS: those named, and those on loopback, as docker does.
pub(crate) fn is_plain(registry: &str, named: &[String]) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    };
    is_loopback(host) || named.iter().any(|n| n == registry)
}

/// Whether a host, without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A whole body; nothing when it is longer than `limit` bytes.
pub(crate) async fn read_body(
    registry: &str,
    response: Response,
    stall_timeout: Duration,
    limit: u64,
) -> Result<Option<Bytes>, RegistryError> {
    let announced = content_length(&response);
    if announced.is_some_and(|length| length > limit) {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(announced.unwrap_or(8 << 10)).unwrap_or_default());
    let mut body = Body::of(response, stall_timeout);
    while let Some(chunk) = body.next(registry).await {
        let chunk = chunk?;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.into()))
}

/// Passes the statuses of `success` through and turns everything else into an error, with what the registry said about it.
pub(crate) async fn check_status(
    registry: &str,
    what: &str,
    response: Response,
    success: &[StatusCode],
) -> Result<Response, RegistryError> {
    let status = response.status();
    if success.contains(&status) {
        return Ok(response);
    }
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| parse_retry_after(text, Timestamp::now()));
    let detail = explain(&read_error_body(response).await);
    let (registry, what) = (registry.to_owned(), what.to_owned());
    Err(match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { what, detail },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RegistryError::Unauthorized { registry, what, detail }
        }
        StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests { registry, detail, retry_after },
        _ => RegistryError::Status { registry, status: status.as_u16(), what, detail, retry_after },
    })
}

async fn read_error_body(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        let mut stream = response.bytes_stream();
        while let Some(Ok(chunk)) = stream.next().await {
            let room = MAX_ERROR_BODY - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == MAX_ERROR_BODY {
                break;
            }
        }
    };
    // Of what has come by then, as much counts.
    let _ = timeout(ERROR_BODY_TIMEOUT, read).await;
    body
}

/// The first error of the envelope that the specification asks for, else nothing: an HTML page helps nobody.
fn explain(body: &[u8]) -> String {
    let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body) else { return String::new() };
    let Some(error) = envelope.errors.first() else { return String::new() };
    let message: String = error.message.chars().filter(|c| !c.is_control()).take(200).collect();
    if message.is_empty() { format!(" ({:?})", error.code) } else { format!(" ({message})") }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let then = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Duration::try_from(then.duration_since(now)).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Thu, 01 Jan 2026 00:02:00 GMT", Some(120)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", Some(0)),
            ("99999999999", Some(3600)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(parse_retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn loopback_and_named_registries_speak_plain_http() {
        let named = ["registry.lab:5000".to_owned()];
        for (registry, plain) in [
            ("localhost:5000", true),
            ("localhost", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("registry.lab:5000", true),
            ("registry.lab", false),
            ("docker.io", false),
            ("localhost.corp", false),
        ] {
            assert_eq!(is_plain(registry, &named), plain, "{registry}");
        }
    }

    #[test]
    fn only_a_registrys_envelope_is_quoted() {
        let envelope =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\nunknown","detail":{}}]}"#;
        assert_eq!(explain(envelope), " (manifestunknown)");
        assert_eq!(explain(b"<html>Bad gateway</html>"), "");
        assert_eq!(explain(br#"{"errors":[]}"#), "");
    }
}
