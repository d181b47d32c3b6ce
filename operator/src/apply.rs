//! Writes to the API server, all of them server-side applies or deletions with preconditions.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::rbac::v1::Role;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
};
use larder_crds::{GROUP, ImageCacheStatus, NodeImageCacheSpec, OPERATOR_FIELD_MANAGER};
use larder_plan::object::{CacheObject, NodeCacheObject, SecretsRoleObject};
use serde_json::{Value, json};

use crate::{
    election::Fence,
    explain,
    metrics::{Metrics, WriteKind},
    object::{RawImageCache, RawNodeImageCache},
    secrets,
};

/// A write that takes longer has failed: a dead connection must not keep a worker.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A write that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {kind} {name}: {cause}")]
pub(crate) struct ApplyError {
    action: &'static str,
    kind: &'static str,
    name: String,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{}", explain(.0))]
    Client(kube::Error),
    #[error("no answer from the API server within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    #[error("given up, since another replica may lead now")]
    NotLeading,
}

/// What kind of failure it is: what a person would do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Category {
    /// The object changed or went meanwhile. The watch brings what it is now; there is nothing to do.
    Conflict,
    /// The API server will not have this object.
    Invalid,
    /// The operator lacks a right.
    Forbidden,
    /// The API server cannot answer now.
    Unavailable,
    /// This process does not lead, or not for certain.
    NotLeading,
}

impl Category {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
            Self::NotLeading => "not_leading",
        }
    }

    /// The category of what the client says.
    pub fn of(error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return Self::Unavailable };
        match status.code {
            404 | 409 => Self::Conflict,
            400 | 413 | 422 => Self::Invalid,
            401 | 403 => Self::Forbidden,
            _ => Self::Unavailable,
        }
    }
}

impl ApplyError {
    pub fn category(&self) -> Category {
        match &self.cause {
            Cause::Client(error) => Category::of(error),
            Cause::Timeout => Category::Unavailable,
            Cause::NotLeading => Category::NotLeading,
        }
    }

    /// Whether it may have been written all the same.
    pub fn leaves_in_doubt(&self) -> bool {
        matches!(self.category(), Category::Unavailable | Category::NotLeading)
    }
}

/// What all writes go through: it holds them back where another replica may lead, and counts them.
pub(crate) struct Writer {
    pub client: Client,
    pub fence: Fence,
    pub metrics: Metrics,
}

