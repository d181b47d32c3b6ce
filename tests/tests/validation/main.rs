//! What the API server refuses, and what the operator reports: each rule of an `ImageCache`, one by one.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod reported;
mod schema;

use serde_json::{Value, json};

/// The manifest of an ImageCache.
fn image_cache(name: &str, spec: &Value) -> String {
    let object = json!({
        "apiVersion": "larder.dev/v1alpha1",
        "kind": "ImageCache",
        "metadata": {"name": name},
        "spec": spec,
    });
    object.to_string()
}

/// A specification with one image, and further fields of that image.
fn with_image(more: &Value) -> Value {
    let mut image = json!({"image": "app:v1"});
    merge(&mut image, more);
    json!({"images": [image]})
}

/// A specification with one image, and further fields beside it.
fn with(more: &Value) -> Value {
    let mut spec = json!({"images": [{"image": "app:v1"}]});
    merge(&mut spec, more);
    spec
}

fn merge(into: &mut Value, more: &Value) {
    into.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
}
