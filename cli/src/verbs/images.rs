//! Commands on images in the store.

use clap::Subcommand;

use super::{history, inspect, list, prune, remove, tag};
use crate::{Context, Failure, Status};

/// Commands on images in the store.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// List images
    #[command(name = "images", visible_aliases = ["ls", "list"])]
    List(list::Args),
    /// Show the details of images
    Inspect(inspect::Args),
    /// Show how an image was made
    History(history::Args),
    /// Give an image a further name
    Tag(tag::Args),
    /// Remove images
    #[command(name = "rm", visible_aliases = ["rmi", "remove"])]
    Remove(remove::Args),
    /// Remove images that nothing needs
    Prune(prune::Args),
}

/// Runs a command of this group.
pub async fn run(context: &Context, verb: ImageVerb) -> Result<Status, Failure> {
    match verb {
        ImageVerb::List(args) => list::run(context, args).await,
        ImageVerb::Inspect(args) => inspect::run(context, args).await,
        ImageVerb::History(args) => history::run(context, args).await,
        ImageVerb::Tag(args) => tag::run(context, args).await,
        ImageVerb::Remove(args) => remove::run(context, args).await,
        ImageVerb::Prune(args) => prune::run(context, args).await,
    }
}
