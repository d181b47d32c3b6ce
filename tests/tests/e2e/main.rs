//! On a real cluster: nodes with kubelet and containerd, and pods that run.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;
mod larder;
mod slow;

mod air_gapped;
mod away;
mod drift;
mod footprint;
mod in_use;
mod installed;
mod killed;
mod lifecycle;
mod node_away;
mod nodes;
mod pins;
mod plane_away;
mod pods;
mod remove;
mod removing;
mod runtime_away;
mod secrets;
mod seen;
mod tags;
mod teardown;
mod tokens;
