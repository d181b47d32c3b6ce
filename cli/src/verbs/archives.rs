//! Commands that move images to and from files: save, load.

use clap::Subcommand;

use super::{load, save};
use crate::{Context, Failure, Status};

/// Commands that move images to and from files: save, load.
#[derive(Debug, Subcommand)]
pub enum ArchiveVerb {
    /// Save one or more images to a tar archive (streamed to stdout by default)
    Save(save::Args),
    /// Load images from a tar archive, a folder, or stdin
    Load(load::Args),
}

/// Runs a command of this group.
pub async fn run(context: &Context, verb: ArchiveVerb) -> Result<Status, Failure> {
    match verb {
        ArchiveVerb::Save(args) => save::run(context, args).await,
        ArchiveVerb::Load(args) => load::run(context, args).await,
    }
}

impl From<larder_archive::ArchiveError> for Failure {
    fn from(error: larder_archive::ArchiveError) -> Self {
        use larder_archive::ArchiveError as Error;
        match error {
            // Whoever read our output has seen enough.
            Error::Write(source) if source.kind() == std::io::ErrorKind::BrokenPipe => {
                Self::silent(Status::PIPE)
            }
            // Said by the program itself in docker too, and not by the daemon.
            Error::NotAFile { .. } | Error::DiskFull { .. } | Error::File { .. } | Error::Write(_) => {
                Self::new(error)
            }
            error => Self::response(error),
        }
    }
}
