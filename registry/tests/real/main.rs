//! The client against real registries: Debian's docker-registry with logins, private authorities, client certificates
//! and a token server, and faults in between.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod logins;
mod mirrors;
mod proxies;
mod push;
mod reading;
mod resume;
mod support;
mod tokens;
