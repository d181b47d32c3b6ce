//! Commands that move images to and from registries, and to the container runtime: pull, push, deliver.

use clap::Subcommand;

use super::{deliver, pull, push};
use crate::{Context, Failure, Status};

/// Commands that move images to and from registries, and to the container runtime: pull, push, deliver.
#[derive(Debug, Subcommand)]
pub enum TransferVerb {
    /// Download images from a registry
    Pull(pull::Args),
    /// Upload an image to a registry
    Push(push::Args),
    /// Give images of the store to the node's container runtime, for pods to use
    Deliver(deliver::Args),
}

/// Runs a command of this group.
pub async fn run(context: &Context, verb: TransferVerb) -> Result<Status, Failure> {
    match verb {
        TransferVerb::Pull(args) => pull::run(context, args).await,
        TransferVerb::Push(args) => push::run(context, args).await,
        TransferVerb::Deliver(args) => deliver::run(context, args).await,
    }
}
