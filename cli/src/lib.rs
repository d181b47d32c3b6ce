//! The command line `larder`: docker's image verbs, without a daemon, on the store that the agent keeps.
//!
//! Each verb is a module of [`verbs`] with `Args`, what the user may write, and `run`, which does it with a
//! [`Context`] and gives the exit status or a [`Failure`]. Messages, output and exit statuses follow docker 29 where
//! it has the verb; `docs/cli.md` says where they do not, and why.

#![forbid(unsafe_code)]

pub mod args;
pub mod catalog;
pub mod config;
pub mod context;
mod display;
pub mod failure;
pub mod filter;
pub mod human;
pub mod in_use;
pub mod listing;
pub mod node;
mod prompt;
pub mod removal;
mod start;
mod usage;
pub mod verbs;

pub use args::Cli;
pub use context::Context;
pub use failure::{Failure, Status};
pub use in_use::{InUse, Pod, User};
pub use start::main;
