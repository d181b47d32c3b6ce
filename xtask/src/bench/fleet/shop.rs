//! Images of a few kilobytes, that thousands of stores can hold: one layer that all share, and one of their own.

use larder_tests::{Image, Layer, Registry};

const BASE: usize = 1000;
const OWN: usize = 500;

/// Where an image is in the registry.
pub(super) fn repository(number: usize) -> String {
    format!("fleet/image-{number:03}")
}

/// Pushes one, and gives its name.
pub(super) fn push(registry: &Registry, number: usize, version: u64) -> anyhow::Result<String> {
    let base = Layer::random(0, BASE)?;
    let own = Layer::random(1 + number as u64 * 1000 + version, OWN)?;
    let image = Image::builder().layer(&base).layer(&own).build()?;
    Ok(registry.push(&image, &repository(number), &format!("v{version}"))?.name)
}