impl Writer {
    /// Applies the `NodeImageCache` of a node: its owner and its specification.
    ///
    /// With `uid`, only if it is still that object: one that was deleted meanwhile is not to come back with an old plan.
    pub async fn node_cache(
        &self,
        node: &str,
        node_uid: &str,
        uid: Option<&str>,
        spec: &NodeImageCacheSpec,
    ) -> Result<NodeCacheObject, ApplyError> {
        let mut metadata = json!({
            "name": node,
            // As kubelet's own Lease has it: garbage goes with the node, and nothing waits for it.
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}],
        });
        if let Some(uid) = uid {
            metadata["uid"] = uid.into();
        }
        let patch =
            body("NodeImageCache", metadata, "spec", whole(json!(spec), &["images", "released", "deferred"]));
        let api: Api<RawNodeImageCache> = Api::all(self.client.clone());
        let parameters = parameters();
        let applied = api.patch(node, &parameters, &patch);
        self.attempt("applying", ("NodeImageCache", node), applied).await.map(NodeCacheObject::from)
    }

    /// The `NodeImageCache` of a node as it stands now, if there is one.
    pub async fn read_node_cache(&self, node: &str) -> Result<Option<NodeCacheObject>, ApplyError> {
        let api: Api<RawNodeImageCache> = Api::all(self.client.clone());
        // The operator has the right to list, which it needs anyway, and none to get.
        let parameters = ListParams::default().fields(&format!("metadata.name={node}"));
        let cause = match tokio::time::timeout(TIMEOUT, api.list(&parameters)).await {
            Ok(Ok(found)) => return Ok(found.items.into_iter().next().map(NodeCacheObject::from)),
            Ok(Err(error)) => Cause::Client(error),
            Err(_) => Cause::Timeout,
        };
        Err(ApplyError { action: "reading", kind: "NodeImageCache", name: node.to_owned(), cause })
    }

    /// Deletes a `NodeImageCache`, if it is still this object in this version.
    pub async fn delete_node_cache(
        &self,
        node: &str,
        uid: String,
        resource_version: Option<String>,
    ) -> Result<(), ApplyError> {
        let api: Api<RawNodeImageCache> = Api::all(self.client.clone());
        let parameters =
            DeleteParams::background().preconditions(Preconditions { uid: Some(uid), resource_version });
        self.attempt("deleting", ("NodeImageCache", node), api.delete(node, &parameters)).await.map(drop)
    }

    /// Applies the status of an `ImageCache`, if it is still the object with this UID.
    pub async fn cache_status(
        &self,
        name: &str,
        uid: &str,
        status: &ImageCacheStatus,
    ) -> Result<CacheObject, ApplyError> {
        let status = whole(json!(status), &["images", "failures"]);
        let patch = body("ImageCache", json!({"name": name, "uid": uid}), "status", status);
        let api: Api<RawImageCache> = Api::all(self.client.clone());
        let parameters = parameters();
        let applied = api.patch_status(name, &parameters, &patch);
        self.attempt("applying the status of", ("ImageCache", name), applied).await.map(CacheObject::from)
    }

    /// Applies the rules of the Role that lets agents read Secrets, which has to be there.
    pub async fn secrets_role(
        &self,
        namespace: &str,
        names: &BTreeSet<String>,
    ) -> Result<SecretsRoleObject, ApplyError> {
        let rules = json!(secrets::rules(names));
        let patch = Patch::Apply(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": secrets::ROLE_NAME, "namespace": namespace},
            "rules": rules,
        }));
        let api: Api<Role> = Api::namespaced(self.client.clone(), namespace);
        let parameters = parameters();
        let applied = api.patch(secrets::ROLE_NAME, &parameters, &patch);
        self.attempt("applying", ("Role", secrets::ROLE_NAME), applied).await.map(secrets::seen)
    }

    async fn attempt<T>(
        &self,
        action: &'static str,
        (kind, name): (&'static str, &str),
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApplyError> {
        let answer = tokio::select! {
            biased;
            () = self.fence.wait_closed() => Err(Cause::NotLeading),
            answer = tokio::time::timeout(TIMEOUT, request) => match answer {
                Ok(answer) => answer.map_err(Cause::Client),
                Err(_) => Err(Cause::Timeout),
            },
        };
        let answer = answer.map_err(|cause| ApplyError { action, kind, name: name.to_owned(), cause });
        let counted = match kind {
            "ImageCache" => WriteKind::ImageCacheStatus,
            "Role" => WriteKind::Role,
            _ => WriteKind::NodeImageCache,
        };
        self.metrics.count_write(counted, answer.as_ref().map(drop).map_err(ApplyError::category));
        answer
    }
}

fn parameters() -> PatchParams {
    PatchParams::apply(OPERATOR_FIELD_MANAGER).force()
}

fn body(kind: &str, metadata: Value, field: &str, value: Value) -> Patch<Value> {
    let mut object = json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": kind});
    object["metadata"] = metadata;
    object[field] = value;
    Patch::Apply(object)
}

/// Says empty lists where the types leave them out. What an apply does not name stays as somebody else wrote it.
fn whole(mut object: Value, lists: &[&str]) -> Value {
    for &list in lists {
        if object[list].is_null() {
            object[list] = json!([]);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use tokio::time::Instant;

    use super::*;

    /// A process was frozen while a request was under way. When it wakes up, the answer is there, and the timer that closes
    /// the fence has not fired.
    #[tokio::test(start_paused = true)]
    async fn a_request_is_not_gone_on_with_once_the_clock_says_that_the_term_is_over() {
        let fence = Fence::closed();
        fence.extend(Instant::now() + Duration::from_secs(10));
        // Nothing is sent: the request is the test's.
        let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let writer = Writer { client, fence, metrics: Metrics::new() };
        let mut polls = 0;
        let request = std::future::poll_fn(|_| {
            polls += 1;
            if polls == 1 { Poll::Pending } else { Poll::Ready(Ok(())) }
        });
        let mut attempt = std::pin::pin!(writer.attempt("applying", ("ImageCache", "web"), request));
        let mut frozen = std::pin::pin!(tokio::time::advance(Duration::from_secs(20)));
        let outcome = std::future::poll_fn(|context| {
            assert!(attempt.as_mut().poll(context).is_pending());
            // One poll moves the clock; timers fire only once we have given way to the runtime.
            assert!(frozen.as_mut().poll(context).is_pending());
            attempt.as_mut().poll(context)
        });
        assert_eq!(outcome.await.unwrap_err().category(), Category::NotLeading);
    }
}
