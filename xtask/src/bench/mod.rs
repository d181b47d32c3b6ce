//! `cargo xtask bench`: Larder beside other programs, in one run, each in turn.

mod archive;
mod contest;
mod delivery;
mod fleet;
mod measure;
mod packages;
mod pull;

use clap::Subcommand;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Pulls from a registry on loopback, beside crane, regctl, oras and skopeo.
    Pull(pull::Options),
    /// Archives and pushes, beside skopeo, crane and programs that compress; and what crash safety costs.
    Archive(archive::Options),
    /// An image on a real node: from `kubectl apply` until pods can use it, beside kubelet's own pull. Needs root.
    Delivery(delivery::Options),
    /// Many nodes: what operator and agents write, and what the operator needs, with real agents' loops.
    Fleet(fleet::Options),
}

/// Measures it, and prints a table.
pub fn run(what: &What) -> anyhow::Result<()> {
    match what {
        What::Pull(options) => pull::run(options),
        What::Archive(options) => archive::run(options),
        What::Delivery(options) => delivery::run(options),
        What::Fleet(options) => fleet::run(options),
    }
}
