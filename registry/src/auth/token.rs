//! Talking to token servers (<https://distribution.github.io/distribution/spec/auth/token/> and
//! <https://distribution.github.io/distribution/spec/auth/oauth/>).
//!
//! `oci-client` does this too, and falls short where it matters: it goes on without a login when the login is refused,
//! knows neither refresh tokens nor `expires_in`, and keeps the first login it is given for ever.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::scope::Scope;
use crate::{
    Credential, RegistryError,
    client::Kind,
    hosts::Endpoint,
    http::{check_status, read_body},
};

/// The largest answer that is read, in bytes. Tokens of some clouds are tens of KiB.
const MAX_ANSWER: u64 = 1 << 20;
/// How long a token holds where its server does not say, by the specification.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// So long before its end a token is renewed: it has to arrive, and clocks drift.
const MARGIN: Duration = Duration::from_secs(5);
/// Redirects that are followed within one server.
const MAX_REDIRECTS: usize = 3;

/// A token server, and how the registry is called there.
pub(super) struct TokenServer<'a> {
    /// The registry's host that names it. Its certificates count for the token server too.
    pub at: &'a Endpoint,
    pub realm: &'a Url,
    pub service: Option<&'a str>,
}

/// What a token server gave.
pub(super) struct Token {
    /// The token for the registry.
    pub access: SecretString,
    /// A long-lived token, where one was asked for and the server gives such.
    pub refresh: Option<SecretString>,
    /// When to ask for a new one.
    pub renew_at: Instant,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<SecretText>,
    access_token: Option<SecretText>,
    refresh_token: Option<SecretText>,
    expires_in: Option<i64>,
    issued_at: Option<String>,
}

