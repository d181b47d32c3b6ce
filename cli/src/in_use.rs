//! Which images containers were made from.

use std::fmt;

use larder_oci::Digest;

/// A container that was made from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The container's ID.
    pub container: String,
    /// Whether it runs. An image that a stopped container was made from may be removed by force.
    pub running: bool,
}

/// Whoever knows which images containers were made from. Asked before anything is removed.
pub trait InUse: Send + Sync + fmt::Debug {
    /// The containers that were made from the image with this ID (its configuration's digest) or manifest.
    ///
    /// # Errors
    /// Why it cannot be known, in a sentence; nothing is removed then.
    fn users(&self, id: &Digest, manifest: &Digest) -> Result<Vec<User>, String>;
}

/// For a store without a container runtime beside it: nothing is in use.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRuntime;

impl InUse for NoRuntime {
    fn users(&self, _id: &Digest, _manifest: &Digest) -> Result<Vec<User>, String> {
        Ok(Vec::new())
    }
}
