//! `larder pull`, `push`, `login`, `logout` and `apply`, as people run them, against real registries.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod applies;
mod faults;
mod logins;
mod pulls;
mod pushes;
mod ranges;
mod support;
mod together;
