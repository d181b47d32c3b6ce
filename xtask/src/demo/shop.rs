//! The demo's images: a shop's base image, and two that stand on it.

use larder_tests::{Image, Layer, MachineFiles, Registry};

use crate::steps::megabytes;

const MB: u64 = 1_000_000;

/// Makes the images out of this machine's files and pushes them.
pub fn push(registry: &Registry) -> anyhow::Result<()> {
    let mut files = MachineFiles::list()?;
    let base = files.layer(24 * MB)?;
    let web = [files.layer(12 * MB)?, Layer::of(&[("srv/index.html", b"<h1>Shop</h1>\n")])?];
    let api = [files.layer(16 * MB)?];
    let images = [("base", &[] as &[Layer]), ("web", &web), ("api", &api)];
    for (name, own) in images {
        let mut image = Image::builder().layer(&base).env("SHOP=1").label("shop.part", name);
        for layer in own {
            image = image.layer(layer);
        }
        let pushed = registry.push(&image.build()?, &format!("shop/{name}"), "1.0")?;
        println!(
            "  {}  {} in {} layers  {}",
            pushed.name,
            megabytes(pushed.size),
            own.len() + 1,
            pushed.digest
        );
    }
    Ok(())
}
