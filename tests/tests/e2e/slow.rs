//! A registry at the end of a slow line, and what came over it.

use larder_tests::{
    Image, Layer, Node, Proxy, Pushed, Registry, RegistryOptions, kubernetes::images::busybox,
    machine::Relay, until, wait::PATIENCE,
};

use crate::{fixture::Shared, larder::runtime_image};

/// Bytes a second: an image of [`Slow::push`] takes some seconds.
const RATE: u64 = 4_000_000;

/// A registry of plain HTTP that all nodes reach through a proxy.
pub struct Slow {
    registry: Registry,
    pub proxy: Proxy,
    door: Relay,
}

impl Slow {
    pub fn start(shared: &Shared) -> Self {
        let registry = Registry::start(RegistryOptions::default()).unwrap();
        let proxy = Proxy::start(&registry.host()).unwrap();
        proxy.limit_rate(Some(RATE));
        let door = shared.cluster.expose(&proxy.host()).unwrap();
        Self { registry, proxy, door }
    }

    /// Pushes an image of some 20 MB in three layers, and busybox. Gives the name that nodes know it by.
    pub fn push(&self, repository: &str, seed: u64) -> (Image, Pushed) {
        let sizes = [9_000_000, 7_000_000, 3_000_000];
        let layers = (seed..).zip(sizes).map(|(seed, size)| Layer::random(seed, size).unwrap());
        let image = busybox(&layers.collect::<Vec<_>>()).unwrap();
        let pushed = self.registry.push(&image, repository, "v1").unwrap();
        let repository = format!("{}/{repository}", self.door.host());
        (image, Pushed { name: format!("{repository}:v1"), repository, ..pushed })
    }

    /// Waits until so many bytes have been served in all.
    pub fn wait_served(&self, bytes: u64) {
        until("the registry to serve", PATIENCE, || (self.proxy.bytes_sent() >= bytes).then_some(()))
            .unwrap();
    }

    /// Fails unless every layer was served about once: what was under way at an interruption may have been lost.
    pub fn assert_served_once(&self, image: &Image) {
        // busybox is on every node.
        for layer in image.layers().iter().skip(1) {
            let served = self.proxy.bytes_for(layer.digest.as_str());
            let size = layer.size();
            assert!(served >= size, "{served} of {size} bytes of {}", layer.digest);
            assert!(served <= size + size / 10 + 500_000, "{served} bytes were served of {size}");
        }
    }
}

/// Whether kubelet has the image, and leaves it alone.
pub fn is_usable(node: &Node, name: &str) -> bool {
    runtime_image(node, name).is_some_and(|image| image["pinned"] == true)
}
