//! Which images containers were made from.

use std::fmt;

pub use larder_runtime::{Pod, User};
use larder_store::{Store, StoredImage};

/// Whoever knows which images containers were made from. Asked before anything is removed. Calls may block.
pub trait InUse: Send + Sync + fmt::Debug {
    /// The containers that were made from an image.
    ///
    /// # Errors
    /// Why it cannot be known, in a sentence; nothing is removed then.
    fn users(&self, store: &Store, image: &StoredImage) -> Result<Vec<User>, String>;

    /// Takes an image's name from the container runtime, if that has it from us. Gives the containers for whose sake it was
    /// left there.
    ///
    /// # Errors
    /// Why it cannot be done, in a sentence; the store keeps the image then.
    fn withdraw(&self, store: &Store, image: &StoredImage) -> Result<Vec<User>, String>;

    /// Lets the container runtime drop the layers that the store has left to it and does not need any more.
    ///
    /// # Errors
    /// Why it cannot be done, in a sentence. It costs space, and nothing else.
    fn settle(&self, store: &Store) -> Result<(), String>;
}
