//! Reading: the pull half of the distribution API
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull>).

use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use larder_oci::{Digest, ImageName, ManifestError, manifest};
use reqwest::{Method, Response, StatusCode, header};
use serde::Deserialize;

use crate::{
    Registry, RegistryError,
    auth::Scope,
    headers::{MAX_PAGES, content_length, is_part, next_page, text},
    hosts::{Endpoint, Hosts, Purpose},
    http::{check_status, read_body},
    send::Outgoing,
    stall::Body,
};

/// How many tags to ask for at a time. Registries may give fewer.
const TAGS_A_PAGE: usize = 1000;
/// The most tags that are read of one repository.
const MAX_TAGS: usize = 200_000;
/// The largest page of tags that is read, in bytes.
const MAX_TAG_PAGE: u64 = 8 << 20;

/// A manifest or index as the registry sent it.
#[derive(Debug, Clone)]
pub struct RawManifest {
    /// The bytes. Their digest is `digest`.
    pub bytes: Bytes,
    /// What the registry calls them.
    pub content_type: Option<String>,
    /// The digest of the bytes.
    pub digest: Digest,
}

/// What is known of a manifest without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest, as the registry claims it.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What the registry calls it.
    pub content_type: Option<String>,
}

/// A blob, or a part of one, that is arriving.
pub struct BlobStream {
    /// Where in the blob the stream starts, in bytes: the offset asked for, or 0 where the registry does not serve
    /// ranges.
    pub start: u64,
    /// Who sends it: the registry's name, or a mirror's host. See [`Registry::set_aside`].
    pub host: String,
    bytes: BoxStream<'static, Result<Bytes, RegistryError>>,
}

impl Stream for BlobStream {
    type Item = Result<Bytes, RegistryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.bytes.poll_next_unpin(context)
    }
}

/// The answer to a request for a part of a blob.
pub enum BlobRange {
    /// The part, and nothing else.
    Part(BlobStream),
    /// The registry has the blob and does not serve parts of it, or serves other parts than it was asked for.
    NotServed,
}

#[derive(Deserialize)]
struct TagPage {
    tags: Option<Vec<String>>,
}

impl Registry {
    /// Fetches the manifest or index that a name stands for, or the one with `digest` in the name's repository.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::DigestMismatch`] also when the registry's own digest header is not that
    /// of the bytes.
    pub async fn manifest(
        &self,
        name: &ImageName,
        digest: Option<&Digest>,
    ) -> Result<RawManifest, RegistryError> {
        let expected = digest.or(name.digest());
        let endpoints = self.hosts.endpoints(name.registry(), purpose(expected))?;
        self.first_of(&endpoints, |at| self.manifest_at(at, name, digest)).await
    }

    async fn manifest_at(
        &self,
        at: &Endpoint,
        name: &ImageName,
        digest: Option<&Digest>,
    ) -> Result<RawManifest, RegistryError> {
        let expected = digest.or(name.digest());
        let what = manifest_name(name, digest);
        let response = self.ask_for_manifest(at, Method::GET, name, expected, &what).await?;
        let response = check_status(&at.name(), &what, response, &[StatusCode::OK]).await?;
        let claimed = text(&response, "docker-content-digest");
        let content_type = text(&response, header::CONTENT_TYPE.as_str());
        let bytes =
            read_body(&at.name(), response, at.clients.stall_timeout(), manifest::MAX_MANIFEST_SIZE).await?;
        let bytes = bytes
            .ok_or_else(|| RegistryError::Manifest { what: what.clone(), source: ManifestError::TooLarge })?;
        let mismatch = |expected: &Digest, actual: String| RegistryError::DigestMismatch {
            registry: at.name(),
            what: what.clone(),
            expected: expected.clone(),
            actual,
        };
        let actual = match expected {
            Some(expected) if expected.matches(&bytes) => expected.clone(),
            Some(expected) => return Err(mismatch(expected, Digest::sha256(&bytes).to_string())),
            None => Digest::sha256(&bytes),
        };
        // A header of an algorithm we don't know says nothing; one we know must be true.
        if let Some(Ok(claimed)) = claimed.map(|text| text.parse::<Digest>())
            && !claimed.matches(&bytes)
        {
            return Err(mismatch(&claimed, actual.to_string()));
        }
        Ok(RawManifest { bytes, content_type, digest: actual })
    }

