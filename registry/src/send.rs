//! Sending a request to one host: with the login it needs, along redirects, and never for ever.

use std::{
    future::Future,
    io,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};
use tokio::time::sleep;

use crate::{
    BlobSource, Registry, RegistryError, auth::Scope, client::Kind, hosts::Endpoint, source::exactly,
};

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;
/// How long an upload may stand still.
const STALL: Duration = Duration::from_secs(60);
/// How long a registry may take to answer a request that is sent: committing a large blob means reading it again.
pub(crate) const COMMIT_TIMEOUT: Duration = Duration::from_secs(300);

/// A request that can be sent more than once.
pub(crate) struct Outgoing<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Body<'a>,
}

/// What goes along with a request.
pub(crate) enum Body<'a> {
    /// Nothing; for a request that only reads.
    None,
    /// Bytes at hand; also an empty body for a request that writes.
    Bytes(Bytes),
    /// A part of a blob.
    Part(Part<'a>),
}

/// A part of a blob, and who wants to know how much of it is sent.
pub(crate) struct Part<'a> {
    pub source: &'a dyn BlobSource,
    pub range: Range<u64>,
    pub progress: Option<Progress>,
}

/// Told of the bytes of a blob that are on their way, each time some are: an offset, not a difference. It may step
/// back when an upload has to.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

impl Outgoing<'_> {
    /// A request that only reads, and wants what it reads as it is: whoever says nothing may be sent it compressed
    /// (RFC 9110, section 12.5.3), and a digest is that of the bytes without.
    pub fn read(method: Method, url: Url) -> Self {
        let identity = (header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self { method, url, headers: HeaderMap::from_iter([identity]), body: Body::None }
    }

    /// A request that writes, with these bytes.
    pub fn write(method: Method, url: Url, bytes: Bytes) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Body::Bytes(bytes) }
    }

    /// With a header.
    pub fn header(mut self, name: header::HeaderName, value: &str) -> Result<Self, RegistryError> {
        let value = HeaderValue::from_str(value).map_err(|_| RegistryError::Protocol {
            registry: self.url.host_str().unwrap_or_default().to_owned(),
            why: format!("the header {name} cannot be {value:?}"),
        })?;
        self.headers.insert(name, value);
        Ok(self)
    }
}

impl Registry {
    /// Sends a request to a host and gives its answer, whatever its status. On a challenge logs in and sends it once
    /// more. `what` is for messages.
    pub(crate) async fn exchange(
        &self,
        at: &Endpoint,
        repository: &str,
        scope: &Scope,
        what: &str,
        outgoing: &Outgoing<'_>,
    ) -> Result<Response, RegistryError> {
        // An upload may go on at another host, to which our login is nothing.
        if !at.owns(&outgoing.url) {
            return self.follow(at, what, outgoing, None).await;
        }
        let granted = self.auth.current(at, repository, scope).await?;
        let response =
            self.follow(at, what, outgoing, granted.as_ref().map(|granted| &granted.header)).await?;
        let challenged = response.status() == StatusCode::UNAUTHORIZED
            && at.owns(response.url())
            && response.headers().contains_key(header::WWW_AUTHENTICATE);
        if !challenged {
            return Ok(response);
        }
        match self.auth.renew(at, repository, scope, granted.as_ref(), response.headers()).await? {
            Some(granted) => {
                let response = self.follow(at, what, outgoing, Some(&granted.header)).await?;
                if response.status() == StatusCode::UNAUTHORIZED
                    && granted.is_password()
                    && at.owns(response.url())
                {
                    return Err(RegistryError::LoginRefused { registry: at.name(), by: at.host() });
                }
                Ok(response)
            }
            None => Ok(response),
        }
    }

    /// Sends a request with an `Authorization`, and follows redirects of those that only read. Storage on other hosts
    /// gets the URL it was named, and nothing of ours: no login, no headers of the administrator's. The authorities that
    /// are trusted for the host are trusted there too, as containerd does: a private registry has private storage.
    pub(crate) async fn follow(
        &self,
        at: &Endpoint,
        what: &str,
        outgoing: &Outgoing<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut url = outgoing.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let own = at.owns(&url);
            let mut headers = outgoing.headers.clone();
            if own {
                headers.extend(at.headers.clone());
                headers.extend(authorization.map(|value| (header::AUTHORIZATION, value.clone())));
            }
            let registry = if own { at.name() } else { storage_name(at, &url) };
            let response = send_once(at, &registry, what, outgoing, url, headers).await?;
            let redirected = response.status().is_redirection() && matches!(outgoing.body, Body::None);
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| redirected) else { return Ok(response) };
            url = redirect(response.url(), location, outgoing)
                .map_err(|why| RegistryError::Protocol { registry: at.name(), why })?;
        }
        Err(RegistryError::Protocol { registry: at.name(), why: format!("it redirects {what} without end") })
    }
}

