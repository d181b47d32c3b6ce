//! The gRPC interfaces of containerd and of CRI, as far as they are used.
//!
//! Generated from `runtime/proto` by `cargo xtask gen`; a test of this crate fails when they differ. The files are in the
//! repository so that nobody needs `protoc`, and no build waits for a generator.

#![allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the documentation is upstream's"
)]

/// containerd's common messages.
#[rustfmt::skip]
#[path = "containerd.types.rs"]
pub mod types;
#[rustfmt::skip]
#[path = "containerd.services.content.v1.rs"]
pub mod content;
#[rustfmt::skip]
#[path = "containerd.services.images.v1.rs"]
pub mod images;
#[rustfmt::skip]
#[path = "containerd.services.leases.v1.rs"]
pub mod leases;
#[rustfmt::skip]
#[path = "containerd.services.snapshots.v1.rs"]
pub mod snapshots;
#[rustfmt::skip]
#[path = "containerd.services.diff.v1.rs"]
pub mod diff;
#[rustfmt::skip]
#[path = "containerd.services.containers.v1.rs"]
pub mod containers;
#[rustfmt::skip]
#[path = "containerd.services.tasks.v1.rs"]
pub mod tasks;
#[rustfmt::skip]
#[path = "containerd.services.events.v1.rs"]
pub mod events;
#[rustfmt::skip]
#[path = "containerd.services.version.v1.rs"]
pub mod version;
/// The Container Runtime Interface.
#[rustfmt::skip]
#[path = "runtime.v1.rs"]
pub mod cri;
