//! The whole way of an image: an ImageCache applied with kubectl, the operator, agents, a real registry, and back.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;

mod allowed;
mod bad_input;
mod convergence;
mod deletion;
mod faults;
mod kills;
mod kubectl;
mod load;
mod peers;
mod save;
mod schedule;
mod secrets;
mod tags;
