//! What it is all for: pods start although no registry answers.

use larder_tests::{Pod, PodOptions, Registry};

use crate::{
    fixture::alone,
    larder::{ImageCache, push, runtime_image},
};

/// A registry that is away, until this is dropped.
pub struct Away<'a>(&'a Registry);

impl<'a> Away<'a> {
    pub fn new(registry: &'a Registry) -> Self {
        registry.stop();
        Self(registry)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        let back = self.0.restart();
        assert!(back.is_ok() || std::thread::panicking(), "{back:?}");
    }
}

#[test]
fn pods_start_while_the_registry_is_away() {
    let e2e = alone();
    let larder = e2e.larder();
    let images = [1100, 1200].map(|seed| push(&e2e.registry, &format!("away/app-{seed}"), seed));
    let names = images.each_ref().map(|image| image.name.as_str());
    let cache = ImageCache::apply(&e2e.cluster, "away", &names);
    cache.wait_ready(larder);
    let status = &cache.get()["status"];
    let nodes = e2e.cluster.nodes();
    assert_eq!(status["nodes"]["ready"], nodes.len(), "{status:#}");

    let away = Away::new(&e2e.registry);
    for node in &nodes {
        for image in &images {
            let found = runtime_image(node, &image.name).unwrap();
            assert_eq!(found["pinned"], true, "{found:#}");
            assert_eq!(found["repoDigests"][0], format!("{}@{}", image.repository, image.digest));
            for policy in ["Never", "IfNotPresent"] {
                let digits: String = image.digest.short().chars().take(6).collect();
                let name = format!("away-{}-{}-{digits}", node.name(), policy.to_lowercase());
                let options = PodOptions::new(&name).image(&image.name).pull_policy(policy);
                let pod = Pod::start(&e2e.cluster, &options.node(node.name())).unwrap();
                let id = pod.get().unwrap()["status"]["containerStatuses"][0]["imageID"].clone();
                assert_eq!(id, format!("{}@{}", image.repository, image.digest));
                // So it is not the registry's absence that nobody noticed.
                assert!(!pod.describe().contains("Pulling"), "{}", pod.describe());
                pod.delete().unwrap();
            }
        }
    }
    drop(away);
}
