//! Rules that take images off the node, whoever brought them.
//!
//! At each look at the node the images that are there are compared with the rules (`larder_plan::cleaning`), and what goes is
//! handed to the one task that takes things away. What the agent itself has put there is not its business: that is wanted, or
//! goes without a rule.
//!
//! # A rule and kubelet
//!
//! kubelet pulls an image some time before the pod's container is made of it, and between a pod and its successor on the same
//! node nobody uses the image. A rule that took it at such a moment would have kubelet pull it again. So an image goes when
//! it has been here, and unused, for a while ([`EngineOptions::removal_grace`](super::EngineOptions::removal_grace)).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use larder_crds::NodeRemovalStatus;
use larder_oci::{Digest, ImageKey};
use larder_plan::cleaning::{self, Rules, Stays};
use larder_runtime as runtime;
use larder_store::Store;
use tokio::time::Instant;

use super::{
    Desired, Notice,
    link::{Link, patiently},
    purge::{Kept, Purge, Purged},
    survey::{Found, survey},
};

/// How long to wait after something failed.
const PAUSE: Duration = Duration::from_secs(10);

/// A rule's name: its `ImageCache`'s, and what it matches.
type RuleName = (String, String);

/// The rules of the node, and what became of them.
pub(super) struct Removals {
    grace: Duration,
    rules: Rules,
    pub kept: Kept,
    /// How many images each rule has taken away.
    removed: BTreeMap<RuleName, i32>,
    statuses: Vec<NodeRemovalStatus>,
    memory: Memory,
    /// What is to go, as of the last look.
    going: Vec<Purge>,
    /// Images that could not go, and when to try again.
    held: BTreeMap<Digest, Instant>,
    /// There may be something new to see.
    is_due: bool,
    /// When the next image has been here and unused for long enough.
    due: Option<Instant>,
    has_begun: bool,
}

/// What was seen of images before. An agent that is restarted has forgotten it.
#[derive(Default)]
struct Memory {
    first_seen: BTreeMap<Digest, Instant>,
    last_used: BTreeMap<Digest, Instant>,
}

