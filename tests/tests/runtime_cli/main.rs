//! `larder` on a node: images that it gives to a real containerd, and those that it must not take away.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cri;
mod delivering;
mod removing;
mod support;
