//! Logins, and images by configuration: login, logout, apply.

use clap::Subcommand;

use super::{apply, login, logout};
use crate::{Context, Failure, Status};

/// Logins, and images by configuration: login, logout, apply.
#[derive(Debug, Subcommand)]
pub enum RegistryVerb {
    /// Log in to a registry
    Login(login::Args),
    /// Log out from a registry
    Logout(logout::Args),
    /// Make this machine's store hold what an ImageCache names
    Apply(apply::Args),
}

/// Runs a command of this group.
pub async fn run(context: &Context, verb: RegistryVerb) -> Result<Status, Failure> {
    match verb {
        RegistryVerb::Login(args) => login::run(context, args).await,
        RegistryVerb::Logout(args) => logout::run(context, args).await,
        // It is large, and the others need not be.
        RegistryVerb::Apply(args) => Box::pin(apply::run(context, args)).await,
    }
}
