//! A store under many commands at once that are killed, and on a disk that loses power.
//!
//! In short here, and as long as one likes with `cargo xtask torture`; docs/proof/kills.md says how to read it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod command;
mod disk;
mod figures;
mod full;
mod full_node;
mod kills;
mod look;
mod model;
mod player;
mod power;
mod private;
mod settings;
mod shop;
