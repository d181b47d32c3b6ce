//! The commands, one a module. Each has `Args` and
//! `pub async fn run(context: &Context, args: Args) -> Result<Status, Failure>`.
//!
//! They are registered in groups, a file each, so that a group can be hung below `larder image` too: [`images`],
//! [`transfers`] (pull, push), [`archives`] (save, load), [`registries`] (login, logout, apply), [`stores`].

pub mod apply;
pub mod archives;
pub mod completion;
pub mod deliver;
pub mod df;
pub mod history;
pub mod images;
pub mod inspect;
pub mod list;
pub mod load;
pub mod login;
pub mod logout;
pub mod man;
pub mod prune;
pub mod pull;
pub mod push;
pub mod registries;
pub mod remove;
pub mod save;
pub mod stores;
pub mod tag;
pub mod transfers;
pub mod verify;

use crate::{
    Context, Failure, Status,
    args::{GroupedVerb, Verb},
};

/// Runs a command.
pub async fn run(context: &Context, verb: Verb) -> Result<Status, Failure> {
    match verb {
        Verb::Images(verb) | Verb::Image { verb: GroupedVerb::Images(verb) } => {
            images::run(context, verb).await
        }
        Verb::Transfers(verb) | Verb::Image { verb: GroupedVerb::Transfers(verb) } => {
            transfers::run(context, verb).await
        }
        Verb::Archives(verb) | Verb::Image { verb: GroupedVerb::Archives(verb) } => {
            archives::run(context, verb).await
        }
        Verb::Registries(verb) => registries::run(context, verb).await,
        Verb::Stores(verb) => stores::run(context, verb).await,
    }
}
