//! Planning, without a client, a clock or a disk.
//!
//! Two plans make up Larder. The operator's: all `ImageCache`s and a node give the images that node is to hold. The
//! agent's: the images to hold and those that are there give the steps to take. Both are functions of what is passed
//! to them, so that a restart plans the same again, and so is what statuses say about the result.

#![forbid(unsafe_code)]

pub mod census;
pub mod condition;
mod desired;
pub mod index;
pub mod node;
pub mod object;
mod pool;
pub mod rollout;
mod status;
pub mod transition;
pub mod validate;
mod verdict;

pub use index::{Index, Key};
