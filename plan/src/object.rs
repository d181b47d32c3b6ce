//! What the operator sees of each object: the parts that planning needs, and no more.
//!
//! A specification that could not be decoded is an `Err` with the reason. It is a state to plan with, not a failure:
//! what such an object asked for earlier stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use larder_crds::{
    ImageCache, ImageCacheSpec, ImageCacheStatus, NodeImageCache, NodeImageCacheSpec, NodeImageCacheStatus,
};

/// An `ImageCache`.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheObject {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub resource_version: Option<String>,
    /// Its generation.
    pub generation: Option<i64>,
    /// Whether it is being deleted, and only waits for finalizers.
    pub deleting: bool,
    /// What it asks for, or why that cannot be read.
    pub spec: Result<ImageCacheSpec, String>,
    /// The status that it has; as much of it as can be read.
    pub status: ImageCacheStatus,
}

/// A `Node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeObject {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is in service: not cordoned, and ready as far as kubelet and the control plane say.
    pub is_available: bool,
}

/// A `NodeImageCache`.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeCacheObject {
    /// Its name, which is the node's.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub resource_version: Option<String>,
    /// Its generation.
    pub generation: Option<i64>,
    /// Whether it is being deleted, and only waits for finalizers.
    pub deleting: bool,
    /// The UIDs of the Nodes that own it.
    pub node_uids: Vec<String>,
    /// What the operator last wrote, or why that cannot be read.
    pub spec: Result<NodeImageCacheSpec, String>,
    /// What the agent last wrote; empty where that cannot be read.
    pub status: NodeImageCacheStatus,
}

impl From<ImageCache> for CacheObject {
    fn from(object: ImageCache) -> Self {
        Self {
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            resource_version: object.resource_version(),
            generation: object.metadata.generation,
            deleting: object.metadata.deletion_timestamp.is_some(),
            spec: Ok(object.spec),
            status: object.status.unwrap_or_default(),
        }
    }
}

impl From<NodeImageCache> for NodeCacheObject {
    fn from(object: NodeImageCache) -> Self {
        Self {
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            resource_version: object.resource_version(),
            generation: object.metadata.generation,
            deleting: object.metadata.deletion_timestamp.is_some(),
            node_uids: node_owners(object.owner_references()),
            spec: Ok(object.spec),
            status: object.status.unwrap_or_default(),
        }
    }
}

/// The Role that lets agents read the Secrets that `ImageCache`s name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretsRoleObject {
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub resource_version: Option<String>,
    /// The Secrets that it lets agents read. Absent where it says anything else, or the same in other words.
    pub names: Option<BTreeSet<String>>,
}

/// The UIDs of the Nodes among an object's owners.
#[must_use]
pub fn node_owners(owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]) -> Vec<String> {
    owners
        .iter()
        .filter(|owner| owner.kind == "Node" && owner.api_version == "v1")
        .map(|owner| owner.uid.clone())
        .collect()
}

/// Whether a resource version is older than another of the same object. Kubernetes promises this order since 1.35
/// (<https://kep.k8s.io/5504>), and every release before kept it.
#[must_use]
pub fn is_older(version: Option<&str>, than: Option<&str>) -> bool {
    let number = |version: Option<&str>| version.and_then(|version| version.parse::<u64>().ok());
    number(version).zip(number(than)).is_some_and(|(version, than)| version < than)
}
