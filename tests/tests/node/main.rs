//! A node's agent on a real containerd, from the ImageCache to what kubelet would see, without kubelet.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;

mod archives;
mod away;
mod drift;
mod in_use;
mod interrupted;
mod logins;
mod pins;
mod ready;
mod refresh;
mod remove;
mod schedule;
mod secrets;
mod tags;
