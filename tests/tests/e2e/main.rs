//! On a real cluster: nodes with kubelet and containerd, and pods that run.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;

mod nodes;
mod pods;
mod teardown;
