//! HTTPS in front of the proxy.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Identity;
use crate::runtime::runtime;
use crate::{Error, Result};

/// What speaks TLS with this certificate.
pub(super) fn acceptor(identity: &Identity) -> Result<TlsAcceptor> {
    // The provider is installed with the runtime.
    runtime()?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())
        .map_err(Error::data("proxy's certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(Error::data("proxy's key"))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(Error::data("proxy's certificate"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
