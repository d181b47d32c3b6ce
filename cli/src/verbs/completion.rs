//! `larder completion`: a shell's completion script.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Cli, Context, Failure, Status};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script.
pub fn run(context: &Context, args: &Args) -> Result<Status, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "larder", &mut script);
    context.write_all(&script)?;
    Ok(Status::SUCCESS)
}
