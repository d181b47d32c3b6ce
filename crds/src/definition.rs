//! The CustomResourceDefinitions as they are installed: what the derive macros give, and what they can't say.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::json;

use crate::{ConditionReason, ConditionType, ImageCache, NodeImageCache};

/// The definitions of both kinds, ready to be applied.
#[must_use]
pub fn definitions() -> [CustomResourceDefinition; 2] {
    let mut image_cache = ImageCache::crd();
    let mut node_image_cache = NodeImageCache::crd();
    for (definition, awaited) in
        [(&mut image_cache, "the operator"), (&mut node_image_cache, "the node's agent")]
    {
        if let Some(status) = status_schema(definition) {
            complete_conditions(status);
            status.default = Some(JSON(unknown_status(awaited)));
        }
        if let Some(spec) = schema(definition, "spec") {
            leave_lists_as_written(spec, false);
        }
    }
    if let Some(spec) = schema(&mut node_image_cache, "spec") {
        without_rules(spec);
    }
    [image_cache, node_image_cache]
}

/// Takes away the rules that come with types which both kinds have. What the operator writes it has checked; and with up to
/// 4096 images, the rules would cost more than the API server allows.
fn without_rules(schema: &mut JSONSchemaProps) {
    schema.x_kubernetes_validations = None;
    for field in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        without_rules(field);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        without_rules(item);
    }
}

/// kstatus takes an object without conditions for a finished one. With this default a fresh object never looks
/// finished, even while nobody is there to look at it (the Gateway API does the same).
fn unknown_status(awaited: &str) -> serde_json::Value {
    json!({"conditions": [{
        "type": ConditionType::Ready.as_str(),
        "status": "Unknown",
        "reason": ConditionReason::Pending.as_str(),
        "message": format!("Waiting for {awaited}"),
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]})
}

/// Takes the defaults out of what is in lists; programs know them all the same.
///
/// kubectl and Argo CD compare lists of custom resources as wholes: with a default in an entry, the list there is would
/// for ever differ from the one that was applied. `kubectl apply` would write it each time, Argo CD never be in sync.
fn leave_lists_as_written(schema: &mut JSONSchemaProps, is_in_list: bool) {
    if is_in_list {
        schema.default = None;
    }
    for field in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        leave_lists_as_written(field, is_in_list);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        leave_lists_as_written(item, true);
    }
}

fn status_schema(definition: &mut CustomResourceDefinition) -> Option<&mut JSONSchemaProps> {
    schema(definition, "status")
}

/// The schema of `spec` or `status`.
fn schema<'a>(definition: &'a mut CustomResourceDefinition, part: &str) -> Option<&'a mut JSONSchemaProps> {
    let schema = definition.spec.versions.first_mut()?.schema.as_mut()?.open_api_v3_schema.as_mut()?;
    schema.properties.as_mut()?.get_mut(part)
}

/// Gives conditions the schema of `metav1.Condition` in Kubernetes' own Go types: bounds, the closed list of
/// statuses, and a list keyed by type. k8s-openapi has only what the OpenAPI document says, which is less.
fn complete_conditions(status: &mut JSONSchemaProps) {
    let Some(conditions) = status.properties.as_mut().and_then(|fields| fields.get_mut("conditions")) else {
        return;
    };
    conditions.x_kubernetes_list_type = Some("map".to_owned());
    conditions.x_kubernetes_list_map_keys = Some(vec!["type".to_owned()]);
    conditions.max_items = Some(8);
    let Some(JSONSchemaPropsOrArray::Schema(item)) = conditions.items.as_mut() else { return };
    let Some(fields) = item.properties.as_mut() else { return };
    for (name, max_length) in [("message", 32_768), ("reason", 1_024), ("type", 316)] {
        if let Some(field) = fields.get_mut(name) {
            field.max_length = Some(max_length);
        }
    }
    if let Some(field) = fields.get_mut("status") {
        field.enum_ = Some(["True", "False", "Unknown"].map(|value| JSON(json!(value))).to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field, at every depth, says what it is: `kubectl explain` is the manual.
    #[test]
    fn every_field_has_a_description() {
        fn walk(path: &str, schema: &JSONSchemaProps, bare: &mut Vec<String>) {
            for (name, field) in schema.properties.iter().flatten() {
                let path = format!("{path}.{name}");
                let standard = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                if field.description.as_deref().unwrap_or_default().is_empty() && !standard {
                    bare.push(path.clone());
                }
                walk(&path, field, bare);
            }
            if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
                walk(&format!("{path}[]"), item, bare);
            }
        }
        for definition in definitions() {
            let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
            let mut bare = Vec::new();
            walk(&definition.spec.names.kind, &schema, &mut bare);
            assert!(bare.is_empty(), "without a description: {bare:?}");
        }
    }

    #[test]
    fn a_fresh_object_does_not_look_finished() {
        for mut definition in definitions() {
            let default = status_schema(&mut definition).unwrap().default.clone().unwrap().0;
            assert_eq!(default["conditions"][0]["status"], "Unknown");
        }
    }

    #[test]
    fn entries_of_lists_have_no_defaults() {
        let [mut image_cache, mut node_image_cache] = definitions();
        for (definition, field) in [(&mut image_cache, "pullPolicy"), (&mut node_image_cache, "pullPolicy")] {
            let spec = schema(definition, "spec").unwrap();
            let images = spec.properties.as_ref().unwrap()["images"].items.clone();
            let Some(JSONSchemaPropsOrArray::Schema(image)) = images else { panic!("images is a list") };
            let properties = image.properties.unwrap();
            assert!(properties.contains_key(field));
            assert!(properties.values().all(|field| field.default.is_none()), "{properties:?}");
        }
        let spec = schema(&mut image_cache, "spec").unwrap();
        assert!(spec.properties.as_ref().unwrap()["deletionPolicy"].default.is_some(), "not in a list");
    }

    #[test]
    fn conditions_are_a_bounded_list_keyed_by_type() {
        for mut definition in definitions() {
            let status = status_schema(&mut definition).unwrap();
            let conditions = &status.properties.as_ref().unwrap()["conditions"];
            assert_eq!(conditions.x_kubernetes_list_map_keys, Some(vec!["type".to_owned()]));
            assert_eq!(conditions.max_items, Some(8));
        }
    }
}
