//! Commands on the store as a whole.

use clap::Subcommand;

use super::{completion, df, man, verify};
use crate::{Context, Failure, Status};

/// Commands on the store as a whole.
#[derive(Debug, Subcommand)]
pub enum StoreVerb {
    /// Hash everything again, and fetch again what is damaged
    Verify(verify::Args),
    /// Show what takes the space
    Df(df::Args),
    /// Print a shell's completion script
    Completion(completion::Args),
    /// Write manual pages into a folder
    Man(man::Args),
}

/// Runs a command of this group.
pub async fn run(context: &Context, verb: StoreVerb) -> Result<Status, Failure> {
    match verb {
        StoreVerb::Verify(args) => verify::run(context, args).await,
        StoreVerb::Df(args) => df::run(context, args).await,
        StoreVerb::Completion(args) => completion::run(context, &args),
        StoreVerb::Man(args) => man::run(context, args).await,
    }
}
