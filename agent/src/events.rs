//! Events about the node's `NodeImageCache`: what `kubectl describe` shows.
//!
//! Decided from the status that the API server has and the one that has replaced it, so that an agent that was restarted
//! tells nothing anew; and from the engine's [`Notice`]s. Many at once are told as one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource, ResourceExt,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use larder_crds::{
    AGENT_FIELD_MANAGER, FailureReason, ImageState, NodeImageCache, NodeImageCacheStatus, NodeImageStatus,
};
use larder_oci::{ImageKey, Platform};
use larder_plan::condition;
use tokio::{sync::mpsc, time::timeout};

use crate::engine::Notice;

/// Events that wait to be written. More are dropped: they would come too late to tell anybody anything.
const QUEUE: usize = 64;
/// From how many of a kind on they are told as one.
const MANY: usize = 5;
/// How many images such an event names.
const NAMED: usize = 3;
/// The longest time that writing one may take. The next ones wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An image has become ready.
    ImageReady,
    /// An image failed.
    ImageFailed,
    /// A tag stands for another image in its registry than the node holds.
    TagMoved,
    /// An image that somebody had removed is back.
    ImageRestored,
    /// An image that nobody wants stays, since containers use it.
    ImageInUse,
    /// An image that nobody wants is gone.
    ImageRemoved,
    /// Images are gone since a rule takes them away.
    RemovedByRule,
    /// The container runtime does not answer.
    RuntimeUnavailable,
    /// It answers again.
    RuntimeBack,
}

impl Kind {
    /// The event's reason.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageReady => "ImageReady",
            Self::ImageFailed => "ImageFailed",
            Self::TagMoved => "TagMoved",
            Self::ImageRestored => "ImageRestored",
            Self::ImageInUse => "ImageInUse",
            Self::ImageRemoved => "ImageRemoved",
            Self::RemovedByRule => "RemovedByRule",
            Self::RuntimeUnavailable => "RuntimeUnavailable",
            Self::RuntimeBack => "RuntimeBack",
        }
    }

    fn is_warning(self) -> bool {
        matches!(self, Self::ImageFailed | Self::RuntimeUnavailable)
    }

    /// How many images are told of as one.
    fn of_many(self) -> &'static str {
        match self {
            Self::ImageReady => "images are ready",
            Self::ImageFailed => "images failed",
            Self::TagMoved => "tags have moved in their registries",
            Self::ImageRestored => "images are back that somebody had removed",
            Self::ImageInUse => "images are not wanted any more and still in use",
            Self::ImageRemoved => "images are gone, since no ImageCache wants them",
            Self::RemovedByRule => "rules have taken images away",
            Self::RuntimeUnavailable | Self::RuntimeBack => "messages",
        }
    }
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it is.
    pub kind: Kind,
    /// The image that it is about, unless it is about several, or none.
    pub image: Option<String>,
    /// Of a failure, why: the same image failing for another reason is told anew.
    pub action: &'static str,
    /// The sentence.
    pub note: String,
}

impl Told {
    fn image(kind: Kind, image: &str, note: String) -> Self {
        Self { kind, image: Some(image.to_owned()), action: kind.as_str(), note }
    }
}

/// What replacing the status `previous` by `next` is worth telling. Images in `restored` have been told of.
#[must_use]
pub fn transitions(
    previous: Option<&NodeImageCacheStatus>,
    next: &NodeImageCacheStatus,
    restored: &BTreeSet<String>,
) -> Vec<Told> {
    let before: BTreeMap<String, &NodeImageStatus> =
        previous.into_iter().flat_map(|status| &status.images).map(|image| (label(image), image)).collect();
    let mut told: Vec<Told> = next
        .images
        .iter()
        .flat_map(|image| {
            let label = label(image);
            let before = before.get(&label).copied();
            let moved = moved(before, image, &label);
            moved.into_iter().chain(transition(before, image, &label, restored.contains(&label)))
        })
        .collect();
    let was_away = previous.is_some_and(|status| status.images.iter().any(is_runtime_away));
    match next.images.iter().find(|image| is_runtime_away(image)) {
        Some(image) if !was_away => {
            let note = image.message.clone().unwrap_or_default();
            let kind = Kind::RuntimeUnavailable;
            told.push(Told { kind, image: None, action: kind.as_str(), note });
        }
        None if was_away && next.images.iter().any(|image| image.state != ImageState::InUse) => {
            let note = "the container runtime answers again".to_owned();
            let kind = Kind::RuntimeBack;
            told.push(Told { kind, image: None, action: kind.as_str(), note });
        }
        _ => {}
    }
    told
}

