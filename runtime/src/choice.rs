//! Which runtime to speak to.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use larder_registry::Credentials;

/// Which interface to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The best that is there.
    #[default]
    Auto,
    /// containerd's own API.
    Containerd,
    /// CRI alone.
    Cri,
    /// No runtime.
    None,
}

/// How to find the runtime.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Which interface to use.
    pub choice: Choice,
    /// The socket's path. Without it the usual ones are tried: `/run/containerd/containerd.sock`,
    /// `/run/k3s/containerd/containerd.sock`, `/run/crio/crio.sock`, …
    pub endpoint: Option<PathBuf>,
    /// Logins for a runtime that pulls by itself.
    pub credentials: Arc<dyn Credentials>,
}

/// A word that names no interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such runtime interface: {0}; use auto, containerd, cri or none")]
pub struct UnknownChoice(String);

impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "containerd" => Ok(Self::Containerd),
            "cri" => Ok(Self::Cri),
            "none" => Ok(Self::None),
            other => Err(UnknownChoice(other.to_owned())),
        }
    }
}
