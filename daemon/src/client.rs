//! The client for the API server.

use std::path::{Path, PathBuf};

use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig file that was named cannot be used.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// No kubeconfig file was named, and there is neither one in the usual places nor a service account.
    #[error("finding the API server (--kubeconfig FILE names one): {0}")]
    NotFound(#[from] InferConfigError),
    /// What the configuration says makes no client.
    #[error("setting up the client for the API server: {0}")]
    Client(#[from] kube::Error),
}

/// A client for the API server: as `kubeconfig` says, else `$KUBECONFIG`, `~/.kube/config`, or the pod's service account.
///
/// Installs the process' TLS provider, which has to happen before anything wants TLS.
///
/// # Errors
/// [`ClientError`]. No request is made: that the server answers is not known yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    // It fails only where a provider is installed already, and that will do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = match kubeconfig {
        Some(path) => from_file(path)
            .await
            .map_err(|source| ClientError::Kubeconfig { path: path.to_owned(), source })?,
        None => Config::infer().await?,
    };
    Ok(Client::try_from(config)?)
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}