fn transition(
    before: Option<&NodeImageStatus>,
    image: &NodeImageStatus,
    label: &str,
    is_restored: bool,
) -> Option<Told> {
    let was = |state| before.is_some_and(|before| before.state == state);
    let is_same = || before.is_some_and(|before| before.digest == image.digest);
    match image.state {
        // One that is being saved is ready for pods.
        ImageState::Ready | ImageState::Saving if is_restored || before.is_some_and(is_runtime_away) => None,
        ImageState::Ready | ImageState::Saving
            if (was(ImageState::Ready) || was(ImageState::Saving)) && is_same() =>
        {
            None
        }
        ImageState::Ready | ImageState::Saving => {
            let digest = image.digest.as_deref().unwrap_or("its digest is not known");
            Some(Told::image(Kind::ImageReady, label, format!("{label} is ready ({digest})")))
        }
        ImageState::Failed if is_runtime_away(image) => None,
        ImageState::Failed => {
            let reason = image.reason.unwrap_or(FailureReason::Unknown);
            let same = was(ImageState::Failed) && before.is_some_and(|before| before.reason == image.reason);
            let note = failure_note(image, label, reason);
            (!same).then(|| Told { action: reason.as_str(), ..Told::image(Kind::ImageFailed, label, note) })
        }
        ImageState::InUse if !was(ImageState::InUse) => {
            let message = image.message.as_deref().unwrap_or("containers use it");
            let note = format!("{label} is not wanted any more: {message}");
            Some(Told::image(Kind::ImageInUse, label, note))
        }
        ImageState::InUse
        | ImageState::Pending
        | ImageState::Pulling
        | ImageState::Delivering
        | ImageState::Unknown => None,
    }
}

/// That a tag has moved is told when it is found out.
fn moved(before: Option<&NodeImageStatus>, image: &NodeImageStatus, label: &str) -> Option<Told> {
    let (held, found) = (image.digest.as_deref()?, image.new_digest.as_deref()?);
    let is_news = before.and_then(|before| before.new_digest.as_deref()) != Some(found);
    let note = format!("{label} stands for {found} in its registry now; the node holds {held}");
    is_news.then(|| Told::image(Kind::TagMoved, label, note))
}

/// Why an image failed. It is named once: most messages do that.
fn failure_note(image: &NodeImageStatus, label: &str, reason: FailureReason) -> String {
    let message = image.message.as_deref().unwrap_or_default();
    if message.contains(&image.image) {
        format!("{}: {message}", reason.as_str())
    } else {
        format!("{}: {label}: {message}", reason.as_str())
    }
}

fn is_runtime_away(image: &NodeImageStatus) -> bool {
    image.state == ImageState::Failed && image.reason == Some(FailureReason::RuntimeUnavailable)
}

/// What an image is called in an event: without the platform if that is the node's own.
fn label(image: &NodeImageStatus) -> String {
    let platform = image.platform.as_ref().filter(|platform| **platform != Platform::host().to_string());
    platform.map_or_else(|| image.image.clone(), |platform| format!("{} ({platform})", image.image))
}

fn label_of_key(key: &ImageKey) -> String {
    if key.platform == Platform::host() { key.name.to_string() } else { key.to_string() }
}

