//! Logging in: what goes into `Authorization`, for which host, and for how long.
//!
//! A login goes to the host it is for and to the token server that this host names. It goes nowhere else: storage
//! that a registry redirects to, and mirrors, never see it.

pub(crate) mod challenge;
mod scope;
mod token;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::{Credential, Credentials, RegistryError, hosts::Endpoint};

pub(crate) use challenge::Challenge;
pub(crate) use scope::Scope;

use token::{Token, TokenServer};

/// Hosts and scopes that are remembered. More are forgotten and asked for again.
const MAX_SLOTS: usize = 4096;

/// What to send with a request, and how to recognise it when the registry refuses it.
#[derive(Clone)]
pub(crate) struct Granted {
    pub header: HeaderValue,
    number: u64,
}

impl Granted {
    /// Whether it is the login itself, rather than a token that the login was changed for.
    pub fn is_password(&self) -> bool {
        self.header.as_bytes().starts_with(b"Basic ")
    }
}

/// What is known of one host and scope.
#[derive(Default)]
struct Slot {
    header: Option<HeaderValue>,
    /// Counts the headers, so that of many requests that are refused at once only the first fetches a new one.
    number: u64,
    renew_at: Option<Instant>,
    challenge: Option<Challenge>,
}

type SharedSlot = Arc<tokio::sync::Mutex<Slot>>;

/// Logs in where registries ask for it, and remembers.
pub(crate) struct Authorizer {
    credentials: Arc<dyn Credentials>,
    slots: Mutex<HashMap<(String, Scope), SharedSlot>>,
}

impl Authorizer {
    pub fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials, slots: Mutex::default() }
    }

    /// Forgets all that is remembered.
    pub fn forget(&self) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn slot(&self, at: &Endpoint, scope: &Scope) -> SharedSlot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_SLOTS {
            slots.clear();
        }
        slots.entry((at.root().to_string(), scope.clone())).or_default().clone()
    }

    /// What to send at once. A token that is about to end is renewed first: a request with a body is better sent once.
    pub async fn current(
        &self,
        at: &Endpoint,
        repository: &str,
        scope: &Scope,
    ) -> Result<Option<Granted>, RegistryError> {
        let slot = self.slot(at, scope);
        let mut slot = slot.lock().await;
        if slot.renew_at.is_some_and(|time| time <= Instant::now())
            && let Some(challenge) = slot.challenge.clone()
        {
            self.answer(&mut slot, at, repository, scope, challenge).await?;
        }
        Ok(slot.granted())
    }

    /// What to send after a refusal of `refused`. `None`: there is nothing else that could be sent.
    pub async fn renew(
        &self,
        at: &Endpoint,
        repository: &str,
        scope: &Scope,
        refused: Option<&Granted>,
        headers: &HeaderMap,
    ) -> Result<Option<Granted>, RegistryError> {
        let challenge = challenge::choose(headers, at.is_plain())
            .map_err(|why| RegistryError::Protocol { registry: at.name(), why })?;
        let slot = self.slot(at, scope);
        let mut slot = slot.lock().await;
        if slot.header.is_some() && refused.is_none_or(|refused| refused.number != slot.number) {
            return Ok(slot.granted());
        }
        self.answer(&mut slot, at, repository, scope, challenge).await?;
        match (refused, slot.granted()) {
            // The same password again would be refused again. A token server may give the same token twice.
            (Some(refused), Some(granted)) if slot.renew_at.is_none() && refused.header == granted.header => {
                Err(RegistryError::LoginRefused { registry: at.name(), by: at.host() })
            }
            (_, granted) => Ok(granted),
        }
    }

    async fn answer(
        &self,
        slot: &mut Slot,
        at: &Endpoint,
        repository: &str,
        scope: &Scope,
        challenge: Challenge,
    ) -> Result<(), RegistryError> {
        let credential = self
            .credentials
            .find(&at.name(), repository)
            .await
            .map_err(|source| RegistryError::Credentials { registry: at.name(), source })?;
        let (header, renew_at) = match &challenge {
            Challenge::Basic => (basic(at, credential.as_ref())?, None),
            Challenge::Bearer { realm, service, scope: asked } => {
                let server = TokenServer { at, realm, service: service.as_deref() };
                let token = match &credential {
                    Some(Credential::RegistryToken(token)) => (token.clone(), None),
                    other => {
                        let scope = scope.clone().with(asked.clone());
                        let Token { access, renew_at, .. } =
                            server.fetch(&scope, other.as_ref(), false).await?;
                        (access, Some(renew_at))
                    }
                };
                (Some(bearer(at, &token.0)?), token.1)
            }
        };
        slot.number += 1;
        slot.header = header;
        slot.renew_at = renew_at;
        slot.challenge = Some(challenge);
        Ok(())
    }
}

