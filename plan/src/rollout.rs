//! Roll-outs: which nodes get what an `ImageCache` asks for, and when.
//!
//! Everything is decided from what the objects say. A node has *started* once its `NodeImageCache` carries the cache's
//! images. It is *busy* while it carries images of the cache that are not all there, none of which has failed. The
//! busy nodes of a cache are never made more than its limit: a node starts only where fewer are busy, counting those
//! whose start is on its way to the API server ([`Turn::Sent`]), the only thing that the objects do not say yet. A node
//! that is busy goes on to newer content without another turn. One that leaves service while it is busy loses what it
//! does not have yet, and with it its place.

use std::collections::{BTreeMap, HashMap};

use larder_crds::{ImageState, NodeImage, NodeImageCacheSpec};

use crate::{
    index::{Cache, Dirty, Index, Key, Node, NodeAction, NodeCache},
    validate::{Target, ValidCache},
};

/// How many nodes may be busy at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// This many.
    Nodes(usize),
    /// This part of the selected nodes in per cent, rounded up, and at least one.
    Percent(u8),
}

impl Concurrency {
    /// How many that is of `selected` nodes.
    #[must_use]
    pub fn of(self, selected: usize) -> usize {
        match self {
            Self::Nodes(number) => number,
            Self::Percent(percent) => selected.saturating_mul(usize::from(percent)).div_ceil(100).max(1),
        }
    }
}

/// How fast changes reach the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// All nodes at once.
    AllAtOnce,
    /// So many at a time.
    Limited(Concurrency),
    /// Not at all.
    Paused,
}

/// How a node stands with regard to a cache whose changes do not reach all nodes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The cache's selector matches.
    pub matches: bool,
    /// It does not carry what the cache asks for, and cannot without becoming busy, as far as is known.
    pub needs_turn: bool,
    /// It fetches what the cache has given it.
    pub is_busy: bool,
    pub service: Service,
}

/// Whether a node could take up something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// It is cordoned, or not ready.
    Out,
    /// Its agent has not taken up what it was told last, or there is none.
    Behind,
    /// What its agent reports is of the images that it was told last.
    Ready,
}

impl Service {
    fn of(node: &Node, held: Option<&NodeCache>) -> Self {
        let is_up_to_date = |held: &NodeCache| held.has_agent && held.is_taken_up() && held.is_plannable();
        match node.is_available {
            false => Self::Out,
            true if held.is_some_and(is_up_to_date) => Self::Ready,
            true => Self::Behind,
        }
    }
}

impl Standing {
    pub fn new(name: &str, cache: &Cache, valid: &ValidCache, node: &Node, held: Option<&NodeCache>) -> Self {
        let is_busy = held.is_some_and(|held| is_busy(name, &cache.uid, held));
        Self {
            matches: valid.matches(&node.labels),
            needs_turn: needs_turn(name, cache, valid, held, is_busy),
            is_busy,
            service: Service::of(node, held),
        }
    }

    /// Whether it may get what it lacks, if it is its turn.
    fn is_startable(self) -> bool {
        self.matches && self.needs_turn && self.service == Service::Ready
    }
}

/// What a node gets of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// What the cache asks for now.
    Give {
        /// Whether that makes the node busy, or keeps it so.
        starts: bool,
    },
    /// What the cache gave it before.
    Hold,
    /// Of what the cache gave it before, what it has.
    Withdraw,
}

impl Course {
    /// What a node gets of a valid cache that matches it or has given it something; `has_turn` where it is its turn.
    pub fn of(pace: Pace, standing: impl FnOnce() -> Standing, has_turn: bool) -> Self {
        match pace {
            Pace::AllAtOnce => return Self::Give { starts: false },
            Pace::Paused => return Self::Hold,
            Pace::Limited(_) => {}
        }
        let standing = standing();
        if standing.is_busy && standing.service == Service::Out {
            Self::Withdraw
        } else if !standing.needs_turn {
            Self::Give { starts: false }
        } else if standing.is_startable() && (has_turn || standing.is_busy) {
            Self::Give { starts: true }
        } else {
            Self::Hold
        }
    }
}

