//! One node's agent: engine, object and events, tied together.

use kube::Client;
use tokio::sync::{mpsc, watch};

use crate::{
    cluster::{self, WatchEnded},
    engine::{Engine, Report},
    events::Events,
};

/// Why an agent ended: by itself it never does.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Nobody says any more what is wanted.
    #[error(transparent)]
    Watch(#[from] WatchEnded),
    /// One of its tasks has ended.
    #[error("a task that runs for ever ended: {0}")]
    Task(&'static str),
}

/// Has `engine` keep on this node what the node's `NodeImageCache` asks for. Dropping the future stops it; what is under way
/// goes on at the next start.
pub async fn run(client: Client, node: &str, engine: Engine) -> Ended {
    let (desired, desired_images) = watch::channel(None);
    let (reporter, reports) = watch::channel(Report::default());
    let (object, latest) = watch::channel(None);
    let (teller, notices) = mpsc::unbounded_channel();
    let (events, publisher) = Events::new(client.clone(), node, notices);
    tokio::select! {
        ended = cluster::follow(client.clone(), node, desired, object) => match ended {
            Ok(()) => Ended::Task("the watch"),
            Err(ended) => ended.into(),
        },
        () = engine.with_notices(teller).run(desired_images, reporter) => Ended::Task("the engine"),
        () = cluster::write_status(client, node, reports, latest, events) => Ended::Task("what writes the status"),
        () = publisher.run() => Ended::Task("what writes events"),
    }
}
