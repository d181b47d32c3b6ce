//! What runs on a node: pulling images into the layer store, keeping them as they are wanted, and saying so.
//!
//! [`larder_pull`] brings one image into the store, [`engine`] keeps a set of images
//! and in the node's container runtime whatever happens, and [`cluster`] ties the engine to this node's `NodeImageCache`.
//! [`node`] is all of it. Only [`cluster`], [`status`], [`events`], [`secrets`] and [`node`] know of Kubernetes.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod engine;
pub mod events;
pub mod logins;
pub mod node;
pub mod reason;
pub mod secrets;
pub mod status;
mod untold;
