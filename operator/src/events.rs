//! Events on `ImageCache`s: what `kubectl describe` shows.
//!
//! `larder-plan` decides what is worth one. One task writes them all, through one recorder: in order, and off the way of
//! the work that they tell of. The recorder counts up what is told again of the same object within six minutes. An event
//! that cannot be written is lost, and the log says so: the status has the facts.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use larder_crds::{GROUP, OPERATOR_FIELD_MANAGER};
use larder_plan::transition::Transition;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    apply::Category,
    election::Fence,
    explain,
    metrics::{Metrics, WriteKind},
};

/// Events that wait to be written. More are dropped: they would come too late to tell anybody anything.
const BACKLOG: usize = 256;
/// A write that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where events are told.
#[derive(Debug, Clone)]
pub(crate) struct Events(mpsc::Sender<Told>);

#[derive(Debug)]
struct Told {
    cache: String,
    uid: String,
    transition: Transition,
}

/// The task that writes them.
pub(crate) struct Publisher {
    told: mpsc::Receiver<Told>,
    recorder: Recorder,
    fence: Fence,
    metrics: Metrics,
}

/// A place to tell events, and what writes them. `instance` names this replica in the events.
pub(crate) fn channel(
    client: Client,
    instance: String,
    fence: Fence,
    metrics: Metrics,
) -> (Events, Publisher) {
    let reporter = Reporter { controller: OPERATOR_FIELD_MANAGER.to_owned(), instance: Some(instance) };
    let (sender, told) = mpsc::channel(BACKLOG);
    (Events(sender), Publisher { told, recorder: Recorder::new(client, reporter), fence, metrics })
}

impl Events {
    /// Has these transitions of an `ImageCache` written. Never waits.
    pub fn tell(&self, cache: &str, uid: &str, transitions: Vec<Transition>) {
        for transition in transitions {
            let told = Told { cache: cache.to_owned(), uid: uid.to_owned(), transition };
            if let Err(error) = self.0.try_send(told) {
                let told = error.into_inner();
                tracing::warn!(reason = told.transition.reason, "event dropped: too many wait to be written");
            }
        }
    }
}

impl Publisher {
    /// Writes what is told, until `drain` is cancelled; then what is told already.
    pub async fn run(mut self, drain: CancellationToken) {
        loop {
            let told = tokio::select! {
                told = self.told.recv() => told,
                () = drain.cancelled(), if !self.told.is_closed() => {
                    self.told.close();
                    continue;
                }
            };
            let Some(told) = told else { return };
            self.publish(&told).await;
        }
    }

    async fn publish(&self, told: &Told) {
        let Told { cache, uid, transition } = told;
        let (event, reference) = (event(transition), reference(cache, uid));
        let write = self.recorder.publish(&event, &reference);
        let (outcome, why) = tokio::select! {
            biased;
            () = self.fence.wait_closed() => (Err(Category::NotLeading), "another replica may lead now".to_owned()),
            written = tokio::time::timeout(TIMEOUT, write) => match written {
                Ok(Ok(())) => (Ok(()), String::new()),
                Ok(Err(error)) => (Err(Category::of(&error)), explain(&error)),
                Err(_) => (Err(Category::Unavailable), "no answer from the API server".to_owned()),
            },
        };
        self.metrics.count_write(WriteKind::Event, outcome);
        if let Err(category) = outcome {
            let reason = transition.reason.as_str();
            tracing::warn!(cache, reason, category = category.as_str(), "event not written: {why}");
        }
    }
}

fn event(transition: &Transition) -> Event {
    Event {
        type_: if transition.is_warning { EventType::Warning } else { EventType::Normal },
        reason: transition.reason.clone(),
        // The API server takes 1,024 bytes; a condition's message is half as long at most.
        note: Some(transition.message.clone()),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

/// No resource version: with one, the recorder would take every event for the first of its kind.
fn reference(cache: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{GROUP}/v1alpha1")),
        kind: Some("ImageCache".to_owned()),
        name: Some(cache.to_owned()),
        uid: Some(uid.to_owned()),
        ..Default::default()
    }
}
