//! What a registry can answer instead of what was asked for.

use std::time::Duration;

use larder_oci::{Digest, ManifestError, platform::NoMatch};

use crate::{CredentialsError, HostsError};

/// Why a registry did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// 404, or an error envelope that says the same.
    #[error("{what} is not in the registry{detail}; check the name, or push the image")]
    NotFound {
        /// What was asked for.
        what: String,
        /// What the registry said, with a leading separator.
        detail: String,
    },
    /// 401 or 403, also from the token server.
    #[error("{registry} denies access to {what}{detail}; it may not exist, or needs a login")]
    Unauthorized {
        /// The registry's host.
        registry: String,
        /// What was asked for.
        what: String,
        /// What the registry said, with a leading separator.
        detail: String,
    },
    /// A login was at hand, and the registry or its token server refused it.
    #[error("{by} refuses the login for {registry}: wrong user name, password or token; log in again")]
    LoginRefused {
        /// The registry's host.
        registry: String,
        /// Who refused: the registry itself, or its token server.
        by: String,
    },
    /// 429.
    #[error("{registry} limits requests and asks to wait{detail}")]
    TooManyRequests {
        /// The registry's host.
        registry: String,
        /// What the registry said, with a leading separator.
        detail: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Any other status than success.
    #[error("{registry} answered {status} to the request for {what}{detail}")]
    Status {
        /// The registry's host.
        registry: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// What the registry said, with a leading separator.
        detail: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// No answer, or one that broke off.
    #[error("{registry} cannot be reached: {cause}")]
    Unreachable {
        /// The registry's host.
        registry: String,
        /// The innermost cause, such as `connection refused`.
        cause: String,
    },
    /// An answer that no registry would give.
    #[error("{registry} does not answer like a registry: {why}")]
    Protocol {
        /// The registry's host.
        registry: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The bytes are not those of the digest.
    #[error("{registry} sent other bytes for {what} than its digest says: expected {expected}, got {actual}")]
    DigestMismatch {
        /// The registry's host.
        registry: String,
        /// What was asked for.
        what: String,
        /// The digest that the bytes were to have.
        expected: Digest,
        /// What they have, or what the registry claims.
        actual: String,
    },
    /// A blob or manifest is longer or shorter than its descriptor says.
    #[error("{what} has {actual} bytes where its descriptor says {expected}; push the image again")]
    SizeMismatch {
        /// What was asked for.
        what: String,
        /// The size in the descriptor, in bytes.
        expected: u64,
        /// The size that the registry gives.
        actual: u64,
    },
    /// A blob to be pushed cannot be read.
    #[error("cannot read {what} to push it: {source}")]
    Source {
        /// Which blob.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The login for a registry cannot be had.
    #[error("no login for {registry}: {source}")]
    Credentials {
        /// The registry's host.
        registry: String,
        /// Why.
        source: CredentialsError,
    },
    /// The configuration of a registry's hosts (`hosts.toml`) cannot be used.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// The manifest cannot be used.
    #[error("{what}: {source}")]
    Manifest {
        /// Which manifest.
        what: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The image is not made for the platform.
    #[error("{what}: {source}")]
    NoMatch {
        /// Which image.
        what: String,
        /// What there is instead.
        source: NoMatch,
    },
}

impl RegistryError {
    /// How long the registry asks to wait before the next request.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the same request may well succeed a moment later: a broken connection, an overloaded server.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, retry_after, .. } => *status >= 500 && retry_after.is_none(),
            _ => false,
        }
    }

    /// The error that a failed request is: its innermost cause, without the URL, which may carry a signature.
    pub(crate) fn unreachable(registry: &str, error: reqwest::Error) -> Self {
        let timed_out = error.is_timeout();
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let cause = if timed_out { format!("no answer in time ({cause})") } else { cause.to_string() };
        Self::Unreachable { registry: registry.to_owned(), cause }
    }
}
