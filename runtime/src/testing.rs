//! Images for the unit tests of this crate.

use larder_oci::{
    Digest, ImageKey, Platform,
    manifest::OCI_MANIFEST,
    spec::{self, Descriptor},
};

use crate::Image;

/// A digest, another one for each number.
pub(crate) fn digest(number: u8) -> Digest {
    Digest::sha256(&[number])
}

/// An image with two layers, for this machine.
pub(crate) fn image(name: &str, seed: u8) -> Image {
    let descriptor = |part: &str, kind: &str| {
        let digest = Digest::sha256(format!("{part} of {seed}").as_bytes());
        Descriptor::new(kind.into(), 7, digest.as_str().parse::<spec::Digest>().unwrap())
    };
    let layer = "application/vnd.oci.image.layer.v1.tar";
    Image {
        key: ImageKey { name: name.parse().unwrap(), platform: Platform::host() },
        target: Digest::sha256(format!("index of {seed}").as_bytes()),
        index: None,
        manifest: descriptor("manifest", OCI_MANIFEST),
        config: descriptor("configuration", "application/vnd.oci.image.config.v1+json"),
        layers: vec![descriptor("layer 1", layer), descriptor("layer 2", layer)],
        diff_ids: vec![digest(seed), digest(seed.wrapping_add(1))],
        pin: Some(true),
        further: false,
    }
}
