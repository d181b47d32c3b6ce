//! What the manifests install, on a real API server: every object accepted, and rights that suffice and end there.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;

mod agents_events;
mod agents_status;
mod install;
mod listed;
mod pods;
mod programs;
mod secrets;
