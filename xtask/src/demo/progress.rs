//! How the images arrive, as the API server tells it.

use anyhow::{Context, anyhow};
use larder_tests::{ControlPlane, Program};
use serde_json::Value;

use super::patiently;

/// Prints a line for each change of an `ImageCache`'s status, until all are Ready. Fails when a program ends.
pub fn follow(cluster: &ControlPlane, programs: &[&Program]) -> anyhow::Result<()> {
    let mut shown: Vec<String> = Vec::new();
    let outcome = patiently("all ImageCaches to be Ready", || {
        if let Some(ended) = programs.iter().find_map(|program| program.ensure_running().err()) {
            return Some(Err(anyhow!(ended)));
        }
        // The API server may be slow to answer now and then; the next look will tell.
        let caches = cluster.get(&["imagecaches"]).ok()?;
        let caches = caches["items"].as_array()?;
        let lines: Vec<String> = caches.iter().map(line).collect();
        for line in lines.iter().filter(|line| !shown.contains(line)) {
            println!("  {line}");
        }
        shown = lines;
        (!caches.is_empty() && caches.iter().all(is_ready)).then_some(Ok(()))
    });
    outcome.and_then(std::convert::identity).with_context(|| state(cluster))
}

fn condition(cache: &Value) -> Option<&Value> {
    cache["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")
}

fn is_ready(cache: &Value) -> bool {
    // A status of an earlier specification says nothing about this one.
    cache["status"]["observedGeneration"] == cache["metadata"]["generation"]
        && condition(cache).is_some_and(|condition| condition["status"] == "True")
}

fn line(cache: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let summary = &cache["status"]["summary"];
    let ready = condition(cache).unwrap_or(&Value::Null);
    format!(
        "{:<6} Ready={:<8} nodes {:<4} bytes {:<5} {}",
        text(&cache["metadata"]["name"]),
        text(&ready["status"]),
        text(&summary["nodes"]),
        text(&summary["progress"]),
        text(&ready["message"]),
    )
}

/// What a person would look at first when it does not work.
fn state(cluster: &ControlPlane) -> String {
    let shown = cluster.kubectl(&["get", "imagecaches,nodeimagecaches", "-o", "wide"]);
    format!(
        "not all ImageCaches became Ready:\n{}",
        shown.map_or_else(|error| error.to_string(), |ran| ran.stdout)
    )
}