/// Whether a cache has given a node this image.
pub(crate) fn claims(image: &NodeImage, name: &str, uid: &str) -> bool {
    image.wanted_by.iter().any(|claim| claim.uid == uid && claim.name == name)
}

fn is_busy(name: &str, uid: &str, held: &NodeCache) -> bool {
    if held.has_all() {
        return false;
    }
    let images = held.spec.iter().flat_map(|spec| &spec.images);
    unsettled(images.filter(|image| claims(image, name, uid)).map(|image| state(held, &Target::from(image))))
}

fn state(held: &NodeCache, target: &Target) -> Option<ImageState> {
    held.standing(target).map(|standing| standing.state)
}

/// Whether images in these states keep a node busy: not all are there, and none has failed.
fn unsettled(states: impl Iterator<Item = Option<ImageState>>) -> bool {
    let mut is_missing = false;
    for state in states {
        match state {
            Some(ImageState::Failed) => return false,
            Some(ImageState::Ready) => {}
            _ => is_missing = true,
        }
    }
    is_missing
}

fn needs_turn(
    name: &str,
    cache: &Cache,
    valid: &ValidCache,
    held: Option<&NodeCache>,
    is_busy: bool,
) -> bool {
    let spec = held.and_then(|held| held.spec.as_deref());
    let has_given = |target: &Target| {
        spec.and_then(|spec| find(spec, target)).is_some_and(|image| claims(image, name, &cache.uid))
    };
    if !valid.images().iter().all(|image| has_given(&image.target)) {
        return true;
    }
    // Nothing to give. To take away the image that failed would have it busy with the others, though.
    let (Some(held), Some(spec), false) = (held, spec, is_busy) else { return false };
    let given = spec.images.iter().filter(|image| claims(image, name, &cache.uid)).count();
    given > valid.images().len() && unsettled(valid.images().iter().map(|image| state(held, &image.target)))
}

/// The list is in order: the operator wrote it.
fn find<'a>(spec: &'a NodeImageCacheSpec, target: &Target) -> Option<&'a NodeImage> {
    let wanted = (target.image.as_str(), target.platform.as_deref());
    let place =
        spec.images.binary_search_by(|image| (image.image.as_str(), image.platform.as_deref()).cmp(&wanted));
    place.ok().and_then(|place| spec.images.get(place))
}

/// A node's turn in a cache's roll-out, from when it is given until the API server has confirmed the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing has been sent. It can be taken back.
    Given,
    /// The API server has been asked to write the start, or may have been. The node counts as busy.
    Sent,
}

/// The turns of all roll-outs: by the cache's UID, then by the node's name.
#[derive(Debug, Default)]
pub(crate) struct Turns(HashMap<String, BTreeMap<String, Turn>>);

impl Turns {
    pub fn has(&self, uid: &str, node: &str) -> bool {
        self.0.get(uid).is_some_and(|turns| turns.contains_key(node))
    }

    /// Takes back what can be taken back.
    pub fn clear(&mut self, uid: &str) {
        if let Some(turns) = self.0.get_mut(uid) {
            turns.retain(|_, turn| *turn == Turn::Sent);
            if turns.is_empty() {
                self.0.remove(uid);
            }
        }
    }

    fn is_sent(&self, uid: &str, node: &str) -> bool {
        self.0.get(uid).and_then(|turns| turns.get(node)) == Some(&Turn::Sent)
    }

    fn send(&mut self, uid: String, node: &str) {
        self.0.entry(uid).or_default().insert(node.to_owned(), Turn::Sent);
    }

    /// The node's turns that have been sent are over, or back to what they were. Gives the caches' UIDs.
    fn conclude(&mut self, node: &str, is_over: bool) -> Vec<String> {
        let mut changed = Vec::new();
        for (uid, turns) in &mut self.0 {
            if turns.get(node) != Some(&Turn::Sent) {
                continue;
            }
            changed.push(uid.clone());
            if is_over {
                turns.remove(node);
            } else {
                turns.insert(node.to_owned(), Turn::Given);
            }
        }
        self.0.retain(|_, turns| !turns.is_empty());
        changed
    }
}

