//! The node's own `NodeImageCache`: what it asks for goes to the engine, what the engine reports goes into its status.
//!
//! The agent watches this one object and no other, and writes nothing but its `/status`.

use std::time::Duration;

use futures::{TryStreamExt, pin_mut};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use larder_crds::{
    AGENT_FIELD_MANAGER, NodeImageCache, NodeImageCacheSpec, NodeImageCacheStatus, PullPolicy,
};
use larder_oci::ImageKey;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    engine::{Desired, DesiredImage, Report},
    events::Events,
    status,
};

/// The shortest time between two writes of the status.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);
/// The longest pause after writes that failed.
const MAX_WRITE_PAUSE: Duration = Duration::from_secs(30);

/// What ended the watch: it never ends by itself.
#[derive(Debug, thiserror::Error)]
#[error("the watch of NodeImageCache {0} ended")]
pub struct WatchEnded(String);

/// The wanted images that a specification asks for.
#[must_use]
pub fn desired(generation: Option<i64>, spec: &NodeImageCacheSpec) -> Desired {
    let images = spec.images.iter().map(|image| {
        DesiredImage::new(&image.image, image.platform.as_deref(), image.pull_policy == PullPolicy::Always)
    });
    let key = |image: &str, platform: Option<&str>| -> Option<ImageKey> {
        DesiredImage::new(image, platform, false).key.ok()
    };
    let released = spec.released.iter().filter_map(|image| key(&image.image, image.platform.as_deref()));
    let deferred = spec.deferred.iter().filter_map(|image| key(&image.image, image.platform.as_deref()));
    Desired {
        generation,
        images: images.collect(),
        released: released.collect(),
        deferred: deferred.collect(),
    }
}

/// Follows the object until the process ends. While it does not exist, the last that was known stays: a node keeps its
/// images when somebody deletes the object, and the operator makes it anew.
///
/// # Errors
/// [`WatchEnded`], after which the process should end too.
pub async fn follow(
    client: Client,
    node: &str,
    desired_images: watch::Sender<Option<Desired>>,
    latest: watch::Sender<Option<NodeImageCache>>,
) -> Result<(), WatchEnded> {
    let api: Api<NodeImageCache> = Api::all(client);
    let events = watcher::watch_object(api, node).default_backoff();
    pin_mut!(events);
    loop {
        match events.try_next().await {
            Ok(Some(Some(object))) => {
                let next = desired(object.meta().generation, &object.spec);
                desired_images.send_if_modified(|last| {
                    let changed = last.as_ref() != Some(&next);
                    *last = Some(next);
                    changed
                });
                latest.send_replace(Some(object));
            }
            Ok(Some(None)) => {
                tracing::info!(node, "there is no NodeImageCache for this node (yet)");
                latest.send_replace(None);
            }
            Ok(None) => return Err(WatchEnded(node.to_owned())),
            Err(error) => tracing::warn!(node, %error, "watching the NodeImageCache; trying again"),
        }
    }
}

/// Writes reports into the status: only what differs from what is there, and at most every two seconds, but for the end of
/// what was under way: others wait for that. Tells of what a status that was written changed, and of what the engine notices.
pub async fn write_status(
    client: Client,
    node: &str,
    mut reports: watch::Receiver<Report>,
    mut latest: watch::Receiver<Option<NodeImageCache>>,
    mut events: Events,
) {
    let api: Api<NodeImageCache> = Api::all(client);
    let mut pause = WRITE_INTERVAL;
    loop {
        let object = latest.borrow_and_update().clone();
        let report = reports.borrow_and_update().clone();
        let next = object.as_ref().and_then(|object| Some((object, changed_status(object, &report)?)));
        if let Some((object, next)) = next {
            match write(&api, node, &next).await {
                Ok(written) => {
                    pause = WRITE_INTERVAL;
                    events.tell_status(object, &next);
                    // The watch brings the same a moment later; until then this is the latest.
                    await_version(&mut latest, &written).await;
                    rest(pause, &report, &mut reports).await;
                }
                Err(error) => {
                    tracing::warn!(node, %error, "the status could not be written; trying again");
                    pause = (pause * 2).min(MAX_WRITE_PAUSE);
                    sleep(pause).await;
                }
            }
            continue;
        }
        let ended = tokio::select! {
            changed = reports.changed() => changed.is_err(),
            changed = latest.changed() => changed.is_err(),
            notices = events.noticed() => {
                events.tell_notices(object.as_ref(), &notices);
                false
            }
        };
        if ended {
            return;
        }
    }
}

/// The pause after `written` was written. It ends early when what that says is under way is over. After such an early write
/// nothing is under way, so that there is no more than one for each that is on time.
async fn rest(pause: Duration, written: &Report, reports: &mut watch::Receiver<Report>) {
    if written.is_settled() {
        sleep(pause).await;
    } else {
        let _ = timeout(pause, reports.wait_for(Report::is_settled)).await;
    }
}

/// The status to write, if it differs. Nothing is written before the engine has taken up a specification.
fn changed_status(object: &NodeImageCache, report: &Report) -> Option<NodeImageCacheStatus> {
    report.generation?;
    let next = status::status(report, object.status.as_ref(), Timestamp::now());
    (object.status.as_ref() != Some(&next)).then_some(next)
}

async fn write(
    api: &Api<NodeImageCache>,
    node: &str,
    status: &NodeImageCacheStatus,
) -> kube::Result<NodeImageCache> {
    let patch = json!({
        "apiVersion": NodeImageCache::api_version(&()),
        "kind": NodeImageCache::kind(&()),
        "metadata": {"name": node},
        "status": status,
    });
    api.patch_status(node, &PatchParams::apply(AGENT_FIELD_MANAGER).force(), &Patch::Apply(&patch)).await
}

/// Waits, for a short while, until the watch has caught up with our own write, so that it is not made twice.
async fn await_version(latest: &mut watch::Receiver<Option<NodeImageCache>>, written: &NodeImageCache) {
    let caught_up =
        latest.wait_for(|object| object.as_ref().is_none_or(|object| object.status == written.status));
    let _ = timeout(WRITE_INTERVAL, caught_up).await;
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use larder_oci::Digest;

    use super::*;
    use crate::engine::{ImageReport, State};

    fn report(states: &[State]) -> Report {
        let image =
            |state: &State| ImageReport { image: "a".to_owned(), platform: None, state: state.clone() };
        Report { generation: Some(1), images: states.iter().map(image).collect(), runtime: None }
    }

    #[tokio::test]
    async fn the_end_of_what_was_under_way_does_not_wait_and_nothing_else_hurries() {
        let ready = State::Ready { digest: Digest::sha256(b"a"), size: 1 };
        let pulling = |present| State::Pulling { present, total: 2 };
        let (begun, further) = (report(&[ready.clone(), pulling(0)]), report(&[ready.clone(), pulling(1)]));
        let done = report(&[ready.clone(), ready]);
        for (written, then, hurries) in
            [(&begun, &further, false), (&begun, &done, true), (&done, &done, false), (&done, &begun, false)]
        {
            let (sender, mut reports) = watch::channel(written.clone());
            sender.send_replace(then.clone());
            let rested = rest(WRITE_INTERVAL, written, &mut reports).now_or_never();
            assert_eq!(rested.is_some(), hurries, "{written:?} {then:?}");
        }
    }
}