impl Removals {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            rules: Rules::default(),
            kept: Kept::default(),
            removed: BTreeMap::new(),
            statuses: Vec::new(),
            memory: Memory::default(),
            going: Vec::new(),
            held: BTreeMap::new(),
            is_due: false,
            due: None,
            has_begun: false,
        }
    }

    /// Takes up rules, and what is to be kept from them.
    pub(super) fn take_up<'a>(&mut self, desired: &'a Desired, kept: impl Iterator<Item = &'a ImageKey>) {
        if !std::mem::replace(&mut self.has_begun, true) {
            let before = desired.removals_before.iter();
            self.statuses.clone_from(&desired.removals_before);
            self.removed = before.map(|rule| (name(&rule.cache, &rule.image), rule.removed)).collect();
        }
        self.is_due |= self.kept.set(kept);
        if !self.rules.given().eq(&desired.remove) {
            self.rules = Rules::new(&desired.remove);
            self.going.clear();
            self.is_due = true;
        }
        let names: BTreeSet<RuleName> =
            self.rules.given().map(|rule| name(&rule.cache, &rule.image)).collect();
        self.removed.retain(|rule, _| names.contains(rule));
        self.statuses.retain(|status| names.contains(&name(&status.cache, &status.image)));
    }

    /// Something has happened on the node.
    pub(super) fn look_again(&mut self) {
        self.is_due = true;
    }

    /// When to look again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.rules.is_empty())
    }

    /// Looks at the node and works out what goes, if it is time to, and the runtime can say what is in use.
    pub(super) async fn look(&mut self, store: &Store, link: &mut Link) {
        if self.rules.is_empty() {
            (self.memory, self.due) = (Memory::default(), None);
            return;
        }
        let now = Instant::now();
        if !(self.is_due || self.due.is_some_and(|due| due <= now)) || !link.answers() {
            return;
        }
        match patiently(survey(store, link.runtime())).await {
            Ok(images) => {
                self.is_due = false;
                self.plan(&images, now, Timestamp::now());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell which images are on the node; trying again");
                self.due = Some(now + PAUSE);
            }
        }
    }

    fn plan(&mut self, found: &BTreeMap<Digest, Found>, now: Instant, time: Timestamp) {
        let ages = self.memory.see(found, now, time, self.grace);
        self.held.retain(|id, until| found.contains_key(id) && *until > now);
        let images: Vec<cleaning::Image> = found
            .iter()
            .map(|(id, found)| cleaning::Image {
                id: id.clone(),
                names: runtime::spoken(found.names.iter().cloned()),
                created: found.created,
                came: found.came,
                stays: self.stays(found, ages.contains_key(id)),
            })
            .collect();
        let young = images.iter().filter(|image| image.stays == Some(Stays::Young));
        let young = young.filter_map(|image| ages.get(&image.id));
        self.due = young.chain(self.held.values()).min().copied();
        let plan = self.rules.plan(&images);
        let rules: Vec<RuleName> = self.rules.given().map(|rule| name(&rule.cache, &rule.image)).collect();
        self.statuses = plan.statuses;
        let is_held = |id: &Digest| self.held.contains_key(id);
        self.going = plan
            .going
            .into_iter()
            .filter(|going| !is_held(&going.id))
            .filter_map(|going| {
                let found = found.get(&going.id)?;
                Some(Purge {
                    all: found.names.clone(),
                    stored: found.stored.clone(),
                    rules: going.rules.iter().filter_map(|&place| rules.get(place)).cloned().collect(),
                    id: going.id,
                    names: going.names,
                    is_last: going.is_last,
                })
            })
            .collect();
    }

    fn stays(&self, found: &Found, is_young: bool) -> Option<Stays> {
        if self.kept.has_any(&found.names) {
            Some(Stays::Wanted)
        } else if found.is_pinned {
            Some(Stays::Pinned)
        } else if !found.users.is_empty() {
            Some(Stays::InUse)
        } else if found.is_ours {
            // It goes without a rule.
            Some(Stays::Wanted)
        } else {
            is_young.then_some(Stays::Young)
        }
    }

    /// What is to go now.
    pub(super) fn take(&mut self) -> Vec<Purge> {
        std::mem::take(&mut self.going)
    }

    /// Takes note of what became of it, and tells what is worth telling.
    pub(super) fn record(&mut self, done: Vec<Purged>) -> Vec<Notice> {
        if done.is_empty() {
            return Vec::new();
        }
        self.is_due = true;
        let mut gone: BTreeMap<RuleName, Vec<String>> = BTreeMap::new();
        for Purged { purge, is_gone } in done {
            if !is_gone {
                self.held.insert(purge.id, Instant::now() + PAUSE);
                continue;
            }
            let names: Vec<String> = purge.names.iter().map(ToString::to_string).collect();
            let names = names.join(", ");
            tracing::info!(image = names, is_last = purge.is_last, "removed by a rule");
            for rule in purge.rules.into_iter().filter(|_| purge.is_last) {
                gone.entry(rule).or_default().push(names.clone());
            }
        }
        let tell = |((cache, rule), mut images): (RuleName, Vec<String>)| {
            images.sort();
            let count = i32::try_from(images.len()).unwrap_or(i32::MAX);
            let removed = self.removed.entry(name(&cache, &rule)).or_default();
            *removed = removed.saturating_add(count);
            Notice::RemovedByRule { cache, rule, images }
        };
        gone.into_iter().map(tell).collect()
    }

    /// What the rules match, those that match or have matched something.
    pub(super) fn statuses(&self) -> Vec<NodeRemovalStatus> {
        let counted = self.statuses.iter().map(|status| {
            let removed = self.removed.get(&name(&status.cache, &status.image)).copied().unwrap_or(0);
            NodeRemovalStatus { removed, ..status.clone() }
        });
        counted.filter(|status| status.images > 0 || status.in_use > 0 || status.removed > 0).collect()
    }
}

impl Memory {
    /// Takes note of what is there, and gives those that came or were used a moment ago, with the end of their grace.
    fn see(
        &mut self,
        found: &BTreeMap<Digest, Found>,
        now: Instant,
        time: Timestamp,
        grace: Duration,
    ) -> BTreeMap<Digest, Instant> {
        self.first_seen.retain(|id, _| found.contains_key(id));
        self.last_used.retain(|id, _| found.contains_key(id));
        let mut young = BTreeMap::new();
        for (id, found) in found {
            let seen = *self.first_seen.entry(id.clone()).or_insert(now);
            if !found.users.is_empty() {
                self.last_used.insert(id.clone(), now);
            }
            // A time that is to come was told by another clock.
            let age =
                found.came.filter(|came| *came <= time).map(|came| time.duration_since(came).unsigned_abs());
            let end = match age {
                Some(age) => grace.checked_sub(age).map(|rest| now + rest),
                None => Some(seen + grace),
            };
            let used = self.last_used.get(id).map(|used| *used + grace);
            if let Some(end) = end.max(used).filter(|end| *end > now) {
                young.insert(id.clone(), end);
            }
        }
        young
    }
}

fn name(cache: &str, rule: &str) -> RuleName {
    (cache.to_owned(), rule.to_owned())
}

#[cfg(test)]
mod tests;
