//! `larder man`: manual pages.

use std::path::PathBuf;

use clap::CommandFactory;

use crate::{Cli, Context, Failure, Status};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that the pages are written to, such as /usr/local/share/man/man1; made if it is not there
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// Writes a page for every command, and says where.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let folder = args.folder.clone();
    let written = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder)?;
        clap_mangen::generate_to(Cli::command(), &folder)
    });
    let written = written.await.map_err(|_| Failure::new("interrupted"))?;
    written.map_err(|error| {
        Failure::new(format_args!("cannot write manual pages to {}: {error}", args.folder.display()))
    })?;
    context.line(format_args!("Manual pages written to {}", args.folder.display()))?;
    Ok(Status::SUCCESS)
}
