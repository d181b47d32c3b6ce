//! What the index holds of one `NodeImageCache`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use larder_crds::{NodeImageCacheSpec, NodeImageStatus, NodeRemovalStatus, PullCount};

use crate::{census::Tally, index::Node, object::NodeCacheObject, pool::Pool, validate::Target};

/// One `NodeImageCache`, as last seen.
#[derive(Debug)]
pub(crate) struct NodeCache {
    pub uid: String,
    pub resource_version: Option<String>,
    generation: Option<i64>,
    observed_generation: Option<i64>,
    pub deleting: bool,
    pub node_uids: Vec<String>,
    /// Absent where it cannot be read.
    pub spec: Option<Arc<NodeImageCacheSpec>>,
    pub has_agent: bool,
    /// In order of image and platform, whatever order the agent gave.
    images: Vec<Arc<NodeImageStatus>>,
    /// In order of cache and pattern.
    removals: Vec<Arc<NodeRemovalStatus>>,
    tally: Tally,
    /// What its agents have fetched: the most that was ever read of this object.
    pub pulls: PullCount,
}

/// What `NodeImageCache`s have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    specs: Pool<NodeImageCacheSpec>,
    images: Pool<NodeImageStatus>,
    removals: Pool<NodeRemovalStatus>,
}

impl NodeCache {
    /// What the API server says of it. What it has in common with others is held once, in `shared`.
    pub fn new(object: NodeCacheObject, shared: &mut Shared) -> Self {
        let mut images: Vec<_> =
            object.status.images.into_iter().map(|image| shared.images.share(image)).collect();
        images.sort_by(|a, b| (&a.image, &a.platform).cmp(&(&b.image, &b.platform)));
        let mut removals: Vec<_> =
            object.status.removals.into_iter().map(|rule| shared.removals.share(rule)).collect();
        removals.sort_by(|a, b| (&a.cache, &a.image).cmp(&(&b.cache, &b.image)));
        let mut new = Self {
            uid: object.uid,
            resource_version: object.resource_version,
            generation: object.generation,
            observed_generation: object.status.observed_generation,
            deleting: object.deleting,
            node_uids: object.node_uids,
            spec: object.spec.ok().map(|spec| shared.specs.share(spec)),
            has_agent: object.status.agent.is_some(),
            images,
            removals,
            tally: Tally::default(),
            pulls: object.status.pulls.unwrap_or_default().max(PullCount::default()),
        };
        let mut tally = Tally::default();
        for target in new.spec.iter().flat_map(|spec| &spec.images).map(Target::from) {
            tally.count(new.standing(&target));
        }
        new.tally = tally;
        new
    }

    /// Whether every image that it asks for is there.
    pub fn has_all(&self) -> bool {
        self.tally.has_all()
    }

    /// What its images come to.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether its specification can be replaced: without the claims in it there is no telling what has to stay.
    pub fn is_plannable(&self) -> bool {
        !self.deleting && self.spec.is_some()
    }

    /// Whether the agent has taken up the specification as it stands.
    pub fn is_taken_up(&self) -> bool {
        self.generation.is_some() && self.observed_generation == self.generation
    }

    /// Whether it describes this node, and not an earlier one of the same name.
    pub fn is_of(&self, node: &Node) -> bool {
        self.node_uids.is_empty() || self.node_uids.contains(&node.uid)
    }

    /// How an image stands: nothing where the agent has not been told of it, or has not said anything yet.
    pub fn standing(&self, target: &Target) -> Option<&NodeImageStatus> {
        let wanted = (target.image.as_str(), target.platform.as_deref());
        let asked = &self.spec.as_ref()?.images;
        // The operator wrote the list, in this order. One that somebody else put out of order is about to be replaced.
        asked
            .binary_search_by(|image| (image.image.as_str(), image.platform.as_deref()).cmp(&wanted))
            .ok()?;
        let found = self
            .images
            .binary_search_by(|image| (image.image.as_str(), image.platform.as_deref()).cmp(&wanted));
        found.ok().and_then(|place| self.images.get(place)).map(Arc::as_ref)
    }

    /// What a rule of a cache's matches.
    pub fn removal(&self, cache: &str, image: &str) -> Option<&NodeRemovalStatus> {
        let found = self
            .removals
            .binary_search_by(|rule| (rule.cache.as_str(), rule.image.as_str()).cmp(&(cache, image)));
        found.ok().and_then(|place| self.removals.get(place)).map(Arc::as_ref)
    }

    /// Every image of which the agent has said how it stands.
    fn standings(&self) -> BTreeMap<Target, &NodeImageStatus> {
        let images = self.spec.iter().flat_map(|spec| &spec.images).map(Target::from);
        images.filter_map(|target| self.standing(&target).map(|standing| (target, standing))).collect()
    }

    /// Whether the plan for the node may differ now.
    pub fn plans_differently(&self, earlier: &Self) -> bool {
        let served = |cache: &Self| {
            cache.is_taken_up() && cache.spec.as_ref().is_some_and(|spec| !spec.released.is_empty())
        };
        self.uid != earlier.uid
            || self.deleting != earlier.deleting
            || self.node_uids != earlier.node_uids
            || self.spec != earlier.spec
            || served(self) != served(earlier)
    }
}

/// Whether an image is there for the `ImageCache` of this name.
pub(crate) fn claims(held: &NodeCache, cache: &str) -> bool {
    let images = held.spec.iter().flat_map(|spec| &spec.images);
    images.flat_map(|image| &image.wanted_by).any(|claim| claim.name == cache)
}

/// The images that stand differently.
pub(crate) fn changed_images(old: Option<&NodeCache>, new: Option<&NodeCache>) -> BTreeSet<Target> {
    let old = old.map(NodeCache::standings).unwrap_or_default();
    let new = new.map(NodeCache::standings).unwrap_or_default();
    let differs = |target: &&Target| old.get(*target) != new.get(*target);
    old.keys().chain(new.keys()).filter(differs).cloned().collect()
}

/// The caches of whose rules for removal something else is said.
pub(crate) fn changed_removals(old: Option<&NodeCache>, new: Option<&NodeCache>) -> BTreeSet<String> {
    let [old, new] = [old, new].map(|held| held.map_or(&[] as &[_], |held| held.removals.as_slice()));
    let differing = old.iter().filter(|rule| !new.contains(rule));
    differing.chain(new.iter().filter(|rule| !old.contains(rule))).map(|rule| rule.cache.clone()).collect()
}
