//! The operator in production: replicas, probes, metrics, events, memory. Nodes are objects without a machine; what their
//! agents would report is written by the test.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

mod election;
mod events;
mod malformed;
mod metrics;
mod probes;
mod scale;
