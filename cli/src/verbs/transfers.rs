//! Commands that move images to and from registries: pull, push.

use clap::Subcommand;

use super::{pull, push};
use crate::{Context, Failure, Status};

/// Commands that move images to and from registries: pull, push.
#[derive(Debug, Subcommand)]
pub enum TransferVerb {
    /// Download images from a registry
    Pull(pull::Args),
    /// Upload an image to a registry
    Push(push::Args),
}

/// Runs a command of this group.
pub async fn run(context: &Context, verb: TransferVerb) -> Result<Status, Failure> {
    match verb {
        TransferVerb::Pull(args) => pull::run(context, args).await,
        TransferVerb::Push(args) => push::run(context, args).await,
    }
}
