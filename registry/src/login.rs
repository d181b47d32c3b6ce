//! Trying a login before it is kept, as `docker login` does: against `/v2/`
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#determining-support>).

use reqwest::{Method, Response, StatusCode, header::HeaderValue};

use crate::{
    Credential, Registry, RegistryError, auth::log_in, hosts::Endpoint, http::check_status, send::Outgoing,
};

/// A login that the registry takes.
#[derive(Debug, Clone)]
pub struct LoginOutcome {
    /// What to keep: the login itself, or the long-lived token that the registry gave for it.
    pub credential: Credential,
    /// Whether the registry looked at it. One that lets everybody in does not.
    pub checked: bool,
}

impl Registry {
    /// Tries a login against a registry, such as `docker.io` or `registry.corp:5000`.
    ///
    /// # Errors
    /// [`RegistryError::LoginRefused`] when the registry or its token server refuses it; other [`RegistryError`]s when
    /// that can't be found out.
    pub async fn login(
        &self,
        registry: &str,
        credential: &Credential,
    ) -> Result<LoginOutcome, RegistryError> {
        let at = self.hosts.own(registry)?.ok_or_else(|| RegistryError::Protocol {
            registry: registry.to_owned(),
            why: "no host is configured for it".to_owned(),
        })?;
        let response = self.ping(&at, None).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            check(&at, response).await?;
            return Ok(LoginOutcome { credential: credential.clone(), checked: false });
        }
        let logged_in = log_in(&at, credential, response.headers()).await?;
        let response = self.ping(&at, Some(logged_in.header)).await?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::LoginRefused { registry: at.name(), by: at.host() });
        }
        check(&at, response).await?;
        let credential = logged_in.refresh.map_or_else(|| credential.clone(), Credential::IdentityToken);
        Ok(LoginOutcome { credential, checked: true })
    }

    async fn ping(
        &self,
        at: &Endpoint,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let request = Outgoing::read(Method::GET, at.root());
        self.follow(at, "its API", &request, authorization.as_ref()).await
    }
}

async fn check(at: &Endpoint, response: Response) -> Result<(), RegistryError> {
    if response.status() == StatusCode::NOT_FOUND {
        let why = format!("there is no registry at {}", at.root());
        return Err(RegistryError::Protocol { registry: at.name(), why });
    }
    check_status(&at.name(), "its API", response, &[StatusCode::OK]).await.map(drop)
}