    /// Asks what a name stands for without fetching it, by `HEAD`. Where the registry does not answer that fully, the
    /// manifest is fetched after all.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn head_manifest(&self, name: &ImageName) -> Result<ManifestHead, RegistryError> {
        let endpoints = self.hosts.endpoints(name.registry(), purpose(name.digest()))?;
        self.first_of(&endpoints, |at| self.head_manifest_at(at, name)).await
    }

    async fn head_manifest_at(&self, at: &Endpoint, name: &ImageName) -> Result<ManifestHead, RegistryError> {
        let what = name.to_string();
        let response = self.ask_for_manifest(at, Method::HEAD, name, name.digest(), &what).await?;
        let status = response.status();
        if status == StatusCode::OK {
            let claimed = text(&response, "docker-content-digest").and_then(|text| text.parse().ok());
            if let (Some(digest), Some(size)) =
                (name.digest().cloned().or(claimed), content_length(&response))
            {
                let content_type = text(&response, header::CONTENT_TYPE.as_str());
                return Ok(ManifestHead { digest, size, content_type });
            }
        } else if !matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            check_status(&at.name(), &what, response, &[]).await?;
        }
        let RawManifest { bytes, content_type, digest } = self.manifest_at(at, name, None).await?;
        Ok(ManifestHead { digest, size: bytes.len() as u64, content_type })
    }

    async fn ask_for_manifest(
        &self,
        at: &Endpoint,
        method: Method,
        name: &ImageName,
        digest: Option<&Digest>,
        what: &str,
    ) -> Result<Response, RegistryError> {
        let reference = digest.map_or_else(|| name.manifest_reference(), Digest::as_str);
        let request = Outgoing::read(method, at.url(name, &format!("manifests/{reference}")))
            .header(header::ACCEPT, &manifest::ACCEPTED.join(", "))?;
        self.exchange(at, name.repository(), &Scope::pull(name.repository()), what, &request).await
    }

    /// Starts to fetch a blob of `size` bytes from `offset` on. The bytes are not verified here: the store hashes
    /// them as they arrive.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::SizeMismatch`] when the registry announces or sends another size.
    pub async fn blob(
        &self,
        name: &ImageName,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<BlobStream, RegistryError> {
        let endpoints = self.hosts.endpoints(name.registry(), Purpose::Pull)?;
        self.first_of(&endpoints, |at| async move {
            let (what, response, start) = self.ask_for_rest(at, name, digest, offset..size).await?;
            self.stream(at, what, response, start..size)
        })
        .await
    }

    /// Asks for the rest of a blob, and for all of it where the registry has an idea of its own of what the rest is:
    /// whoever asks the same again the next time would never be done. Says where the answer begins.
    async fn ask_for_rest(
        &self,
        at: &Endpoint,
        name: &ImageName,
        digest: &Digest,
        rest: Range<u64>,
    ) -> Result<(String, Response, u64), RegistryError> {
        if rest.start > 0 {
            let header = format!("bytes={}-", rest.start);
            let (what, response) = self.ask_for_blob(at, name, digest, Some(&header)).await?;
            let start = match response.status() {
                StatusCode::PARTIAL_CONTENT if is_part(&content_range(&response), &rest, rest.end) => {
                    Some(rest.start)
                }
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => None,
                _ => Some(0),
            };
            if let Some(start) = start {
                return Ok((what.clone(), check_status(&at.name(), &what, response, CONTENT).await?, start));
            }
            tracing::debug!(host = at.host(), given = content_range(&response), "no rest; asking for all");
        }
        let (what, response) = self.ask_for_blob(at, name, digest, None).await?;
        let response = check_status(&at.name(), &what, response, &[StatusCode::OK]).await?;
        Ok((what, response, 0))
    }

    /// Starts to fetch a part of a blob of `size` bytes, for several connections that fetch one blob together.
    ///
    /// # Errors
    /// [`RegistryError`]. That the registry does not serve ranges, or not properly, is [`BlobRange::NotServed`] and no
    /// error: fetch the blob whole then.
    pub async fn blob_range(
        &self,
        name: &ImageName,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<BlobRange, RegistryError> {
        if range.is_empty() || range.end > size {
            return Ok(BlobRange::NotServed);
        }
        let endpoints = self.hosts.endpoints(name.registry(), Purpose::Pull)?;
        let range = &range;
        self.first_of(&endpoints, |at| async move {
            let header = format!("bytes={}-{}", range.start, range.end - 1);
            let (what, response) = self.ask_for_blob(at, name, digest, Some(&header)).await?;
            let accepted = [StatusCode::OK, StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE];
            let response = check_status(&at.name(), &what, response, &accepted).await?;
            let length_fits =
                content_length(&response).is_none_or(|length| length == range.end - range.start);
            if response.status() != StatusCode::PARTIAL_CONTENT
                || !length_fits
                || !is_part(&content_range(&response), range, size)
            {
                return Ok(BlobRange::NotServed);
            }
            self.stream(at, what, response, range.clone()).map(BlobRange::Part)
        })
        .await
    }

    /// Whether the registry has a blob in the name's repository, by `HEAD`.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn blob_exists(&self, name: &ImageName, digest: &Digest) -> Result<bool, RegistryError> {
        let endpoints = self.hosts.endpoints(name.registry(), Purpose::Pull)?;
        let scope = &Scope::pull(name.repository());
        let found = self.first_of(&endpoints, |at| async move {
            // A mirror that has it not says nothing of those behind it.
            if self.has_blob(at, name, scope, digest).await? {
                Ok(())
            } else {
                let what = format!("blob {digest} of {name}");
                Err(RegistryError::NotFound { what, detail: String::new() })
            }
        });
        match found.await {
            Ok(()) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether one host has a blob.
    pub(crate) async fn has_blob(
        &self,
        at: &Endpoint,
        name: &ImageName,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let what = format!("blob {digest} of {name}");
        let request = Outgoing::read(Method::HEAD, at.url(name, &format!("blobs/{digest}")));
        let response = self.exchange(at, name.repository(), scope, &what, &request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        check_status(&at.name(), &what, response, CONTENT).await.map(|_| true)
    }

    /// All tags of a repository, page by page, as the registry orders them.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::Protocol`] for more than 200,000 tags and for pages without end.
    pub async fn tags(&self, name: &ImageName) -> Result<Vec<String>, RegistryError> {
        let endpoints = self.hosts.endpoints(name.registry(), Purpose::Resolve)?;
        self.first_of(&endpoints, |at| self.tags_at(at, name)).await
    }

    async fn tags_at(&self, at: &Endpoint, name: &ImageName) -> Result<Vec<String>, RegistryError> {
        let repository = name.repository();
        let what = format!("the tags of {}/{repository}", name.registry());
        let protocol = |why: String| RegistryError::Protocol { registry: at.name(), why };
        let mut url = at.url(name, "tags/list");
        url.query_pairs_mut().append_pair("n", &TAGS_A_PAGE.to_string());
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let request = Outgoing::read(Method::GET, url.clone());
            let response = self.exchange(at, repository, &Scope::pull(repository), &what, &request).await?;
            let response = check_status(&at.name(), &what, response, &[StatusCode::OK]).await?;
            let next =
                text(&response, header::LINK.as_str()).and_then(|link| next_page(&link, response.url()));
            let page = read_body(&at.name(), response, at.clients.stall_timeout(), MAX_TAG_PAGE).await?;
            let page = page.ok_or_else(|| protocol(format!("a page of {what} is larger than 8 MiB")))?;
            let page: TagPage = serde_json::from_slice(&page)
                .map_err(|_| protocol(format!("its answer to the request for {what} is no list of tags")))?;
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > MAX_TAGS {
                return Err(protocol(format!("{what} are more than {MAX_TAGS}")));
            }
            match next {
                Some(next) if at.owns(&next) && next != url => url = next,
                _ => return Ok(tags),
            }
        }
        Err(protocol(format!("{what} have more than {MAX_PAGES} pages")))
    }

    async fn ask_for_blob(
        &self,
        at: &Endpoint,
        name: &ImageName,
        digest: &Digest,
        range: Option<&str>,
    ) -> Result<(String, Response), RegistryError> {
        let what = format!("blob {digest} of {name}");
        let mut request = Outgoing::read(Method::GET, at.url(name, &format!("blobs/{digest}")));
        if let Some(range) = range {
            request = request.header(header::RANGE, range)?;
        }
        let scope = Scope::pull(name.repository());
        let response = self.exchange(at, name.repository(), &scope, &what, &request).await?;
        Ok((what, response))
    }

    /// The body as a stream that gives these bytes of the blob or an error.
    fn stream(
        &self,
        at: &Endpoint,
        what: String,
        response: Response,
        part: Range<u64>,
    ) -> Result<BlobStream, RegistryError> {
        let length = part.end.saturating_sub(part.start);
        if let Some(actual) = content_length(&response)
            && actual != length
        {
            // We have said that we want it as it is. What can't be helped can be named.
            if let Some(coding) = text(&response, header::CONTENT_ENCODING.as_str()) {
                let coding: String = coding.chars().take(40).collect();
                let why = format!("{what} comes in {coding:?} coding, which was not asked for: a proxy?");
                return Err(RegistryError::Protocol { registry: at.name(), why });
            }
            return Err(RegistryError::SizeMismatch {
                what,
                expected: part.end,
                actual: part.start + actual,
            });
        }
        let origin =
            Origin { hosts: self.hosts.clone(), mirror: at.is_mirror().then(|| at.host()), name: at.name() };
        let body = Body::of(response, at.clients.stall_timeout());
        let arriving = Arriving { body, at: part.start, end: part.end, what, origin };
        let bytes = stream::unfold(Some(arriving), |arriving| async { arriving?.next().await }).boxed();
        Ok(BlobStream { start: part.start, host: at.name(), bytes })
    }

    /// Tries hosts in order until one succeeds. The error is the last one's: that is the registry itself.
    async fn first_of<'a, T, F>(
        &self,
        endpoints: &'a [Arc<Endpoint>],
        attempt: impl Fn(&'a Endpoint) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut result = None;
        for (number, at) in endpoints.iter().enumerate() {
            match attempt(at).await {
                Ok(value) => return Ok(value),
                Err(error) => {
                    if number + 1 < endpoints.len() {
                        tracing::debug!(host = at.host(), %error, "trying the next host");
                        if error.is_passing() || error.retry_after().is_some() {
                            self.hosts.set_aside(&at.host());
                        }
                    }
                    result = Some(Err(error));
                }
            }
        }
        result.unwrap_or_else(|| {
            Err(RegistryError::Protocol {
                registry: "the host configuration".to_owned(),
                why: "no host".to_owned(),
            })
        })
    }
}

/// What a blob's bytes come with.
const CONTENT: &[StatusCode] = &[StatusCode::OK, StatusCode::PARTIAL_CONTENT];

/// A body that must have exactly the bytes up to `end`.
struct Arriving {
    body: Body,
    at: u64,
    end: u64,
    what: String,
    origin: Origin,
}

impl Arriving {
    /// The next bytes, and what comes after them: nothing, after an error.
    async fn next(mut self) -> Option<(Result<Bytes, RegistryError>, Option<Self>)> {
        match self.body.next(&self.origin.name).await {
            Some(Ok(chunk)) => {
                self.at += chunk.len() as u64;
                if self.at > self.end {
                    let Self { what, end: expected, at: actual, .. } = self;
                    return Some((Err(RegistryError::SizeMismatch { what, expected, actual }), None));
                }
                Some((Ok(chunk), Some(self)))
            }
            Some(Err(error)) => Some((Err(self.origin.broke_off(error)), None)),
            None if self.at < self.end => Some((Err(self.origin.ended(self.at, self.end)), None)),
            None => None,
        }
    }
}

/// Where a stream comes from.
struct Origin {
    hosts: Arc<Hosts>,
    mirror: Option<String>,
    name: String,
}

impl Origin {
    /// A mirror that breaks off is passed over when the rest is asked for.
    fn broke_off(&self, error: RegistryError) -> RegistryError {
        self.set_aside();
        error
    }

    fn ended(&self, at: u64, end: u64) -> RegistryError {
        self.set_aside();
        let cause = format!("the connection ended after {at} of {end} bytes");
        RegistryError::Unreachable { registry: self.name.clone(), cause }
    }

    fn set_aside(&self) {
        if let Some(mirror) = &self.mirror {
            self.hosts.set_aside(mirror);
        }
    }
}

fn purpose(digest: Option<&Digest>) -> Purpose {
    if digest.is_some() { Purpose::Pull } else { Purpose::Resolve }
}

fn manifest_name(name: &ImageName, digest: Option<&Digest>) -> String {
    digest.map_or_else(|| name.to_string(), |digest| format!("manifest {digest} of {name}"))
}

fn content_range(response: &Response) -> String {
    text(response, header::CONTENT_RANGE.as_str()).unwrap_or_default()
}
