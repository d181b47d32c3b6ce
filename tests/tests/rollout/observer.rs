//! Sees every version of every `NodeImageCache`, in the order in which the API server has made them.

use std::collections::BTreeMap;

use larder_tests::{Program, until, wait::PATIENCE};
use serde_json::Value;

use crate::support::Cluster;

/// A watch that writes down all that it is told.
pub struct Observer {
    watch: Program,
}

impl Observer {
    /// Starts to watch.
    pub fn start(cluster: &Cluster) -> Self {
        let watch = Program::new("observer", cluster.plane.kubectl_program(), cluster.scratch.path())
            .env("KUBECONFIG", cluster.plane.kubeconfig())
            .env("KUBECACHEDIR", cluster.scratch.path().join("observer-cache"))
            .args(["get", "nodeimagecaches", "--watch", "--output-watch-events", "-o", "json"]);
        watch.start().unwrap();
        Self { watch }
    }

    /// How many nodes were busy with an ImageCache at a time, after each change; once the watch has told of this version.
    pub fn busy(&self, cache: &str, last: &str) -> Vec<usize> {
        let last: u64 = last.parse().unwrap();
        let events = until("the observer to have seen it all", PATIENCE, || {
            self.watch.ensure_running().unwrap();
            let log = self.watch.log().ok()?;
            let events = serde_json::Deserializer::from_str(&log).into_iter::<Value>();
            // The last event may still be on its way.
            let events: Vec<Value> = events.map_while(Result::ok).collect();
            events.iter().any(|event| version(&event["object"]) >= last).then_some(events)
        });
        let mut busy: BTreeMap<String, bool> = BTreeMap::new();
        let mut counts = Vec::new();
        for event in events.unwrap() {
            let object = &event["object"];
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            busy.insert(name, event["type"] != "DELETED" && is_busy(object, cache));
            counts.push(busy.values().filter(|&&busy| busy).count());
        }
        counts
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse().unwrap_or(0)
}

/// It carries images of the cache that are not all there, none of which has failed.
fn is_busy(object: &Value, cache: &str) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let reported = list(&object["status"]["images"]);
    let state = |image: &Value| {
        let found = reported.iter().find(|reported| reported["image"] == image["image"]);
        found.map(|found| found["state"].as_str().unwrap_or_default().to_owned())
    };
    let given = list(&object["spec"]["images"]);
    let given = given.iter().filter(|image| list(&image["wantedBy"]).iter().any(|by| by["name"] == cache));
    let states: Vec<_> = given.map(state).collect();
    let has = |state: &Option<String>, word: &str| state.as_deref() == Some(word);
    !states.iter().any(|state| has(state, "Failed")) && states.iter().any(|state| !has(state, "Ready"))
}
