//! The images of operator and agent: what others read of them, and whether the programs in them run.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bundle;
mod content;
mod dns;
mod running;
