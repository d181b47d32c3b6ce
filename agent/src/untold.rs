//! When a status that was written is told of, in events.

use std::time::{Duration, Instant};

use kube::ResourceExt;
use larder_crds::{ImageState, NodeImageCache, NodeImageCacheStatus, NodeImageStatus};

/// How long what went well may wait to be told, for more that does. Images that arrive together are told of together: where a
/// status is written for each one, one event tells as much as thirty, and costs a thousandth of what these do on a thousand
/// nodes.
const TELL_INTERVAL: Duration = Duration::from_secs(300);

/// What has been written and not been told.
#[derive(Debug, Default)]
pub(crate) struct Untold(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// The object as it was told of last.
    before: NodeImageCache,
}

impl Untold {
    /// `next` has replaced the status of `object`. What it is to be compared with, if it is told of now: what went wrong at
    /// once, and what went well when work is over.
    pub(crate) fn take(
        &mut self,
        object: &NodeImageCache,
        next: &NodeImageCacheStatus,
        is_over: bool,
        now: Instant,
    ) -> Option<NodeImageCache> {
        let waiting = self.0.take().filter(|waiting| waiting.before.uid() == object.uid());
        let waiting = waiting.unwrap_or_else(|| Waiting { since: now, before: object.clone() });
        let went_wrong = troubles(Some(next)) > troubles(waiting.before.status.as_ref());
        if is_over || went_wrong || now.duration_since(waiting.since) >= TELL_INTERVAL {
            return Some(waiting.before);
        }
        self.0 = Some(waiting);
        None
    }
}

/// How many images failed, or cannot go.
fn troubles(status: Option<&NodeImageCacheStatus>) -> usize {
    let is_trouble = |image: &&NodeImageStatus| matches!(image.state, ImageState::Failed | ImageState::InUse);
    status.into_iter().flat_map(|status| &status.images).filter(is_trouble).count()
}

#[cfg(test)]
mod tests {
    use larder_crds::NodeImageCacheSpec;

    use super::*;

    fn status(states: &[ImageState]) -> NodeImageCacheStatus {
        let images = states.iter().map(|&state| NodeImageStatus::new("a", None, state)).collect();
        NodeImageCacheStatus { images, ..NodeImageCacheStatus::default() }
    }

    fn object(uid: &str, states: &[ImageState]) -> NodeImageCache {
        let mut object = NodeImageCache::new("node", NodeImageCacheSpec::default());
        object.metadata.uid = Some(uid.to_owned());
        object.status = Some(status(states));
        object
    }

    const READY: ImageState = ImageState::Ready;
    const PULLING: ImageState = ImageState::Pulling;

    #[test]
    fn what_went_well_is_told_together() {
        let first = object("a", &[PULLING, PULLING, PULLING]);
        let (mut untold, now) = (Untold::default(), Instant::now());
        assert_eq!(untold.take(&first, &status(&[READY, PULLING, PULLING]), false, now), None);
        let second = object("a", &[READY, PULLING, PULLING]);
        assert_eq!(untold.take(&second, &status(&[READY, READY, PULLING]), false, now), None);
        let third = object("a", &[READY, READY, PULLING]);
        assert_eq!(untold.take(&third, &status(&[READY; 3]), true, now), Some(first), "since the beginning");
        let done = object("a", &[READY; 3]);
        assert_eq!(untold.take(&done, &status(&[READY; 3]), true, now), Some(done), "and nothing twice");
    }

    #[test]
    fn long_work_and_failures_do_not_wait() {
        let first = object("a", &[PULLING, PULLING]);
        let (mut untold, now) = (Untold::default(), Instant::now());
        assert_eq!(untold.take(&first, &status(&[READY, PULLING]), false, now), None);
        let now = now + TELL_INTERVAL;
        let second = object("a", &[READY, PULLING]);
        assert_eq!(untold.take(&second, &status(&[READY, PULLING]), false, now), Some(first));
        assert_eq!(
            untold.take(&second, &status(&[READY, ImageState::Failed]), false, now),
            Some(second.clone())
        );
        let failed = object("a", &[READY, ImageState::Failed]);
        assert_eq!(
            untold.take(&failed, &status(&[READY, ImageState::Failed]), false, now),
            None,
            "it is known"
        );
    }

    /// Nothing is told of an object that is not there any more.
    #[test]
    fn a_new_object_begins_anew() {
        let (mut untold, now) = (Untold::default(), Instant::now());
        assert_eq!(untold.take(&object("a", &[PULLING]), &status(&[PULLING]), false, now), None);
        let new = object("b", &[PULLING]);
        assert_eq!(untold.take(&new, &status(&[READY]), true, now), Some(new));
    }
}
