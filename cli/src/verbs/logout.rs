//! `larder logout`: forget a login.

use super::login::registry_of;
use crate::{Context, Failure, Status};

/// Log out from a registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The registry, such as registry.corp:5000 [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
}

/// Forgets the login, in its helper and in docker's file. That there was none is no failure.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let server = registry_of(args.server.as_deref().unwrap_or_default());
    let logins = context.logins()?;
    let shown = if server == "docker.io" { "https://index.docker.io/v1/" } else { server.as_str() };
    if logins.get(&server).await?.is_none() && !logins.erase(&server).await? {
        context.line(format_args!("Not logged in to {shown}"))?;
        return Ok(Status::SUCCESS);
    }
    context.line(format_args!("Removing login credentials for {shown}"))?;
    logins.erase(&server).await?;
    Ok(Status::SUCCESS)
}
