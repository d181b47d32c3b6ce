//! The API server over HTTP, for those who ask too often to start kubectl each time.

use std::time::Duration;

use serde_json::Value;

use crate::runtime::block_on;
use crate::{ControlPlane, Error, Result};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A client that is the cluster's admin.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    url: String,
    etcd: String,
}

/// How a change is put.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// POST this object.
    Create(&'a Value),
    /// PATCH with this (`application/merge-patch+json`).
    Merge(&'a Value),
    /// DELETE.
    Delete,
}

impl Api {
    /// A client of this control plane.
    pub fn new(plane: &ControlPlane) -> Result<Self> {
        Ok(Self { client: client(plane)?, url: plane.url(), etcd: plane.etcd_url() })
    }

    /// What is at a path, such as `/apis/larder.dev/v1alpha1/imagecaches`; nothing where the answer is 404. That the API
    /// server cannot be reached is an error.
    pub fn get(&self, path: &str) -> Result<Option<Value>> {
        let request = self.client.get(format!("{}{path}", self.url));
        Self::answer(request, format!("GET {path}"))
    }

    /// Changes what is at a path, and gives what is there then; nothing where the answer is 404 or 409.
    pub fn change(&self, path: &str, change: Change<'_>) -> Result<Option<Value>> {
        let url = format!("{}{path}", self.url);
        let (request, body, kind) = match change {
            Change::Create(object) => (self.client.post(url), object.to_string(), "application/json"),
            Change::Merge(fields) => {
                (self.client.patch(url), fields.to_string(), "application/merge-patch+json")
            }
            Change::Delete => (self.client.delete(url), String::new(), "application/json"),
        };
        Self::answer(request.header("content-type", kind).body(body), format!("{change:.0?} {path}"))
    }

    /// Has etcd forget all that was before now. A watch from an earlier moment ends with 410 Gone, once the API server's
    /// own memory of it is gone too, as it is after a restart.
    pub fn compact(&self) -> Result<()> {
        let post = |path: &str, body: Value| {
            let request = self.client.post(format!("{}{path}", self.etcd)).body(body.to_string());
            Self::answer(request, format!("POST {path}"))
        };
        let status = post("/v3/maintenance/status", serde_json::json!({}))?.unwrap_or_default();
        let revision = status["header"]["revision"].clone();
        post("/v3/kv/compaction", serde_json::json!({"revision": revision, "physical": true})).map(drop)
    }

    fn answer(request: reqwest::RequestBuilder, name: String) -> Result<Option<Value>> {
        block_on(async move {
            let failed = |problem: String| Error::Http { request: name.clone(), problem };
            let answer = request.timeout(LIMIT).send().await.map_err(|error| failed(format!("{error:?}")))?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| failed(error.to_string()))?;
            match status.as_u16() {
                200..300 => {
                    serde_json::from_str(&text).map(Some).map_err(Error::data("JSON from the API server"))
                }
                404 | 409 => Ok(None),
                _ => Err(failed(format!("{status}: {text}"))),
            }
        })
    }
}

/// An HTTP client with the admin's certificate.
pub(crate) fn client(plane: &ControlPlane) -> Result<reqwest::Client> {
    let identity = plane.authority().client("admin", Some("system:masters"))?;
    let (ca, pem) = (plane.authority().pem().to_owned(), format!("{}{}", identity.certificate, identity.key));
    block_on(async move {
        let ca = reqwest::Certificate::from_pem(ca.as_bytes()).map_err(Error::data("CA certificate"))?;
        let identity =
            reqwest::Identity::from_pem(pem.as_bytes()).map_err(Error::data("admin's certificate"))?;
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only([ca])
            .identity(identity)
            .build()
            .map_err(Error::data("HTTP client"))
    })
}
