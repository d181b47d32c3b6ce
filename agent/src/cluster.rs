//! The node's own `NodeImageCache`: what it asks for goes to the engine, what the engine reports goes into its status.
//!
//! The agent watches this one object and no other, and writes nothing but its `/status`.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::{TryStreamExt, pin_mut};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use larder_crds::{
    AGENT_FIELD_MANAGER, ImageState, NodeImageCache, NodeImageCacheSpec, NodeImageCacheStatus,
    NodeImageStatus, NodeRemovalStatus, PullCount,
};
use larder_plan::object::is_older;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    engine::{Desired, DesiredImage, Report, State, all_names},
    events::Events,
    status,
    untold::Untold,
};

/// The shortest time between two writes of the status.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);
/// How long work may go on before a status tells that it has begun: where it is over by then, one write does for both. When
/// a thousand nodes are told something at the same time, it also spreads their writes.
const BEGIN_PAUSE: Duration = Duration::from_secs(1);
/// The longest, while all there is to tell is how far the pulls are, and the API server has time. That is worth less than what
/// it costs where a thousand nodes pull for minutes: each write is an object of tens of kilobytes, to the database and on to
/// the operator.
const MAX_PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// Where there is only progress to tell, the next pause is at least so many times what the API server took to answer, give or
/// take a quarter: one that takes seconds has no time for what can wait.
const BUSY_FACTOR: u32 = 20;
/// The longest pause for that reason, give or take a quarter.
const MAX_BUSY_INTERVAL: Duration = Duration::from_secs(120);
/// The longest pause after writes that failed.
const MAX_WRITE_PAUSE: Duration = Duration::from_secs(30);

/// What ended the watch: it never ends by itself.
#[derive(Debug, thiserror::Error)]
#[error("the watch of NodeImageCache {0} ended")]
pub struct WatchEnded(String);

/// The wanted images that a specification asks for.
#[must_use]
pub fn desired(generation: Option<i64>, spec: &NodeImageCacheSpec) -> Desired {
    let released = spec.released.iter().map(|image| (&image.image, &image.platform, &image.tags));
    let deferred = spec.deferred.iter().map(|image| (&image.image, &image.platform, &image.tags));
    let limit = spec.max_concurrent_downloads.and_then(|limit| usize::try_from(limit).ok());
    Desired {
        generation,
        images: spec.images.iter().map(DesiredImage::from).collect(),
        released: released
            .flat_map(|(image, platform, tags)| all_names(image, platform.as_deref(), tags))
            .collect(),
        deferred: deferred
            .flat_map(|(image, platform, tags)| all_names(image, platform.as_deref(), tags))
            .collect(),
        remove: spec.remove.clone(),
        removals_before: Vec::new(),
        disk_reserve: spec.disk_reserve.unwrap_or_default(),
        max_downloads: limit.filter(|&limit| limit > 0),
    }
}

/// What an earlier run of the agent has written down, and what cannot be found out otherwise. Each specification is given it:
/// the engine may never see the first.
#[derive(Default)]
struct Memory {
    /// When tags were last looked up, by name and platform.
    refreshed: HashMap<(String, Option<String>), Timestamp>,
    removals: Vec<NodeRemovalStatus>,
}

impl Memory {
    fn of(status: &NodeImageCacheStatus) -> Self {
        let images = status.images.iter();
        let refreshed = images.filter_map(|image| {
            Some(((image.image.clone(), image.platform.clone()), image.refresh_time.as_ref()?.0))
        });
        Self { refreshed: refreshed.collect(), removals: status.removals.clone() }
    }

