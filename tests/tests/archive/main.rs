//! Image archives: between `larder` and the tools that others use.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod containerd;
mod fixture;
mod others_data;
mod own_images;
mod peers_read;
mod we_read;
