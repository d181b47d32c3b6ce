//! Logins as CRI takes them.

use larder_registry::{Credential, ExposeSecret};

use crate::api::cri::AuthConfig;

/// A login for one pull, as kubelet sends it. Without a server's address: a runtime would compare that with the host that
/// it asks, which for Docker Hub and behind mirrors has another name.
pub(super) fn config(credential: &Credential) -> AuthConfig {
    let secret = |secret: &larder_registry::SecretString| secret.expose_secret().to_owned();
    match credential {
        Credential::Password { username, password } => {
            AuthConfig { username: username.clone(), password: secret(password), ..AuthConfig::default() }
        }
        Credential::IdentityToken(token) => {
            AuthConfig { identity_token: secret(token), ..AuthConfig::default() }
        }
        Credential::RegistryToken(token) => {
            AuthConfig { registry_token: secret(token), ..AuthConfig::default() }
        }
    }
}
