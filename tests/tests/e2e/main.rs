//! On a real cluster: nodes with kubelet and containerd, and pods that run.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;
mod larder;
mod slow;

mod away;
mod drift;
mod footprint;
mod in_use;
mod installed;
mod killed;
mod node_away;
mod nodes;
mod pins;
mod plane_away;
mod pods;
mod removing;
mod runtime_away;
mod seen;
mod teardown;
mod tokens;