fn notice(notice: &Notice) -> Told {
    match notice {
        Notice::Restored(key) => {
            let label = label_of_key(key);
            let note = format!("{label} is back: somebody had removed it");
            Told::image(Kind::ImageRestored, &label, note)
        }
        Notice::Removed(key) => {
            let label = label_of_key(key);
            let note = format!("{label} is gone: no ImageCache wants it");
            Told::image(Kind::ImageRemoved, &label, note)
        }
        Notice::RemovedByRule { cache, rule, images } => {
            let what = if images.len() == 1 {
                "1 image is".to_owned()
            } else {
                format!("{} images are", images.len())
            };
            let named = images.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = images.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let note = format!("{what} gone by ImageCache {cache}'s rule {rule}: {named}{more}");
            let kind = Kind::RemovedByRule;
            // Else the next ones would count as the same event again, and not be told.
            let first = images.first().cloned();
            Told { kind, image: first, action: kind.as_str(), note }
        }
    }
}

/// Tells many of a kind as one.
fn together(told: Vec<Told>) -> Vec<Told> {
    let mut kinds: BTreeMap<Kind, Vec<Told>> = BTreeMap::new();
    for one in told {
        kinds.entry(one.kind).or_default().push(one);
    }
    let merged = kinds.into_iter().flat_map(|(kind, all)| {
        if all.len() < MANY {
            return all;
        }
        let names: Vec<&str> = all.iter().filter_map(|one| one.image.as_deref()).take(NAMED).collect();
        let note = format!(
            "{} {}: {} and {} more",
            all.len(),
            kind.of_many(),
            names.join(", "),
            all.len() - names.len()
        );
        vec![Told { kind, image: None, action: kind.as_str(), note }]
    });
    merged.collect()
}

/// Where the agent tells what happened.
pub struct Events {
    queue: mpsc::Sender<(ObjectReference, Told)>,
    notices: mpsc::UnboundedReceiver<Notice>,
    /// Images that have been told of as restored, and whose becoming ready is therefore no news.
    restored: BTreeSet<String>,
}

impl Events {
    /// A place to tell events, with the engine's notices, and what writes them.
    #[must_use]
    pub fn new(client: Client, node: &str, notices: mpsc::UnboundedReceiver<Notice>) -> (Self, Publisher) {
        let (queue, told) = mpsc::channel(QUEUE);
        let reporter =
            Reporter { controller: AGENT_FIELD_MANAGER.to_owned(), instance: Some(node.to_owned()) };
        let publisher = Publisher { told, recorder: Recorder::new(client, reporter) };
        (Self { queue, notices, restored: BTreeSet::new() }, publisher)
    }

    /// Waits for a notice.
    pub(crate) async fn noticed(&mut self) -> Vec<Notice> {
        match self.notices.recv().await {
            Some(first) => {
                let mut all = vec![first];
                while let Ok(next) = self.notices.try_recv() {
                    all.push(next);
                }
                all
            }
            // The engine has ended, and with it the program.
            None => std::future::pending().await,
        }
    }

    /// Tells of notices, about this object.
    pub(crate) fn tell_notices(&mut self, object: Option<&NodeImageCache>, notices: &[Notice]) {
        self.restored.extend(notices.iter().filter_map(|notice| match notice {
            Notice::Restored(key) => Some(label_of_key(key)),
            Notice::Removed(_) | Notice::RemovedByRule { .. } => None,
        }));
        if let Some(object) = object {
            self.send(object, notices.iter().map(notice).collect());
        }
    }

    /// Tells of a status that has replaced that of `object`.
    pub(crate) fn tell_status(&mut self, object: &NodeImageCache, next: &NodeImageCacheStatus) {
        let mut notices = Vec::new();
        while let Ok(notice) = self.notices.try_recv() {
            notices.push(notice);
        }
        self.tell_notices(Some(object), &notices);
        self.send(object, transitions(object.status.as_ref(), next, &self.restored));
        let is_ready = |image: &NodeImageStatus| image.state == ImageState::Ready;
        let settled: BTreeSet<_> = next.images.iter().filter(|image| is_ready(image)).map(label).collect();
        self.restored.retain(|image| !settled.contains(image));
    }

