//! Images on a real containerd, of either major version, as kubelet sees them there.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;
mod format;
mod frozen;
mod interrupted;
mod kept;
mod node;
mod pins;
mod seen;
mod stores;
mod withdrawn;

/// Runs tests on each version of containerd that nodes have.
macro_rules! on_each_version {
    ($($name:ident),* $(,)?) => {
        mod containerd_2 {
            $(#[test] fn $name() { super::$name(crate::node::Version::Two); })*
        }
        mod containerd_1_7 {
            $(#[test] fn $name() { super::$name(crate::node::Version::OneSeven); })*
        }
    };
}
pub(crate) use on_each_version;
