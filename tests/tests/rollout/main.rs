//! Roll-outs on the real API server. An observer sees every version of every `NodeImageCache`, and counts.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod agents;
mod limits;
mod observer;
mod real_agents;
mod spec;
#[allow(dead_code, reason = "shared with another target")]
#[path = "../operator/support.rs"]
mod support;
