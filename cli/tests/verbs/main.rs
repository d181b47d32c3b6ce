//! Commands on stores built for the purpose, through the library: what they print, to the letter.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod fixture;
mod listing;
mod pruning;
mod removing;
mod showing;
