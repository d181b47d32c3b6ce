//! What happens in containerd behind Larder's back.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, OnceCell},
    task::JoinHandle,
};

use super::client::{Client, request};
use crate::{RuntimeError, api::events::SubscribeRequest};

/// What may take an image away, or free one to go. The topics are those of 1.7 as well.
const FILTERS: [&str; 4] = [
    "namespace==k8s.io,topic~=\"^/images/\"",
    "namespace==k8s.io,topic==\"/content/delete\"",
    "namespace==k8s.io,topic==\"/snapshot/remove\"",
    "namespace==k8s.io,topic==\"/containers/delete\"",
];
/// The pauses between attempts to subscribe.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// One subscription, which begins when it is first asked for and goes on for as long as this lives.
#[derive(Debug)]
pub(super) struct Events {
    client: Client,
    happened: Arc<Notify>,
    listener: OnceCell<Listener>,
}

#[derive(Debug)]
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Events {
    pub(super) fn new(client: Client) -> Self {
        Self { client, happened: Arc::new(Notify::new()), listener: OnceCell::new() }
    }

    /// Waits for something to happen. What happens between two calls makes the second return at once.
    pub(super) async fn changed(&self) {
        let start = || async {
            let (client, happened) = (self.client.clone(), self.happened.clone());
            Listener(tokio::spawn(async move { listen(&client, &happened).await }))
        };
        self.listener.get_or_init(start).await;
        self.happened.notified().await;
    }
}

async fn listen(client: &Client, happened: &Notify) {
    let mut pause = PAUSE.0;
    loop {
        match follow(client, happened, &mut pause).await {
            Ok(()) => tracing::debug!("containerd ended the stream of events"),
            Err(error) => tracing::debug!("no events of containerd: {error}"),
        }
        // When it has gone, whoever waits will want to know that too.
        happened.notify_one();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Follows the events until the connection breaks.
async fn follow(client: &Client, happened: &Notify, pause: &mut Duration) -> Result<(), RuntimeError> {
    let what = "tell what happens";
    let filters = FILTERS.map(str::to_owned).into();
    let mut events = client.events();
    // containerd answers with the first event, not before: whether it listens at all another call must tell.
    let subscribed = events.subscribe(request(SubscribeRequest { filters }));
    tokio::pin!(subscribed);
    let mut versions = client.version();
    let alive = async {
        client.call("say its version", versions.version(())).await?;
        // Nothing tells when the subscription is in force. It came first, and is a matter of microseconds.
        tokio::time::sleep(PAUSE.0).await;
        Ok::<_, RuntimeError>(())
    };
    tokio::pin!(alive);
    let mut known_alive = false;
    let mut stream = loop {
        tokio::select! {
            answer = &mut subscribed => break answer.map_err(|status| client.failed(what, &status))?.into_inner(),
            answer = &mut alive, if !known_alive => {
                answer?;
                known_alive = true;
                *pause = PAUSE.0;
                // What happened before is not told.
                happened.notify_one();
            }
        }
    };
    *pause = PAUSE.0;
    happened.notify_one();
    while let Some(_event) = stream.message().await.map_err(|status| client.failed(what, &status))? {
        happened.notify_one();
    }
    Ok(())
}
