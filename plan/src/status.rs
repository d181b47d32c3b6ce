//! All node statuses → one status, of a size that does not depend on the number of nodes.

use jiff::Timestamp;
use larder_crds::{
    ByteCount, ImageCacheStatus, ImageFailure, ImageState, ImageSummary, MAX_FAILURES, NodeCounts,
    NodeImageStatus, StatusSummary,
};

use crate::{
    condition,
    index::{Cache, Node, NodeCache, State},
    removal_status,
    rollout::{Pace, Standing},
    validate::{ValidCache, WantedImage},
    verdict::{self, Picture},
};

/// The status of a cache over the nodes that it selects, given in order of name.
pub(crate) fn fold<'a>(
    name: &str,
    cache: &Cache,
    nodes: impl Iterator<Item = (&'a str, &'a Node, Option<&'a NodeCache>)>,
    now: Timestamp,
) -> ImageCacheStatus {
    let conditions = |verdicts| condition::next(&cache.status.conditions, verdicts, cache.generation, now);
    let valid = match &cache.state {
        State::Valid(valid) => valid,
        State::Broken(why) => {
            return ImageCacheStatus {
                observed_generation: cache.generation,
                conditions: conditions(verdict::invalid(why)),
                ..Default::default()
            };
        }
    };
    let mut tally = Tally::new(valid);
    let mut removals = removal_status::Tally::new(name, valid.removals());
    for (node_name, node, held) in nodes {
        let is_waiting = || {
            let standing = || Standing::new(name, cache, valid, node, held);
            valid.pace() != Pace::AllAtOnce && standing().needs_turn
        };
        tally.add(node_name, node.is_available, held, is_waiting);
        removals.add(held);
    }
    let bytes = tally.bytes();
    let mut picture = Picture {
        counts: tally.counts,
        images: valid.images().len(),
        has_selector: valid.has_selector(),
        is_paused: valid.pace() == Pace::Paused,
        without_agent: tally.without_agent,
        is_fetching: tally.is_fetching,
        needs_person: tally.needs_person,
        first_failure: tally.failures.first(),
        progress: String::new(),
    };
    picture.progress = condition::progress(bytes.present, bytes.total, picture.is_done());
    let verdicts = verdict::verdicts(&picture);
    let summary = StatusSummary {
        nodes: format!("{}/{}", tally.counts.ready, tally.counts.selected),
        progress: picture.progress,
    };
    ImageCacheStatus {
        observed_generation: cache.generation,
        conditions: conditions(verdicts),
        nodes: Some(tally.counts),
        images: tally.images.iter().map(ImageTally::summary).collect(),
        failures_total: Some(tally.failures_total),
        failures: tally.failures,
        bytes: Some(bytes),
        removals: removals.summaries(),
        summary: Some(summary),
    }
}

/// What has been counted so far.
struct Tally<'a> {
    counts: NodeCounts,
    images: Vec<ImageTally<'a>>,
    without_agent: i32,
    /// A node on which an image failed is still fetching another.
    is_fetching: bool,
    /// Every failure is one that only a person mends.
    needs_person: bool,
    failures: Vec<ImageFailure>,
    failures_total: i32,
}

impl<'a> Tally<'a> {
    fn new(valid: &'a ValidCache) -> Self {
        Self {
            counts: NodeCounts::default(),
            images: valid.images().iter().map(ImageTally::new).collect(),
            without_agent: 0,
            is_fetching: false,
            needs_person: true,
            failures: Vec::new(),
            failures_total: 0,
        }
    }

    fn add(
        &mut self,
        node: &str,
        is_available: bool,
        node_cache: Option<&'a NodeCache>,
        is_waiting: impl FnOnce() -> bool,
    ) {
        let standing = |image: &WantedImage| node_cache.and_then(|held| held.standing(&image.target));
        let states = self.images.iter().map(|image| standing(image.wanted).map(|found| found.state));
        let ready = states.filter(|state| *state == Some(ImageState::Ready)).count();
        self.counts.selected += 1;
        if ready < self.images.len() && !is_available {
            // What failed there may have done so long ago.
            for image in &mut self.images {
                image.add(standing(image.wanted).filter(|found| found.state != ImageState::Failed));
            }
            self.counts.unavailable += 1;
            return;
        }
        let mut failures = Vec::new();
        let mut is_fetching = false;
        for image in &mut self.images {
            let standing = standing(image.wanted);
            image.add(standing);
            is_fetching |= standing.is_some_and(|standing| {
                matches!(
                    standing.state,
                    ImageState::Pending | ImageState::Pulling | ImageState::Delivering | ImageState::Saving
                )
            });
            let failed = standing.filter(|standing| standing.state == ImageState::Failed);
            failures.extend(failed.map(|standing| (image.wanted, standing)));
        }
        let has_agent = node_cache.is_some_and(|node_cache| node_cache.has_agent);
        if ready == self.images.len() {
            self.counts.ready += 1;
        } else if !failures.is_empty() {
            self.counts.failed += 1;
            self.is_fetching |= is_fetching;
        } else if has_agent && is_waiting() {
            self.counts.waiting += 1;
        } else {
            // `InUse` too: its agent has not yet heard that the image is wanted again.
            self.counts.progressing += 1;
            self.without_agent += i32::from(!has_agent);
        }
        self.note(node, failures);
    }

