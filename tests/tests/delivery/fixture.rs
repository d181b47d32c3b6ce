//! Images in the layer store, as a pull leaves them.

use larder_oci::{ImageKey, Platform, spec::Descriptor};
use larder_runtime::Image;
use larder_store::{Claim, NewImage, Store};
use larder_tests::{Blob, Layer};

use crate::node::Node;

/// A layer that many images have, and a layer of some size, for each seed another one.
pub fn image(seed: u64) -> larder_tests::Image {
    sized_image(seed, 200_000)
}

pub fn sized_image(seed: u64, size: usize) -> larder_tests::Image {
    let base = Layer::of(&[("etc/base", b"shared")]).unwrap();
    let own = Layer::random(seed, size).unwrap();
    larder_tests::Image::builder().layer(&base).layer(&own).build().unwrap()
}

pub fn key(name: &str) -> ImageKey {
    ImageKey { name: name.parse().unwrap(), platform: Platform::host() }
}

fn descriptor(blob: &Blob) -> Descriptor {
    serde_json::from_value(blob.descriptor()).unwrap()
}

impl Node {
    /// Puts an image into the store: an image, or an index whose first image is for this machine.
    pub fn put(&self, name: &str, image: &larder_tests::Image) -> Image {
        put(&self.store, name, image)
    }

    /// Puts an image into the store and gives it to containerd.
    pub fn put_and_deliver(&self, name: &str, image: &larder_tests::Image) -> Image {
        let image = self.put(name, image);
        self.deliver(&image);
        image
    }

    /// Takes an image from the store, and what only it needed.
    pub fn forget(&self, image: &Image) {
        assert!(self.store.remove(&image.key).unwrap());
        self.store.collect(&larder_store::CollectOptions::default()).unwrap();
    }
}

/// Puts an image into a store: an image, or an index whose first image is for this machine.
pub fn put(store: &Store, name: &str, image: &larder_tests::Image) -> Image {
    let key = key(name);
    let index = (!image.children.is_empty()).then(|| descriptor(&image.manifest));
    let own = image.children.first().unwrap_or(image);
    let lease = store.lease(&key).unwrap();
    let all = || own.blobs.iter().chain([&own.manifest, &image.manifest]);
    lease.protect(all().map(|blob| &blob.digest)).unwrap();
    for blob in all() {
        if store.blob_size(&blob.digest).unwrap().is_none() {
            store.put_blob(&lease, &blob.digest, &blob.bytes).unwrap();
        }
    }
    let new = NewImage { manifest: descriptor(&own.manifest), index, claim: Claim::Delete };
    lease.commit(new).unwrap();
    let stored = store.image(&key).unwrap().unwrap();
    Image::read(store, &stored).unwrap()
}