/// Becomes a [`SecretString`] as soon as it is read, so that an answer dropped half-way is wiped as well.
#[derive(Deserialize)]
#[serde(from = "String")]
struct SecretText(SecretString);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl TokenServer<'_> {
    /// Asks for a token. With `offline`, also for a long-lived one to keep instead of the password.
    pub async fn fetch(
        &self,
        scope: &Scope,
        credential: Option<&Credential>,
        offline: bool,
    ) -> Result<Token, RegistryError> {
        let asked_at = Instant::now();
        let response = match credential {
            Some(Credential::IdentityToken(token)) => self.post(scope, token).await?,
            Some(Credential::Password { username, password }) => {
                self.get(scope, Some((username, password)), offline).await?
            }
            Some(Credential::RegistryToken(_)) | None => self.get(scope, None, false).await?,
        };
        let response = self.check(response, credential).await?;
        let body = read_body(&self.host(), response, self.at.clients.stall_timeout(), MAX_ANSWER).await?;
        let body = body.ok_or_else(|| self.no_answer("its answer is too large"))?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| self.no_answer("its answer is not the JSON that token servers give"))?;
        let lifetime = lifetime(answer.expires_in, answer.issued_at.as_deref(), Timestamp::now());
        let given = |token: Option<SecretText>| token.map(|t| t.0).filter(|t| !t.expose_secret().is_empty());
        let access = given(answer.access_token)
            .or_else(|| given(answer.token))
            .ok_or_else(|| self.no_answer("its answer holds no token"))?;
        let renew_at = asked_at + lifetime.saturating_sub(MARGIN);
        Ok(Token { access, refresh: given(answer.refresh_token), renew_at })
    }

    async fn get(
        &self,
        scope: &Scope,
        login: Option<(&String, &SecretString)>,
        offline: bool,
    ) -> Result<Response, RegistryError> {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = self.service {
                query.append_pair("service", service);
            }
            for resource in scope.resources() {
                query.append_pair("scope", &resource);
            }
            if let Some((username, _)) = login {
                query.append_pair("account", username);
            }
            if offline {
                query.append_pair("offline_token", "true").append_pair("client_id", "larder");
            }
        }
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(Method::GET, &url)?;
            let request = match login {
                Some((username, password)) => request.basic_auth(username, Some(password.expose_secret())),
                None => request,
            };
            let response = self.send(request).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = self.redirected(&response, login.is_some())?;
        }
        Err(self.no_answer("it redirects without end"))
    }

    /// Where a redirect leads. A login stays with the server that the registry named.
    fn redirected(&self, response: &Response, with_login: bool) -> Result<Url, RegistryError> {
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let url = location
            .and_then(|location| response.url().join(location).ok())
            .ok_or_else(|| self.no_answer("it redirects to nowhere"))?;
        if with_login && url.origin() != self.realm.origin() {
            return Err(self.no_answer("it redirects a login to another server"));
        }
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.realm.scheme() == "http" => Ok(url),
            _ => Err(self.no_answer("it redirects away from https")),
        }
    }

    async fn post(&self, scope: &Scope, token: &SecretString) -> Result<Response, RegistryError> {
        let mut form = Url::parse("form:").map_err(|error| self.no_answer(&error.to_string()))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.unwrap_or_default())
            .append_pair("client_id", "larder")
            .append_pair("scope", &scope.to_string())
            .append_pair("refresh_token", token.expose_secret());
        let body = form.query().unwrap_or_default().to_owned();
        let request = self
            .request(Method::POST, self.realm)?
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body);
        self.send(request).await
    }

    fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, RegistryError> {
        let request = self.at.clients.get(url, Kind::Read)?.request(method, url.clone());
        // The administrator's headers are for the host they are written under.
        Ok(if self.at.owns(url) { request.headers(self.at.headers.clone()) } else { request })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        request.send().await.map_err(|error| RegistryError::unreachable(&self.host(), error))
    }

    /// A refused login is an error, not a reason to go on without. The server's own words are not quoted: they may
    /// repeat what it was sent.
    async fn check(
        &self,
        response: Response,
        credential: Option<&Credential>,
    ) -> Result<Response, RegistryError> {
        let refused = match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => credential.is_some(),
            // What OAuth says to a token that is over or was revoked (RFC 6749, section 5.2).
            StatusCode::BAD_REQUEST => matches!(credential, Some(Credential::IdentityToken(_))),
            _ => false,
        };
        if refused {
            return Err(RegistryError::LoginRefused { registry: self.at.name(), by: self.host() });
        }
        let mut checked = check_status(&self.at.name(), "a token", response, &[StatusCode::OK]).await;
        if let Err(RegistryError::Unauthorized { detail, .. } | RegistryError::Status { detail, .. }) =
            &mut checked
        {
            detail.clear();
        }
        checked
    }

    fn host(&self) -> String {
        let host = self.realm.host_str().unwrap_or_default();
        self.realm.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    fn no_answer(&self, why: &str) -> RegistryError {
        let why = format!("the token server {}: {why}", self.host());
        RegistryError::Protocol { registry: self.at.name(), why }
    }
}

/// How long a token holds from now on. A moment of issue that can't be true (a clock that is wrong, here or there)
/// is passed over.
fn lifetime(expires_in: Option<i64>, issued_at: Option<&str>, now: Timestamp) -> Duration {
    let expires_in = expires_in
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .map_or(DEFAULT_LIFETIME, |seconds| Duration::from_secs(seconds.min(60 * 60 * 24)));
    let age = issued_at
        .and_then(|text| text.parse::<Timestamp>().ok())
        .and_then(|issued| Duration::try_from(now.duration_since(issued)).ok())
        .unwrap_or_default();
    expires_in.checked_sub(age).filter(|left| !left.is_zero()).unwrap_or(expires_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_as_long_as_its_server_says() {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        for (expires_in, issued_at, seconds) in [
            (None, None, 60),
            (Some(300), None, 300),
            (Some(300), Some("2026-01-01T00:09:00Z"), 240),
            (Some(300), Some("2026-01-01T01:09:00.5+01:00"), 240),
            (Some(300), Some("2025-01-01T00:00:00Z"), 300),
            (Some(300), Some("2027-01-01T00:00:00Z"), 300),
            (Some(300), Some("yesterday"), 300),
            (Some(-5), None, 60),
            (Some(0), None, 60),
            (Some(i64::MAX), None, 86400),
        ] {
            let lifetime = lifetime(expires_in, issued_at, now);
            assert_eq!(lifetime.as_secs(), seconds, "{expires_in:?} {issued_at:?}");
        }
    }
}
