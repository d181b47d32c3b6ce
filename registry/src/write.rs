//! Writing: the push half of the distribution API
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push>).
//!
//! An image is pushed from its leaves: blobs, then its manifest, then the index.

use std::sync::Arc;

use bytes::Bytes;
use larder_oci::{Digest, ImageName, ManifestError, manifest};
use reqwest::{Method, Response, StatusCode, header};

use crate::{
    BlobSource, Progress, Registry, RegistryError,
    auth::Scope,
    headers::text,
    hosts::{Endpoint, Purpose},
    http::check_status,
    retry::retrying,
    send::Outgoing,
    upload::Upload,
};

/// The largest blob that is sent in one request.
pub(crate) const MONOLITHIC: u64 = 8 << 20;
/// The size of chunks that larger blobs are sent in. Front ends of registries limit a request's body, often to 100 MB.
const CHUNK: u64 = 64 << 20;

/// How to push a blob.
#[derive(Clone)]
pub struct PushOptions {
    /// A repository of the same registry that may have the blob: the registry is asked to take it from there.
    pub mount_from: Option<String>,
    /// The most bytes to send in one request, unless the registry wants more at a time.
    pub chunk_size: u64,
    /// Told how far the upload is, in bytes of the blob.
    pub progress: Option<Progress>,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { mount_from: None, chunk_size: CHUNK, progress: None }
    }
}

/// How a blob got into the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// The repository had it.
    AlreadyExists,
    /// The registry took it from another of its repositories.
    Mounted {
        /// That repository.
        from: String,
    },
    /// It was sent.
    Uploaded,
}

/// How an upload begins.
pub(crate) enum Begun {
    /// It is over: the blob was mounted.
    Mounted,
    /// The registry waits for the bytes.
    Session(Box<Response>),
}

impl Registry {
    /// Brings a blob into the name's repository, sending no byte that the registry has.
    ///
    /// Passing faults are tried again, and an upload that breaks off goes on where the registry stopped. `size` must
    /// be the blob's, in bytes; that the bytes are those of the digest is the registry's to check.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::Source`] when `source` can't be read.
    pub async fn push_blob(
        &self,
        name: &ImageName,
        digest: &Digest,
        size: u64,
        source: &dyn BlobSource,
        options: &PushOptions,
    ) -> Result<PushOutcome, RegistryError> {
        let at = self.push_endpoint(name)?;
        let scope = Scope::push(name.repository());
        match retrying(|| self.has_blob(&at, name, &scope, digest)).await {
            Ok(true) => return Ok(PushOutcome::AlreadyExists),
            Ok(false) => {}
            // Some registries let one write and not look. Whether it is so, the upload will show.
            Err(
                error @ (RegistryError::Unauthorized { .. } | RegistryError::Status { status: ..500, .. }),
            ) => {
                tracing::debug!(%error, "whether the blob exists cannot be known");
            }
            Err(error) => return Err(error),
        }
        let mount = options.mount_from.as_deref().filter(|from| *from != name.repository());
        let session = match mount {
            Some(from) => match self.mount(&at, name, digest, from).await {
                Some(Begun::Mounted) => return Ok(PushOutcome::Mounted { from: from.to_owned() }),
                Some(Begun::Session(session)) => Some(session),
                None => None,
            },
            None => None,
        };
        let upload = Upload { registry: self, at: &at, name, scope: &scope, digest, size, source, options };
        upload.run(session).await?;
        Ok(PushOutcome::Uploaded)
    }

    /// Asks for a mount. A registry that can't or won't begins an upload instead (202); any other answer, such as
    /// that the other repository is not ours to read, is no reason not to send the blob.
    async fn mount(&self, at: &Endpoint, name: &ImageName, digest: &Digest, from: &str) -> Option<Begun> {
        let scope = Scope::push(name.repository()).and_pull(from);
        let query = [("mount", digest.as_str()), ("from", from)];
        match self.begin(at, name, &scope, &query).await {
            Ok(begun) => Some(begun),
            Err(error) => {
                tracing::debug!(%error, from, "no mount");
                None
            }
        }
    }