    fn remind(&self, desired: &mut Desired) {
        desired.removals_before.clone_from(&self.removals);
        for image in desired.images.iter_mut().filter(|_| !self.refreshed.is_empty()) {
            let key = (image.image.clone(), image.platform.clone());
            image.refreshed = self.refreshed.get(&key).copied();
        }
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
    let mut memory = None;
    loop {
        match events.try_next().await {
            Ok(Some(Some(object))) => {
                let mut next = desired(object.meta().generation, &object.spec);
                let said = || object.status.as_ref().map(Memory::of).unwrap_or_default();
                memory.get_or_insert_with(said).remind(&mut next);
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
/// what was under way: others wait for that. Mere progress is written less and less often, and less so still where the API
/// server is busy. Tells of what a status that was written changed, and of what the engine notices.
pub async fn write_status(
    client: Client,
    node: &str,
    mut reports: watch::Receiver<Report>,
    mut latest: watch::Receiver<Option<NodeImageCache>>,
    mut events: Events,
) {
    let mut untold = Untold::default();
    let api: Api<NodeImageCache> = Api::all(client);
    let mut pause = WRITE_INTERVAL;
    let mut progress_pause = WRITE_INTERVAL;
    let mut has_waited = false;
    let mut answered = None;
    let mut base: Option<Base> = None;
    loop {
        let object = newest(latest.borrow_and_update().clone(), &mut answered);
        let mut report = reports.borrow_and_update().clone();
        if let Some(object) = &object {
            let base = base.get_or_insert_with(|| Base::of(object, PullCount::default()));
            if base.uid != object.uid() {
                // Made anew, it counts anew.
                *base = Base::of(object, report.pulls);
            }
            report.pulls = report.pulls.since(base.counted).plus(base.before);
        }
        let next = object.as_ref().and_then(|object| Some((object, changed_status(object, &report)?)));
        if let Some((object, next)) = next {
            if !has_waited && begins(object, &report) {
                let _ = timeout(spread(BEGIN_PAUSE), reports.wait_for(Report::is_settled)).await;
                has_waited = true;
                continue;
            }
            has_waited = false;
            let asked = Instant::now();
            let answer = write(&api, node, &next).await;
            let took = asked.elapsed();
            match answer {
                Ok(written) => {
                    pause = WRITE_INTERVAL;
                    if let Some(before) = untold.take(object, &next, report.is_settled(), Instant::now()) {
                        events.tell_status(&before, &next);
                    }
                    answered = Some(written);
                    let progress = longer_if_busy(progress_pause, took);
                    let rested = rest(spread(progress), &report, &mut reports).await;
                    progress_pause = next_pause(progress_pause, rested);
                }
                Err(error) => {
                    tracing::warn!(node, %error, "the status could not be written; trying again");
                    pause = (pause * 2).min(MAX_WRITE_PAUSE);
                    if is_overload(&error) {
                        progress_pause = MAX_PROGRESS_INTERVAL;
                    }
                    sleep(spread(pause)).await;
                }
            }
            continue;
        }
        has_waited = false;
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

/// The object as it is known last: as the watch has brought it, or as the API server answered to our last write. An API server
/// that is busy lets a watch lag by many seconds. What it shows of then must not be taken for how things stand: it would be
/// written over, and told of, again and again, and that just when the API server has no time.
fn newest(watched: Option<NodeImageCache>, answered: &mut Option<NodeImageCache>) -> Option<NodeImageCache> {
    let is_behind = |watched: &NodeImageCache, answer: &NodeImageCache| {
        let versions = (&watched.metadata.resource_version, &answer.metadata.resource_version);
        watched.uid() == answer.uid() && is_older(versions.0.as_deref(), versions.1.as_deref())
    };
    answered.take_if(|answer| watched.as_ref().is_none_or(|watched| !is_behind(watched, answer)));
    answered.clone().or(watched)
}

/// From where on pulls are counted into an object.
struct Base {
    uid: Option<String>,
    /// What agents that ran before this one have fetched.
    before: PullCount,
    /// What this one had fetched then, for an object that is gone.
    counted: PullCount,
}

impl Base {
    fn of(object: &NodeImageCache, counted: PullCount) -> Self {
        let before = object.status.as_ref().and_then(|status| status.pulls).unwrap_or_default();
        Self { uid: object.uid(), before, counted }
    }
}

/// Whether a report tells of work, and the status that there is of none.
fn begins(object: &NodeImageCache, report: &Report) -> bool {
    let is_over = |image: &NodeImageStatus| {
        matches!(image.state, ImageState::Ready | ImageState::Failed | ImageState::InUse)
    };
    !report.is_settled() && object.status.iter().flat_map(|status| &status.images).all(is_over)
}

/// What there is to tell after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rested {
    /// At most how far the pulls are.
    InProgress,
    /// More, or nothing is under way.
    WithNews,
}

/// The pause after `written` was written: `progress_pause`, or the usual one where nothing is under way. It ends early when
/// what that says is under way is over, and, from the usual one on, when there is more to tell than progress. After such
/// an early write nothing is under way, so that there is no more than one for each that is on time.
async fn rest(progress_pause: Duration, written: &Report, reports: &mut watch::Receiver<Report>) -> Rested {
    if written.is_settled() {
        sleep(WRITE_INTERVAL).await;
        return Rested::WithNews;
    }
    if timeout(WRITE_INTERVAL, reports.wait_for(Report::is_settled)).await.is_ok() {
        return Rested::WithNews;
    }
    let rest = progress_pause.saturating_sub(WRITE_INTERVAL);
    match timeout(rest, reports.wait_for(|report| report.is_settled() || is_news(written, report))).await {
        Ok(_) => Rested::WithNews,
        Err(_) => Rested::InProgress,
    }
}

/// The next pause while there is only progress to tell.
fn next_pause(last: Duration, rested: Rested) -> Duration {
    match rested {
        Rested::InProgress => (last * 2).min(MAX_PROGRESS_INTERVAL),
        Rested::WithNews => WRITE_INTERVAL,
    }
}

/// The pause after a write that took so long.
fn longer_if_busy(pause: Duration, took: Duration) -> Duration {
    pause.max((took * BUSY_FACTOR).min(MAX_BUSY_INTERVAL))
}

/// Whether the API server has turned a write away because it has more than it can take, or did not come to it in time.
fn is_overload(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 429 || status.code >= 500)
}

/// Whether a report tells more than that pulls have come further: another specification is taken up, or more has failed.
fn is_news(written: &Report, report: &Report) -> bool {
    let failed = |report: &Report| {
        report.images.iter().filter(|image| matches!(image.state, State::Failed { .. })).count()
    };
    written.generation != report.generation || failed(report) > failed(written)
}

/// A pause within a quarter of this: a thousand agents that were told at the same time must not go on to write at the same
/// time.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 2.0)
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use larder_oci::Digest;

    use super::*;
    use crate::engine::ImageReport;

    fn report(states: &[State]) -> Report {
        let image = |state: &State| ImageReport::new("a", None, state.clone());
        Report { generation: Some(1), images: states.iter().map(image).collect(), ..Report::default() }
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
            assert_eq!(rested, hurries.then_some(Rested::WithNews), "{written:?} {then:?}");
        }
    }

    #[test]
    fn a_watch_that_lags_behind_our_own_writes_brings_no_news() {
        let object = |uid: &str, version: &str| {
            let mut object = NodeImageCache::new("node", NodeImageCacheSpec::default());
            object.metadata.uid = Some(uid.to_owned());
            object.metadata.resource_version = Some(version.to_owned());
            object
        };
        for (watched, answer, expected) in [
            (Some(object("a", "9")), Some(object("a", "10")), Some("10")),
            (Some(object("a", "10")), Some(object("a", "10")), Some("10")),
            (Some(object("a", "11")), Some(object("a", "10")), Some("11")),
            (Some(object("b", "9")), Some(object("a", "10")), Some("9")),
            (Some(object("a", "9")), None, Some("9")),
            (None, Some(object("a", "10")), None),
        ] {
            let mut answered = answer;
            let found = newest(watched, &mut answered);
            assert_eq!(found.and_then(|found| found.resource_version()).as_deref(), expected);
            assert!(answered.is_none_or(|answer| answer.resource_version().as_deref() == expected));
        }
    }

    #[test]
    fn work_begins_where_none_was_under_way() {
        let image = |state: &&str| {
            let json = json!({"image": "a", "state": state});
            serde_json::from_value::<NodeImageStatus>(json).unwrap()
        };
        let object = |states: &[&str]| {
            let images = states.iter().map(image).collect();
            let mut object = NodeImageCache::new("node", NodeImageCacheSpec::default());
            object.status = Some(NodeImageCacheStatus { images, ..NodeImageCacheStatus::default() });
            object
        };
        let (working, done) =
            (report(&[State::Pending]), report(&[State::Ready { digest: Digest::sha256(b"a"), size: 1 }]));
        assert!(begins(&NodeImageCache::new("node", NodeImageCacheSpec::default()), &working));
        assert!(begins(&object(&["Ready", "Failed"]), &working));
        assert!(!begins(&object(&["Ready", "Pulling"]), &working));
        assert!(!begins(&object(&["Ready"]), &done));
    }

    #[test]
    fn progress_is_no_news_and_failures_and_specifications_are() {
        let pulling = |present| State::Pulling { present, total: 2 };
        let ready = State::Ready { digest: Digest::sha256(b"a"), size: 1 };
        let reason = larder_crds::FailureReason::NotFound;
        let failed = State::Failed { reason, message: "not there".to_owned(), retry_time: None };
        let written = report(&[pulling(0), State::Pending, State::Pending]);
        assert!(!is_news(&written, &report(&[ready.clone(), pulling(1), State::Pending])));
        let broken = report(&[failed.clone(), pulling(1), State::Pending]);
        assert!(is_news(&written, &broken));
        assert!(!is_news(&broken, &broken));
        assert!(!is_news(&broken, &written), "it is tried again");
        assert!(is_news(&broken, &report(&[failed.clone(), failed, State::Pending])));
        assert!(is_news(&written, &Report { generation: Some(2), ..written.clone() }));
    }

    #[test]
    fn pauses_grow_while_there_is_only_progress() {
        let mut pause = WRITE_INTERVAL;
        let mut seconds = Vec::new();
        for rested in [Rested::InProgress; 5].into_iter().chain([Rested::WithNews]) {
            pause = next_pause(pause, rested);
            seconds.push(pause.as_secs());
        }
        assert_eq!(seconds, [4, 8, 16, 30, 30, 2]);
    }

    #[test]
    fn an_api_server_that_is_slow_is_told_less_often() {
        for (pause, took, expected) in
            [(2, 20, 2_000), (2, 500, 10_000), (30, 500, 30_000), (30, 3_000, 60_000), (2, 40_000, 120_000)]
        {
            let found = longer_if_busy(Duration::from_secs(pause), Duration::from_millis(took));
            assert_eq!(found, Duration::from_millis(expected), "{pause} s, {took} ms");
        }
    }

    #[test]
    fn pauses_are_spread() {
        let pauses: Vec<_> = (0..100).map(|_| spread(WRITE_INTERVAL)).collect();
        assert!(pauses.iter().all(|pause| (1_500..=2_500).contains(&pause.as_millis())), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
