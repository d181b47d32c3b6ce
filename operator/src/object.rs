//! From what the API server sends to what planning needs.
//!
//! Specification and status are decoded by themselves, after the object has arrived. An object that a newer or older
//! version of Larder wrote may not decode, and must not stop the watch that brings it, nor take the readable half down
//! with it.

use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::{Resource, ResourceExt as _};
use larder_crds::{ImageCache, ImageCacheStatus, NodeImageCache, NodeImageCacheStatus};
use larder_plan::object::{CacheObject, NodeCacheObject, NodeObject, node_owners};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// An `ImageCache` whose halves have not been decoded.
#[derive(Debug, Clone, Resource, Deserialize)]
#[resource(inherit = ImageCache)]
pub(crate) struct RawImageCache {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

/// A `NodeImageCache` whose halves have not been decoded.
#[derive(Debug, Clone, Resource, Deserialize)]
#[resource(inherit = NodeImageCache)]
pub(crate) struct RawNodeImageCache {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl From<RawImageCache> for CacheObject {
    fn from(object: RawImageCache) -> Self {
        let name = object.name_any();
        let metadata = object.metadata;
        Self {
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            spec: decode(object.spec),
            status: cache_status(object.status),
            name,
        }
    }
}

impl From<RawNodeImageCache> for NodeCacheObject {
    fn from(object: RawNodeImageCache) -> Self {
        let name = object.name_any();
        let spec = decode(object.spec).inspect_err(|why| {
            tracing::error!(
                node = name,
                "the specification of the NodeImageCache cannot be read, and stays as it is: {why}"
            );
        });
        let metadata = object.metadata;
        Self {
            name,
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            node_uids: node_owners(metadata.owner_references.as_deref().unwrap_or_default()),
            spec,
            status: node_status(object.status),
        }
    }
}

/// A Node, as far as it is of interest. The rest of it, which is large, is skipped while it is read.
#[derive(Debug, Clone, Resource, Deserialize)]
#[resource(inherit = Node)]
pub(crate) struct RawNode {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: RawNodeSpec,
    #[serde(default)]
    status: RawNodeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RawNodeSpec {
    unschedulable: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RawNodeStatus {
    conditions: Option<Vec<RawNodeCondition>>,
}

#[derive(Debug, Clone, Deserialize)]
struct RawNodeCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl From<RawNode> for NodeObject {
    fn from(object: RawNode) -> Self {
        let name = object.name_any();
        let is_cordoned = object.spec.unschedulable == Some(true);
        let conditions = object.status.conditions.unwrap_or_default();
        // Kubelet states it from the beginning. Of a Node that says nothing there is nothing to wait for.
        let is_out_of_order =
            conditions.iter().any(|condition| condition.kind == "Ready" && condition.status != "True");
        Self {
            name,
            uid: object.metadata.uid.unwrap_or_default(),
            labels: object.metadata.labels.unwrap_or_default(),
            is_available: !is_cordoned && !is_out_of_order,
        }
    }
}

fn decode<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// What planning needs of an agent's report. An image whose state another version's agent put in words of its own counts
/// as one that nothing is known of; the others count. So do rules for removal.
fn node_status(mut value: Value) -> NodeImageCacheStatus {
    let mut list =
        |field| value.get_mut(field).and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let (images, removals) = (list("images"), list("removals"));
    NodeImageCacheStatus {
        observed_generation: value.get("observedGeneration").and_then(Value::as_i64),
        agent: value.get_mut("agent").map(Value::take).and_then(|agent| decode(agent).ok()),
        pulls: value.get_mut("pulls").map(Value::take).and_then(|pulls| decode(pulls).ok()),
        images: images.into_iter().filter_map(|image| decode(image).ok()).collect(),
        removals: removals.into_iter().filter_map(|rule| decode(rule).ok()).collect(),
        ..Default::default()
    }
}

/// A status that cannot be read is written anew; the conditions' transition times are saved from it where possible.
fn cache_status(mut value: Value) -> ImageCacheStatus {
    let conditions = value.as_object_mut().and_then(|status| status.remove("conditions")).unwrap_or_default();
    let conditions: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
    let rest: Option<ImageCacheStatus> = serde_json::from_value(value).ok();
    ImageCacheStatus { conditions, ..rest.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cache(spec: &Value, status: &Value) -> CacheObject {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
            "metadata": {"name": "web", "uid": "u1", "resourceVersion": "7", "generation": 2},
            "spec": spec, "status": status,
        });
        serde_json::from_value::<RawImageCache>(object).unwrap().into()
    }

    fn conditions() -> Value {
        json!([{
            "type": "Ready", "status": "True", "reason": "AllImagesReady", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }])
    }

    #[test]
    fn an_unreadable_specification_is_a_state_and_names_what_is_wrong() {
        let object = cache(&json!({"deletionPolicy": "Archive"}), &Value::Null);
        assert!(object.spec.unwrap_err().contains("`Archive`"));
        assert_eq!((object.name.as_str(), object.uid.as_str(), object.generation), ("web", "u1", Some(2)));
        assert!(cache(&Value::Null, &Value::Null).spec.is_err());
    }

    #[test]
    fn an_unreadable_status_keeps_its_conditions_and_harms_no_specification() {
        let object = cache(
            &json!({"images": [{"image": "ubuntu"}]}),
            &json!({"conditions": conditions(), "failures": [{"node": "n", "image": "i", "reason": 7, "message": ""}]}),
        );
        assert_eq!(object.spec.unwrap().images[0].image, "ubuntu");
        assert_eq!((object.status.conditions.len(), object.status.failures.len()), (1, 0));
    }

    #[test]
    fn a_readable_status_is_read_whole() {
        let status = json!({"conditions": conditions(), "observedGeneration": 2, "failuresTotal": 0});
        let object = cache(&json!({}), &status);
        assert_eq!(serde_json::to_value(object.status).unwrap(), status);
    }

    #[test]
    fn a_node_is_in_service_unless_it_is_cordoned_or_not_ready() {
        let condition = |status: &str| {
            json!({"conditions": [{"type": "DiskPressure", "status": "False"},
            {"type": "Ready", "status": status, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}], "images": []})
        };
        for (spec, status, expected) in [
            (json!({}), json!({}), true),
            (json!({"podCIDR": "10.0.0.0/24"}), condition("True"), true),
            (json!({"unschedulable": false}), condition("True"), true),
            (json!({"unschedulable": true}), condition("True"), false),
            (json!({}), condition("False"), false),
            (json!({}), condition("Unknown"), false),
        ] {
            let node = json!({"metadata": {"name": "n1", "uid": "u", "labels": {"pool": "web"}},
                "spec": spec, "status": status});
            let node: NodeObject = serde_json::from_value::<RawNode>(node.clone()).unwrap().into();
            assert_eq!(
                (node.is_available, node.labels["pool"].as_str()),
                (expected, "web"),
                "{spec} {status}"
            );
        }
    }

    #[test]
    fn what_another_version_wrote_counts_as_far_as_it_can_be_read() {
        let object = json!({
            "metadata": {"name": "n1", "uid": "u", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-1"},
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "n1", "uid": "map-1"},
            ]},
            "spec": {"images": []},
            "status": {
                "observedGeneration": 3,
                "agent": {"version": "9", "platform": "linux/amd64"},
                "images": [{"image": "i", "state": {"was": "Melting"}}, {"image": "j", "state": "Ready"}],
                "removals": [{"cache": "c", "image": "a:*", "images": "many"},
                    {"cache": "c", "image": "b:*", "images": 1, "inUse": 0, "removed": 2}],
            },
        });
        let object: NodeCacheObject = serde_json::from_value::<RawNodeImageCache>(object).unwrap().into();
        assert_eq!(object.node_uids, ["node-1"]);
        assert_eq!((object.spec.is_ok(), object.status.observed_generation), (true, Some(3)));
        assert!(object.status.agent.is_some());
        assert_eq!(object.status.images.iter().map(|image| image.image.as_str()).collect::<Vec<_>>(), ["j"]);
        let removals = object.status.removals.iter().map(|rule| (rule.image.as_str(), rule.removed));
        assert_eq!(removals.collect::<Vec<_>>(), [("b:*", 2)]);
    }
}
