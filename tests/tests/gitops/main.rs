//! What GitOps tools make of Larder, by their own code: kstatus, Argo CD's health checks, Helm; and that what is applied
//! again changes nothing.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod fixture;

mod argocd;
mod chart;
mod release;
mod states;
mod twice;
