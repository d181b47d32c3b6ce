//! How large the objects are, as the API server keeps and sends them.

use anyhow::Context;
use larder_tests::ControlPlane;
use serde_json::Value;

const GROUP: &str = "/apis/larder.dev/v1alpha1";
/// Objects read at a time.
const PAGE: usize = 100;

/// Bytes of JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The `ImageCache`.
    pub(super) cache: usize,
    /// The largest `NodeImageCache`, and what of it are specification, status, and the record of who wrote which field.
    pub(super) node_cache: [usize; 4],
}

impl Sizes {
    /// Reads the `ImageCache` of this name and all `NodeImageCache`s.
    pub(super) fn look(plane: &ControlPlane, name: &str) -> anyhow::Result<Self> {
        let cache = plane.kubectl(&["get", "--raw", &format!("{GROUP}/imagecaches/{name}")])?;
        let mut largest = [0; 4];
        let mut next = String::new();
        loop {
            let path = format!("{GROUP}/nodeimagecaches?limit={PAGE}&continue={next}");
            let page = plane.kubectl(&["get", "--raw", &path])?.json()?;
            for object in page["items"].as_array().context("a list without items")? {
                largest = largest.max(sizes(object));
            }
            page["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut next);
            if next.is_empty() {
                return Ok(Self { cache: cache.stdout.trim_end().len(), node_cache: largest });
            }
        }
    }
}

fn sizes(object: &Value) -> [usize; 4] {
    let parts = [object, &object["spec"], &object["status"], &object["metadata"]["managedFields"]];
    parts.map(|part| part.to_string().len())
}
