//! The two images that every node has from its start.

use std::path::PathBuf;

use crate::image::{Image, Layer};
use crate::{Result, Scratch};

/// The image of pods' sandboxes, pinned as containerd does it.
pub const PAUSE: &str = "larder.test/pause:1";

/// A system with a shell and busybox' commands.
pub const BUSYBOX: &str = "larder.test/busybox:1";

/// Archives to import, with the names that are in them.
pub(super) fn write(scratch: &Scratch) -> Result<Vec<(&'static str, PathBuf)>> {
    let pause =
        Image::builder().layer(&Layer::busybox()?).entrypoint(&["/bin/sleep", "2147483647"]).build()?;
    let busybox = busybox(&[])?;
    let mut archives = Vec::new();
    for (file, name, image) in [("pause.tar", PAUSE, pause), ("busybox.tar", BUSYBOX, busybox)] {
        let path = scratch.path().join(file);
        image.write_archive(&path, name)?;
        archives.push((name, path));
    }
    Ok(archives)
}

/// An image that can run: busybox, and these layers on top. With different layers, images differ.
pub fn busybox(layers: &[Layer]) -> Result<Image> {
    let base = Image::builder().layer(&Layer::busybox()?).env("PATH=/bin").entrypoint(&["/bin/sh"]);
    layers.iter().fold(base, crate::ImageBuilder::layer).build()
}