impl Slot {
    fn granted(&self) -> Option<Granted> {
        self.header.clone().map(|header| Granted { header, number: self.number })
    }
}

/// The header for a login by password; nothing where there is no login.
pub(crate) fn basic(
    at: &Endpoint,
    credential: Option<&Credential>,
) -> Result<Option<HeaderValue>, RegistryError> {
    match credential {
        None => Ok(None),
        Some(Credential::Password { username, password }) => {
            let text = SecretString::from(format!("{username}:{}", password.expose_secret()));
            let text = SecretString::from(BASE64_STANDARD.encode(text.expose_secret()));
            secret_header(at, "Basic", &text).map(Some)
        }
        Some(Credential::IdentityToken(_) | Credential::RegistryToken(_)) => Err(RegistryError::Protocol {
            registry: at.name(),
            why: "it asks for a password, and the login at hand is a token; log in again".to_owned(),
        }),
    }
}

/// The header for a token.
pub(crate) fn bearer(at: &Endpoint, token: &SecretString) -> Result<HeaderValue, RegistryError> {
    secret_header(at, "Bearer", token)
}

fn secret_header(at: &Endpoint, scheme: &str, text: &SecretString) -> Result<HeaderValue, RegistryError> {
    let header = SecretString::from(format!("{scheme} {}", text.expose_secret()));
    let mut header = HeaderValue::from_str(header.expose_secret()).map_err(|_| RegistryError::Protocol {
        registry: at.name(),
        why: "the token for it has characters that no token has".to_owned(),
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// What a login attempt led to at a token server or registry, for [`crate::Registry::login`].
pub(crate) struct LoggedIn {
    /// What proves the login to the registry.
    pub header: HeaderValue,
    /// What to keep in place of the password, where the token server gives such.
    pub refresh: Option<SecretString>,
}

/// Answers a challenge with a given login, asking for a long-lived token where the registry has a token server.
pub(crate) async fn log_in(
    at: &Endpoint,
    credential: &Credential,
    headers: &HeaderMap,
) -> Result<LoggedIn, RegistryError> {
    let challenge = challenge::choose(headers, at.is_plain())
        .map_err(|why| RegistryError::Protocol { registry: at.name(), why })?;
    match (&challenge, credential) {
        (Challenge::Basic, _) => {
            let refused = || RegistryError::LoginRefused { registry: at.name(), by: at.host() };
            Ok(LoggedIn { header: basic(at, Some(credential))?.ok_or_else(refused)?, refresh: None })
        }
        (Challenge::Bearer { .. }, Credential::RegistryToken(token)) => {
            Ok(LoggedIn { header: bearer(at, token)?, refresh: None })
        }
        (Challenge::Bearer { realm, service, scope }, _) => {
            let server = TokenServer { at, realm, service: service.as_deref() };
            let Token { access, refresh, .. } = server.fetch(scope, Some(credential), true).await?;
            Ok(LoggedIn { header: bearer(at, &access)?, refresh })
        }
    }
}