fn storage_name(at: &Endpoint, url: &Url) -> String {
    format!("{} (where {} sends us)", url.host_str().unwrap_or_default(), at.name())
}

/// Where a redirect leads. Out of TLS only for blobs, whose digest is checked: a tag's manifest could be anybody's.
fn redirect(here: &Url, location: &str, outgoing: &Outgoing<'_>) -> Result<Url, String> {
    let url = here.join(location).map_err(|_| "it redirects to what is no URL".to_owned())?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if here.scheme() == "http" || outgoing.url.path().contains("/blobs/") => Ok(url),
        "http" => Err("it redirects away from https".to_owned()),
        _ => Err("it redirects to what is no web address".to_owned()),
    }
}

async fn send_once(
    at: &Endpoint,
    registry: &str,
    what: &str,
    outgoing: &Outgoing<'_>,
    url: Url,
    mut headers: HeaderMap,
) -> Result<Response, RegistryError> {
    let kind = if matches!(outgoing.body, Body::None) { Kind::Read } else { Kind::Write };
    let client = at.clients.get(&url, kind)?;
    let unreachable = |error| RegistryError::unreachable(registry, error);
    let part = match &outgoing.body {
        Body::None => {
            let request = client.request(outgoing.method.clone(), url).headers(headers);
            return request.send().await.map_err(unreachable);
        }
        Body::Bytes(bytes) => {
            headers.insert(header::CONTENT_LENGTH, bytes.len().into());
            let request = client.request(outgoing.method.clone(), url).headers(headers).body(bytes.clone());
            return request.timeout(COMMIT_TIMEOUT).send().await.map_err(unreachable);
        }
        Body::Part(part) => part,
    };
    let failed = |source| RegistryError::Source { what: what.to_owned(), source };
    let length = part.range.end - part.range.start;
    let bytes = part.source.open(part.range.start).await.map_err(failed)?;
    let (watch, body) = Watch::over(exactly(bytes, length), part);
    // Known beforehand: without it the body would be sent in HTTP's own chunks, which not all registries take.
    headers.insert(header::CONTENT_LENGTH, length.into());
    let request = client.request(outgoing.method.clone(), url).headers(headers).body(body);
    let result = watch.until_stalled(request.send()).await;
    if let Some(source) = watch.take_error() {
        return Err(failed(source));
    }
    match result {
        Some(result) => result.map_err(unreachable),
        None => Err(RegistryError::Unreachable {
            registry: registry.to_owned(),
            cause: format!("the upload stood still for {} seconds", STALL.as_secs()),
        }),
    }
}

/// Watches a body on its way out.
#[derive(Clone, Default)]
struct Watch {
    sent: Arc<AtomicU64>,
    error: Arc<Mutex<Option<io::Error>>>,
}

impl Watch {
    fn over(bytes: crate::ByteStream, part: &Part<'_>) -> (Self, reqwest::Body) {
        let watch = Self::default();
        let (inner, progress, start) = (watch.clone(), part.progress.clone(), part.range.start);
        let body = bytes.map(move |piece| match piece {
            Ok(piece) => {
                let length = piece.len() as u64;
                let sent = inner.sent.fetch_add(length, Ordering::Relaxed) + length;
                if let Some(progress) = &progress {
                    progress(start + sent);
                }
                Ok(piece)
            }
            // The HTTP client would say that the request failed. Whose fault it was is known here alone.
            Err(error) => {
                let kind = error.kind();
                *inner.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(io::Error::from(kind))
            }
        });
        (watch, reqwest::Body::wrap_stream(body))
    }

    /// Waits for `done` as long as bytes go out. Nothing when they don't.
    async fn until_stalled<T>(&self, done: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(done);
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            tokio::select! {
                result = &mut done => return Some(result),
                () = sleep(STALL) => if self.sent.load(Ordering::Relaxed) == before {
                    return None;
                }
            }
        }
    }

    fn take_error(&self) -> Option<io::Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
