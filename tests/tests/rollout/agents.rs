//! What agents would report, written by the test: nodes without a machine.

use std::collections::BTreeSet;

use larder_tests::{until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::support::{Cluster, failed, ready};

/// The agents of all nodes. At each round one takes up what it is told, or goes on by one step.
pub struct Agents<'a> {
    pub cluster: &'a Cluster,
    /// Nodes on which images whose name contains the word fail.
    pub failing: BTreeSet<(String, &'static str)>,
}

impl<'a> Agents<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, failing: BTreeSet::new() }
    }

    /// Every agent goes on by one step: an image that it has just been told of is on its way, one that was is there. Gives
    /// the objects as they were before.
    pub fn step(&self) -> Vec<Value> {
        let list = self.cluster.plane.get(&["nodeimagecaches"]).unwrap();
        let objects = list["items"].as_array().cloned().unwrap_or_default();
        let reports: Vec<Value> = objects.iter().filter_map(|object| self.report(object)).collect();
        if !reports.is_empty() {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": reports}).to_string();
            let args = [
                "apply",
                "--server-side",
                "--field-manager=larder-agent",
                "--subresource=status",
                "--validate=false",
                "-f",
                "-",
            ];
            self.cluster.plane.try_kubectl(&args, &list).unwrap().ok().unwrap();
        }
        objects
    }

    /// Goes on until something is true of the objects.
    pub fn run_until(&self, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut last = Vec::new();
        let found = until(what, PATIENCE, || {
            last = self.step();
            is(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|error| panic!("{error}: {:#}", json!(last)))
    }

    fn report(&self, object: &Value) -> Option<Value> {
        let node = object["metadata"]["name"].as_str().unwrap();
        let before = object["status"]["images"].as_array().cloned().unwrap_or_default();
        let wanted = object["spec"]["images"].as_array().cloned().unwrap_or_default();
        let images: Vec<Value> = wanted
            .iter()
            .map(|image| {
                let image = image["image"].as_str().unwrap();
                let was = before.iter().find(|before| before["image"] == image);
                let fails = self.failing.iter().any(|(on, word)| on == node && image.contains(word));
                match was.map(|was| was["state"].as_str().unwrap_or_default()) {
                    None => json!({"image": image, "state": "Pulling", "size": 100, "bytesPresent": 10}),
                    Some(_) if fails => failed(image, "RegistryUnreachable", "the registry does not answer"),
                    Some(_) => ready(image, 100),
                }
            })
            .collect();
        let status = json!({
            "observedGeneration": object["metadata"]["generation"],
            "agent": {"version": "0.1.0", "platform": "linux/amd64"},
            "images": images,
        });
        let same = ["observedGeneration", "images"]
            .iter()
            .all(|field| object["status"].get(field).unwrap_or(&json!([])) == &status[field]);
        (!same).then(|| {
            json!({"apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCache",
                "metadata": {"name": node}, "status": status})
        })
    }
}

/// How many nodes have been told to hold an image.
pub fn told(objects: &[Value], image: &str) -> usize {
    let tells = |object: &Value| {
        let images = object["spec"]["images"].as_array().cloned().unwrap_or_default();
        images.iter().any(|told| told["image"] == image)
    };
    objects.iter().filter(|object| tells(object)).count()
}

/// The highest version among the objects.
pub fn latest(objects: &[Value]) -> String {
    let versions = objects.iter().map(|object| object["metadata"]["resourceVersion"].as_str().unwrap());
    versions.max_by_key(|version| version.parse::<u64>().unwrap()).unwrap().to_owned()
}