    /// Begins an upload.
    pub(crate) async fn begin(
        &self,
        at: &Endpoint,
        name: &ImageName,
        scope: &Scope,
        query: &[(&str, &str)],
    ) -> Result<Begun, RegistryError> {
        let what = format!("an upload to {}/{}", name.registry(), name.repository());
        let mut url = at.url(name, "blobs/uploads/");
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = Outgoing::write(Method::POST, url, Bytes::new());
        let response = self.exchange(at, name.repository(), scope, &what, &request).await?;
        let accepted = [StatusCode::ACCEPTED, StatusCode::CREATED];
        let response = check_status(&at.name(), &what, response, &accepted).await?;
        match response.status() {
            StatusCode::CREATED if !query.is_empty() => Ok(Begun::Mounted),
            _ => Ok(Begun::Session(Box::new(response))),
        }
    }

    /// Writes a manifest or index under a tag or its digest, its bytes unchanged so that the digest holds. What it
    /// refers to must be there.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::DigestMismatch`] when the registry stored something else, or `reference` is
    /// the digest of other bytes.
    pub async fn put_manifest(
        &self,
        name: &ImageName,
        reference: &str,
        bytes: Bytes,
        media_type: &str,
    ) -> Result<Digest, RegistryError> {
        let at = self.push_endpoint(name)?;
        let what = format!("manifest {reference} of {}/{}", name.registry(), name.repository());
        if bytes.len() as u64 > manifest::MAX_MANIFEST_SIZE {
            return Err(RegistryError::Manifest { what, source: ManifestError::TooLarge });
        }
        let digest = match reference.parse::<Digest>() {
            Ok(digest) => digest,
            Err(_) => Digest::sha256(&bytes),
        };
        let mismatch = |actual: String| RegistryError::DigestMismatch {
            registry: at.name(),
            what: what.clone(),
            expected: digest.clone(),
            actual,
        };
        if !digest.matches(&bytes) {
            return Err(mismatch(Digest::sha256(&bytes).to_string()));
        }
        let url = at.url(name, &format!("manifests/{reference}"));
        let request =
            Outgoing::write(Method::PUT, url, bytes.clone()).header(header::CONTENT_TYPE, media_type)?;
        let scope = Scope::push(name.repository());
        let response = retrying(|| async {
            let response = self.exchange(&at, name.repository(), &scope, &what, &request).await?;
            check_status(&at.name(), &what, response, &[StatusCode::CREATED, StatusCode::OK]).await
        })
        .await?;
        match text(&response, "docker-content-digest").map(|text| text.parse::<Digest>()) {
            Some(Ok(claimed)) if !claimed.matches(&bytes) => Err(mismatch(claimed.to_string())),
            _ => Ok(digest),
        }
    }

    /// What a tag or a digest stands for at the host that is written to; `None` if there is nothing of that name.
    ///
    /// One request, which is not tried again: it is for those who may save themselves a push.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn written_manifest(
        &self,
        name: &ImageName,
        reference: &str,
    ) -> Result<Option<Digest>, RegistryError> {
        let at = self.push_endpoint(name)?;
        let what = format!("manifest {reference} of {}/{}", name.registry(), name.repository());
        let request = Outgoing::read(Method::HEAD, at.url(name, &format!("manifests/{reference}")))
            .header(header::ACCEPT, &manifest::ACCEPTED.join(", "))?;
        let scope = Scope::push(name.repository());
        let response = self.exchange(&at, name.repository(), &scope, &what, &request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = check_status(&at.name(), &what, response, &[StatusCode::OK]).await?;
        Ok(text(&response, "docker-content-digest").and_then(|text| text.parse().ok()))
    }

    /// The one host that is written to: the first that may be. Writing is never passed on to another host.
    fn push_endpoint(&self, name: &ImageName) -> Result<Arc<Endpoint>, RegistryError> {
        let endpoints = self.hosts.endpoints(name.registry(), Purpose::Push)?;
        endpoints.into_iter().next().ok_or_else(|| RegistryError::Protocol {
            registry: name.registry().to_owned(),
            why: "no host of it may be written to".to_owned(),
        })
    }
}