    fn note(&mut self, node: &str, mut failures: Vec<(&WantedImage, &NodeImageStatus)>) {
        self.failures_total =
            self.failures_total.saturating_add(i32::try_from(failures.len()).unwrap_or(i32::MAX));
        self.needs_person &= failures
            .iter()
            .all(|(_, standing)| standing.reason.is_some_and(larder_crds::FailureReason::needs_person));
        failures.sort_by(|(a, _), (b, _)| a.spelled.cmp(&b.spelled));
        let room = MAX_FAILURES - self.failures.len();
        self.failures.extend(failures.into_iter().take(room).map(|(image, standing)| ImageFailure {
            node: node.to_owned(),
            image: image.spelled.clone(),
            // An agent always gives a reason. Were one to forget it, the failure must not go unseen.
            reason: standing.reason.unwrap_or(larder_crds::FailureReason::StoreError),
            message: condition::shorten(standing.message.as_deref().unwrap_or("The agent gave no message")),
            retry_time: standing.retry_time.clone(),
        }));
    }

    fn bytes(&self) -> ByteCount {
        self.images.iter().map(ImageTally::bytes).fold(ByteCount::default(), |sum, image| ByteCount {
            total: sum.total.saturating_add(image.total),
            present: sum.present.saturating_add(image.present),
        })
    }
}

/// One image, over the nodes counted so far.
struct ImageTally<'a> {
    wanted: &'a WantedImage,
    ready: i32,
    failed: i32,
    /// The digest that nodes hold; `Err` where they hold different ones.
    digest: Result<Option<&'a str>, ()>,
    /// The digest that its tag stands for in the registry by now, as the last node says that holds another.
    new_digest: Option<&'a str>,
    /// The largest size that a node knows.
    size: Option<i64>,
    /// Bytes on the nodes that know the image's size.
    known: ByteCount,
    /// Nodes that do not know its size, how many of those hold it, and the bytes on the others.
    unsized_nodes: i64,
    unsized_ready: i64,
    unsized_present: i64,
}

impl<'a> ImageTally<'a> {
    fn new(wanted: &'a WantedImage) -> Self {
        Self {
            wanted,
            ready: 0,
            failed: 0,
            digest: Ok(None),
            new_digest: None,
            size: None,
            known: ByteCount::default(),
            unsized_nodes: 0,
            unsized_ready: 0,
            unsized_present: 0,
        }
    }

    fn add(&mut self, standing: Option<&'a NodeImageStatus>) {
        let is_ready = standing.is_some_and(|standing| standing.state == ImageState::Ready);
        let present = standing.and_then(|standing| standing.bytes_present).unwrap_or(0).max(0);
        if let Some(size) = standing.and_then(|standing| standing.size).filter(|&size| size >= 0) {
            self.size = self.size.max(Some(size));
            self.known.total = self.known.total.saturating_add(size);
            let present = if is_ready { size } else { present.min(size) };
            self.known.present = self.known.present.saturating_add(present);
        } else {
            self.unsized_nodes += 1;
            self.unsized_ready += i64::from(is_ready);
            self.unsized_present = self.unsized_present.saturating_add(if is_ready { 0 } else { present });
        }
        let Some(standing) = standing else { return };
        self.failed += i32::from(standing.state == ImageState::Failed);
        self.new_digest = standing.new_digest.as_deref().or(self.new_digest);
        if is_ready {
            self.ready += 1;
            self.digest = match (self.digest, standing.digest.as_deref()) {
                (Ok(None), digest) => Ok(digest),
                (Ok(held), digest) if digest.is_none() || held == digest => Ok(held),
                _ => Err(()),
            };
        }
    }

    /// A size that a node does not know yet is taken from one that does: what is to come counts from the start.
    fn bytes(&self) -> ByteCount {
        let size = self.size.unwrap_or(0);
        let rest = size.saturating_mul(self.unsized_nodes);
        let there = size.saturating_mul(self.unsized_ready).saturating_add(self.unsized_present).min(rest);
        ByteCount {
            total: self.known.total.saturating_add(rest),
            present: self.known.present.saturating_add(there),
        }
    }

    fn summary(&self) -> ImageSummary {
        ImageSummary {
            image: self.wanted.spelled.clone(),
            digest: self.digest.ok().flatten().map(str::to_owned),
            new_digest: self.new_digest.map(str::to_owned),
            size: self.size,
            nodes_ready: self.ready,
            nodes_failed: self.failed,
        }
    }
}