    fn send(&self, object: &NodeImageCache, told: Vec<Told>) {
        for one in together(told) {
            let reference = reference(object, &one);
            if self.queue.try_send((reference, one)).is_err() {
                tracing::debug!("event dropped: too many wait to be written");
            }
        }
    }
}

/// No resource version: with one, the recorder would take every event for the first of its kind.
fn reference(object: &NodeImageCache, told: &Told) -> ObjectReference {
    let list = if told.kind == Kind::RemovedByRule { "remove" } else { "images" };
    ObjectReference {
        api_version: Some(NodeImageCache::api_version(&()).into_owned()),
        kind: Some(NodeImageCache::kind(&()).into_owned()),
        name: Some(object.name_any()),
        uid: object.uid(),
        // As kubelet names a container of a pod; the recorder counts by it.
        field_path: told.image.as_ref().map(|image| format!("spec.{list}{{{image}}}")),
        ..ObjectReference::default()
    }
}

/// Writes events. One that is refused is a line in the log: the work has been done.
pub struct Publisher {
    told: mpsc::Receiver<(ObjectReference, Told)>,
    recorder: Recorder,
}

impl Publisher {
    /// Runs until nobody tells anything any more.
    pub async fn run(mut self) {
        while let Some((reference, told)) = self.told.recv().await {
            let event = Event {
                type_: if told.kind.is_warning() { EventType::Warning } else { EventType::Normal },
                reason: told.kind.as_str().to_owned(),
                note: Some(condition::shorten(&told.note)),
                action: told.action.to_owned(),
                secondary: None,
            };
            match timeout(PATIENCE, self.recorder.publish(&event, &reference)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(reason = event.reason, %error, "event not written"),
                Err(_) => tracing::debug!(reason = event.reason, "event not written: no answer"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, state: ImageState, reason: Option<FailureReason>) -> NodeImageStatus {
        NodeImageStatus {
            digest: Some("sha256:1".to_owned()),
            reason,
            message: Some("…".to_owned()),
            ..NodeImageStatus::new(name, None, state)
        }
    }

    fn status(images: &[(&str, ImageState)]) -> NodeImageCacheStatus {
        let images = images.iter().map(|&(name, state)| {
            let reason = (state == ImageState::Failed).then_some(FailureReason::NotFound);
            image(name, state, reason)
        });
        NodeImageCacheStatus { images: images.collect(), ..NodeImageCacheStatus::default() }
    }

    fn away() -> NodeImageCacheStatus {
        let images = ["a", "b"]
            .map(|name| image(name, ImageState::Failed, Some(FailureReason::RuntimeUnavailable)))
            .to_vec();
        NodeImageCacheStatus { images, ..NodeImageCacheStatus::default() }
    }

    fn told(previous: Option<&NodeImageCacheStatus>, next: &NodeImageCacheStatus) -> Vec<&'static str> {
        let told = transitions(previous, next, &BTreeSet::new());
        told.iter().map(|told| told.kind.as_str()).collect()
    }

    #[test]
    fn each_change_is_told_once_and_what_stays_never() {
        use ImageState::{Delivering, Failed, InUse, Pending, Pulling, Ready, Saving};
        for (before, after, expected) in [
            (Pending, Pulling, &[] as &[&str]),
            (Pulling, Delivering, &[]),
            (Delivering, Ready, &["ImageReady"]),
            (Ready, Ready, &[]),
            (Ready, Delivering, &[]),
            (Pulling, Failed, &["ImageFailed"]),
            (Failed, Failed, &[]),
            (Failed, Ready, &["ImageReady"]),
            (Delivering, Saving, &["ImageReady"]),
            (Saving, Ready, &[]),
            (Ready, Saving, &[]),
            (Ready, InUse, &["ImageInUse"]),
            (InUse, InUse, &[]),
        ] {
            let (before, after) = (status(&[("a", before)]), status(&[("a", after)]));
            assert_eq!(told(Some(&before), &after), expected, "{before:?} → {after:?}");
        }
        assert_eq!(told(None, &status(&[("a", Ready)])), ["ImageReady"], "a node's first");
        let other = NodeImageCacheStatus {
            images: vec![image("a", Failed, Some(FailureReason::Unauthorized))],
            ..NodeImageCacheStatus::default()
        };
        assert_eq!(told(Some(&status(&[("a", Failed)])), &other), ["ImageFailed"], "for another reason");
    }

    #[test]
    fn a_tag_that_moves_is_told_and_so_is_what_it_brings() {
        let ready = |digest: &str, new: Option<&str>| NodeImageCacheStatus {
            images: vec![NodeImageStatus {
                digest: Some(digest.to_owned()),
                new_digest: new.map(str::to_owned),
                ..NodeImageStatus::new("a", None, ImageState::Ready)
            }],
            ..NodeImageCacheStatus::default()
        };
        let (old, moved, new) = (ready("1", None), ready("1", Some("2")), ready("2", None));
        assert_eq!(told(Some(&old), &moved), ["TagMoved"]);
        assert_eq!(told(Some(&moved), &moved), [] as [&str; 0]);
        assert_eq!(told(Some(&moved), &ready("1", Some("3"))), ["TagMoved"]);
        assert_eq!(told(Some(&moved), &new), ["ImageReady"]);
    }

    #[test]
    fn a_failure_names_the_image_once() {
        let note = |message: &str| {
            let mut failed = image("r.corp/app:v1", ImageState::Failed, Some(FailureReason::NotFound));
            failed.message = Some(message.to_owned());
            let next = NodeImageCacheStatus { images: vec![failed], ..NodeImageCacheStatus::default() };
            transitions(None, &next, &BTreeSet::new()).remove(0).note
        };
        assert_eq!(note("r.corp/app:v1 is not there"), "NotFound: r.corp/app:v1 is not there");
        assert_eq!(note("no space left"), "NotFound: r.corp/app:v1: no space left");
    }

    #[test]
    fn what_was_restored_is_not_ready_anew() {
        let (before, after) = (status(&[("a", ImageState::Delivering)]), status(&[("a", ImageState::Ready)]));
        assert!(transitions(Some(&before), &after, &BTreeSet::from(["a".to_owned()])).is_empty());
    }

    #[test]
    fn a_runtime_that_goes_is_one_event_and_not_one_an_image() {
        let ready = status(&[("a", ImageState::Ready), ("b", ImageState::Ready)]);
        assert_eq!(told(Some(&ready), &away()), ["RuntimeUnavailable"]);
        assert_eq!(told(Some(&away()), &away()), [] as [&str; 0]);
        assert_eq!(told(Some(&away()), &ready), ["RuntimeBack"]);
    }

    #[test]
    fn what_a_rule_took_is_one_event() {
        let told = |count: usize| {
            let images = (0..count).map(|number| format!("app:{number}")).collect();
            notice(&Notice::RemovedByRule { cache: "clean".to_owned(), rule: "app:*".to_owned(), images })
        };
        assert_eq!(told(1).note, "1 image is gone by ImageCache clean's rule app:*: app:0");
        assert_eq!(
            told(12).note,
            "12 images are gone by ImageCache clean's rule app:*: app:0, app:1, app:2 and 9 more"
        );
        assert_eq!(told(2).image.as_deref(), Some("app:0"), "the next one is another event");
    }

    #[test]
    fn many_are_told_as_one() {
        let names: Vec<String> = (0..40).map(|number| format!("app:{number:02}")).collect();
        let images: Vec<_> = names.iter().map(|name| (name.as_str(), ImageState::Ready)).collect();
        let told = together(transitions(None, &status(&images), &BTreeSet::new()));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].note, "40 images are ready: app:00, app:01, app:02 and 37 more");
        let few = together(transitions(None, &status(&images[..MANY - 1]), &BTreeSet::new()));
        assert_eq!(few.len(), MANY - 1);
    }
}