/// How a write of a node's `NodeImageCache` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The API server has it, and the index too; or the index has what the API server has instead.
    Known,
    /// The API server refused it.
    Refused,
}

impl Index {
    /// What to do about a node's `NodeImageCache`, like [`Index::plan_node`]; what it starts counts as started from now on,
    /// until [`Index::conclude`] says how it ended. In between, the node is not to be planned again.
    #[must_use]
    pub fn take_on(&mut self, name: &str) -> Option<NodeAction> {
        let (action, starts) = self.plan_starts(name)?;
        for uid in starts {
            self.turns.send(uid, name);
        }
        Some(action)
    }

    /// The write that [`Index::take_on`] asked for has ended. Not to be called where nobody knows how.
    pub fn conclude(&mut self, node: &str, written: Written) -> Dirty {
        let changed = self.turns.conclude(node, written == Written::Known);
        let caches = self.caches.present.iter().filter(|(_, cache)| changed.contains(&cache.uid));
        caches.map(|(name, _)| Key::Rollout(name.clone())).collect()
    }

    /// Whether nobody knows how the last write of the node's `NodeImageCache` ended.
    #[must_use]
    pub fn is_in_doubt(&self, node: &str) -> bool {
        self.turns.0.values().any(|turns| turns.get(node) == Some(&Turn::Sent))
    }

    /// Gives the next nodes their turn in an `ImageCache`'s roll-out, in order of their names.
    pub fn roll_out(&mut self, name: &str) -> Dirty {
        let Some(cache) = self.caches.present.get(name) else { return Dirty::new() };
        let uid = cache.uid.clone();
        let Some((valid, Pace::Limited(concurrency))) = cache.active().map(|valid| (valid, valid.pace()))
        else {
            self.turns.clear(&uid);
            return Dirty::new();
        };
        let (mut selected, mut busy, mut waiting) = (0, 0_usize, Vec::new());
        for (node_name, node) in &self.nodes {
            let held = self.node_cache_of(node_name, node);
            let standing = Standing::new(name, cache, valid, node, held);
            selected += usize::from(cache.selects(&node.labels, held));
            let lingers = self.lingering(node_name, node).is_some_and(|held| is_busy(name, &uid, held));
            if standing.is_busy || lingers || self.turns.is_sent(&uid, node_name) {
                busy += 1;
            } else if standing.is_startable() {
                waiting.push(node_name.clone());
            }
        }
        waiting.truncate(concurrency.of(selected).saturating_sub(busy));
        let mut before = self.turns.0.remove(&uid).unwrap_or_default();
        let mut dirty = Dirty::new();
        let mut turns = BTreeMap::new();
        for node in waiting {
            if before.remove(&node).is_none() {
                dirty.insert(Key::Node(node.clone()));
            }
            turns.insert(node, Turn::Given);
        }
        turns.extend(before.into_iter().filter(|(_, turn)| *turn == Turn::Sent));
        if !turns.is_empty() {
            self.turns.0.insert(uid, turns);
        }
        dirty
    }

    /// How a node stands in the roll-out of every cache that has one.
    pub(crate) fn standings(&self, node: &Node, held: Option<&NodeCache>) -> Vec<(&str, Standing)> {
        let caches = self.caches.present.iter().filter_map(|(name, cache)| {
            let valid = cache.active().filter(|valid| valid.pace() != Pace::AllAtOnce)?;
            Some((name.as_str(), Standing::new(name, cache, valid, node, held)))
        });
        caches.collect()
    }
}

/// What is to be looked at again when a node's standings change.
pub(crate) fn changed(node: &str, old: &[(&str, Standing)], new: &[(&str, Standing)]) -> Dirty {
    let mut dirty = Dirty::new();
    for (name, standing) in
        old.iter().filter(|old| !new.contains(old)).chain(new.iter().filter(|new| !old.contains(new)))
    {
        if standing.matches || standing.is_busy {
            let name = (*name).to_owned();
            dirty.extend([Key::Node(node.to_owned()), Key::Cache(name.clone()), Key::Rollout(name)]);
        }
    }
    dirty
}
