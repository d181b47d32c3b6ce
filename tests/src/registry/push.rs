//! Pushing, bytes unchanged: manifests that lie, and kinds that no client of a registry makes, go through too.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, RequestBuilder, Response, StatusCode};

use super::PUSH_AGENT;
use crate::certificates::Authority;
use crate::runtime::block_on;
use crate::{Blob, Error, Image, Result};

/// Where to push, and as whom.
pub(super) struct Target {
    pub client: Client,
    /// The registry's base URL.
    pub url: String,
    pub repository: String,
    pub login: Login,
}

/// What each request brings.
pub(super) enum Login {
    None,
    Password(String, String),
    Token(String),
}

/// A client that trusts this authority alone, or speaks plain HTTP.
pub(super) fn client(authority: Option<&Authority>) -> Result<Client> {
    let ca = authority.map(|authority| authority.pem().to_owned());
    // On the harness' runtime: the TLS provider is installed there.
    block_on(async move {
        let roots = ca.iter().map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()));
        let roots = roots.collect::<reqwest::Result<Vec<_>>>().map_err(Error::data("CA certificate"))?;
        Client::builder()
            .no_proxy()
            .tls_certs_only(roots)
            .user_agent(PUSH_AGENT)
            // Of one read: a large blob may take long on a busy machine.
            .read_timeout(Duration::from_secs(120))
            .build()
            .map_err(Error::data("HTTP client"))
    })
}

impl Target {
    /// Pushes all that the image consists of, what is referred to first.
    pub async fn push(&self, image: &Image, reference: &str) -> Result<()> {
        for blob in image.all_blobs() {
            self.push_blob(blob).await?;
        }
        for manifest in image.all_children() {
            self.push_manifest(&manifest.manifest, manifest.digest().as_str()).await?;
        }
        self.push_manifest(&image.manifest, reference).await
    }

    async fn push_blob(&self, blob: &Blob) -> Result<()> {
        let base = format!("{}/v2/{}/blobs", self.url, self.repository);
        let head = self.client.head(format!("{base}/{}", blob.digest));
        if send(self.with_login(head), "HEAD of a blob").await?.status() == StatusCode::OK {
            return Ok(());
        }
        let start = format!("{base}/uploads/");
        let begun =
            expect_success(self.with_login(self.client.post(&start)), &format!("POST {start}")).await?;
        let location = begun
            .headers()
            .get("location")
            .and_then(|location| location.to_str().ok())
            .ok_or_else(|| problem(&format!("POST {start}"), "no Location in the answer".to_owned()))?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let upload = format!("{location}{separator}digest={}", blob.digest);
        let put = self.client.put(&upload).header("content-type", "application/octet-stream");
        expect_success(self.with_login(put.body(blob.bytes.clone())), &format!("PUT {upload}"))
            .await
            .map(drop)
    }

    async fn push_manifest(&self, manifest: &Blob, reference: &str) -> Result<()> {
        let url = format!("{}/v2/{}/manifests/{reference}", self.url, self.repository);
        let body: Bytes = manifest.bytes.clone();
        let put = self.client.put(&url).header("content-type", &manifest.media_type).body(body);
        expect_success(self.with_login(put), &format!("PUT {url}")).await.map(drop)
    }

    fn with_login(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.login {
            Login::Password(user, password) => request.basic_auth(user, Some(password)),
            Login::Token(token) => request.bearer_auth(token),
            Login::None => request,
        }
    }
}

/// Sends a request; an answer that is no success is an error with what the registry said.
pub(super) async fn expect_success(request: RequestBuilder, name: &str) -> Result<Response> {
    let answer = send(request, name).await?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    Err(problem(name, format!("{status}: {}", answer.text().await.unwrap_or_default())))
}

async fn send(request: RequestBuilder, name: &str) -> Result<Response> {
    request.send().await.map_err(|error| problem(name, with_causes(&error)))
}

fn problem(request: &str, problem: String) -> Error {
    Error::Http { request: request.to_owned(), problem }
}

/// An error of reqwest says "error sending request"; why is in its sources.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
