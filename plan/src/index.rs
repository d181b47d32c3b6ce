//! Everything that the operator's three watches have shown, and what each change means.
//!
//! The index answers two questions: what has to be looked at again after a change (the [`Key`]s that each method
//! returns), and what is then to be done about it ([`Index::plan_node`], [`Index::plan_status`]). Nothing may be planned
//! before all three lists are complete: to a part, every `ImageCache` not yet listed looks deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use larder_crds::{ImageCacheStatus, NodeImageCacheSpec, PullCount};

use crate::{
    AllowList,
    desired::{self, Caches, Place},
    listing::Listing,
    node_cache::{Shared, changed_images, changed_removals, claims},
    object::{CacheObject, NodeCacheObject, NodeObject, is_older},
    rollout::{self, Pace, Turns},
    secrets::SecretsRole,
    status,
    transition::{Transition, transitions},
    validate::{ValidCache, describe},
};

pub(crate) use crate::node_cache::NodeCache;

pub(crate) type Labels = BTreeMap<String, String>;

/// What may have to change: one object, written by one reconcile, or who is next to get it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The Role that says which Secrets agents may read. First, so that it is written before nodes are told of images
    /// that need one.
    Secrets,
    /// The `NodeImageCache` of the node of this name.
    Node(String),
    /// The status of the `ImageCache` of this name.
    Cache(String),
    /// Whose turn it is in the roll-out of the `ImageCache` of this name.
    Rollout(String),
}

/// The keys that a change made dirty.
pub type Dirty = BTreeSet<Key>;

/// What to do about a node's `NodeImageCache`.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeAction {
    /// Apply it.
    Apply {
        /// The UID of the Node that is to own it.
        node_uid: String,
        /// Its own UID; absent where it does not exist yet.
        uid: Option<String>,
        /// Its specification.
        spec: NodeImageCacheSpec,
    },
    /// Delete it, if it is still this very object: its Node is gone.
    Delete {
        /// Its UID.
        uid: String,
        /// Its resource version.
        resource_version: Option<String>,
    },
}

/// A status to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusAction {
    /// The UID of the `ImageCache`.
    pub uid: String,
    /// The status.
    pub status: ImageCacheStatus,
    /// What there is to tell once it is applied.
    pub transitions: Vec<Transition>,
}

/// What an `ImageCache` asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum State {
    Valid(ValidCache),
    /// It cannot be used, for the reason given.
    Broken(String),
}

#[derive(Debug)]
pub(crate) struct Cache {
    pub uid: String,
    resource_version: Option<String>,
    pub generation: Option<i64>,
    pub deleting: bool,
    pub state: State,
    pub status: ImageCacheStatus,
}

impl Cache {
    fn new(object: CacheObject, allowed: &AllowList) -> Self {
        let state = match object.spec.map(|spec| ValidCache::within(&spec, allowed)) {
            Ok(Ok(valid)) => State::Valid(valid),
            Ok(Err(problems)) => State::Broken(describe(&problems)),
            Err(why) => State::Broken(format!("The specification cannot be read: {why}")),
        };
        Self {
            uid: object.uid,
            resource_version: object.resource_version,
            generation: object.generation,
            deleting: object.deleting,
            state,
            status: object.status,
        }
    }

    /// What it asks for, if it can be used and is to stay.
    pub fn active(&self) -> Option<&ValidCache> {
        match &self.state {
            State::Valid(valid) if !self.deleting => Some(valid),
            _ => None,
        }
    }

    /// Whether its changes reach some nodes at a time.
    fn is_limited(&self) -> bool {
        self.active().is_some_and(|valid| matches!(valid.pace(), Pace::Limited(_)))
    }

    /// Whether a node counts among those that it selects: with a selector by the labels, without by its agent.
    pub fn selects(&self, labels: &Labels, node_cache: Option<&NodeCache>) -> bool {
        self.active().is_some_and(|valid| {
            valid.matches(labels) && (valid.has_selector() || node_cache.is_some_and(|cache| cache.has_agent))
        })
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub uid: String,
    pub labels: Labels,
    pub is_available: bool,
}

/// All objects, as last seen.
#[derive(Debug, Default)]
pub struct Index {
    pub(crate) caches: Caches,
    pub(crate) nodes: BTreeMap<String, Node>,
    node_caches: HashMap<String, NodeCache>,
    shared: Shared,
    cache_list: Listing,
    node_cache_list: Listing,
    pub(crate) turns: Turns,
    allowed: AllowList,
    pub(crate) secrets_role: SecretsRole,
    /// What agents have fetched since they are counted.
    pub(crate) pulls: PullCount,
}

impl Index {
    /// An empty index, for `ImageCache`s that may name images on this list.
    #[must_use]
    pub fn allowing(allowed: AllowList) -> Self {
        Self { allowed, ..Self::default() }
    }

    /// An index of three complete lists. Everything in it is dirty.
    #[must_use]
    pub fn new(
        caches: Vec<CacheObject>,
        nodes: Vec<NodeObject>,
        node_caches: Vec<NodeCacheObject>,
    ) -> (Self, Dirty) {
        let mut index = Self::default();
        for object in node_caches {
            index.list_node_cache(object);
        }
        for object in nodes {
            index.apply_node(object);
        }
        for object in caches {
            index.list_cache(object);
        }
        let dirty = index.everything();
        (index, dirty)
    }

    /// An `ImageCache` was created or changed.
    ///
    /// A watch lags behind the answers to our own writes, which are passed here too. What is older than what is held
    /// is ignored; the same goes for [`Index::apply_node_cache`].
    pub fn apply_cache(&mut self, object: CacheObject) -> Dirty {
        self.cache_list.answer(&object.name);
        self.take_cache(object)
    }

    fn take_cache(&mut self, object: CacheObject) -> Dirty {
        let name = object.name.clone();
        let mut dirty = Dirty::new();
        if self.caches.present.get(&name).is_some_and(|old| old.uid != object.uid) {
            dirty = self.delete_cache(&name);
        }
        let new = Cache::new(object, &self.allowed);
        let old = self.caches.present.get(&name);
        if old.is_some_and(|old| is_older(new.resource_version.as_deref(), old.resource_version.as_deref())) {
            return dirty;
        }
        if old.is_none_or(|old| old.deleting != new.deleting || old.state != new.state) {
            dirty.extend(self.nodes_of(&name, old.into_iter().chain([&new])));
            dirty.extend(self.secrets_touched(old, Some(&new)));
            // Turns were given under other conditions.
            self.turns.clear(&new.uid);
            dirty.extend(new.is_limited().then(|| Key::Rollout(name.clone())));
        }
        let is_status_dirty =
            old.is_none_or(|old| old.generation != new.generation || old.status != new.status);
        if is_status_dirty {
            dirty.insert(Key::Cache(name.clone()));
        }
        self.caches.present.insert(name, new);
        dirty
    }

    /// An `ImageCache` is gone.
    pub fn delete_cache(&mut self, name: &str) -> Dirty {
        let Some(old) = self.caches.present.remove(name) else { return Dirty::new() };
        let mut dirty = self.nodes_of(name, [&old]);
        dirty.extend(self.secrets_touched(Some(&old), None));
        self.turns.clear(&old.uid);
        let claimed = self.claimed_uids();
        self.caches.departed.retain(|uid, _| claimed.contains(uid));
        self.caches.departed.insert(old.uid.clone(), old);
        dirty
    }

    /// All `ImageCache`s are about to be listed. To be called before the API server is asked.
    pub fn begin_caches(&mut self) {
        self.cache_list.begin();
    }

    /// One of all `ImageCache`s there are, as a list brings them. Unlike a single change it is taken as it is, older or
    /// not: the API server may have been put back to an earlier state. What it answered since the list began, it has.
    pub fn list_cache(&mut self, object: CacheObject) -> Dirty {
        if !self.cache_list.is_answered(&object.name)
            && let Some(held) = self.caches.present.get_mut(&object.name)
        {
            held.resource_version = None;
        }
        self.take_cache(object)
    }

    /// The list is complete: what was not on it is gone.
    pub fn end_caches(&mut self, listed: &HashSet<String>) -> Dirty {
        let gone = self.cache_list.end(self.caches.present.keys(), listed);
        gone.iter().flat_map(|name| self.delete_cache(name)).collect()
    }

    /// A Node was created or changed.
    pub fn apply_node(&mut self, object: NodeObject) -> Dirty {
        let NodeObject { name, uid, labels, is_available } = object;
        let mut dirty = Dirty::new();
        if self.nodes.get(&name).is_some_and(|old| old.uid != uid) {
            dirty = self.delete_node(&name);
        }
        let new = Node { uid, labels, is_available };
        let node_cache = self.node_cache_of(&name, &new);
        let old = self.nodes.get(&name);
        let mut is_node_dirty = old.is_none();
        let was_available = old.is_none_or(|old| old.is_available);
        let before = old.map(|old| self.standings(old, node_cache)).unwrap_or_default();
        dirty.extend(rollout::changed(&name, &before, &self.standings(&new, node_cache)));
        for (cache_name, cache) in &self.caches.present {
            let matches = |node: &Node| cache.active().is_some_and(|valid| valid.matches(&node.labels));
            is_node_dirty |= old.is_some_and(|old| matches(old) != matches(&new));
            let was_selected = old.is_some_and(|old| cache.selects(&old.labels, node_cache));
            let is_selected = cache.selects(&new.labels, node_cache);
            if was_selected != is_selected || (is_selected && was_available != is_available) {
                dirty.insert(Key::Cache(cache_name.clone()));
            }
        }
        if is_node_dirty {
            dirty.insert(Key::Node(name.clone()));
        }
        self.nodes.insert(name, new);
        dirty
    }

    /// A Node is gone.
    pub fn delete_node(&mut self, name: &str) -> Dirty {
        let Some(old) = self.nodes.remove(name) else { return Dirty::new() };
        let node_cache = self.node_cache_of(name, &old);
        let selecting =
            self.caches.present.iter().filter(|(_, cache)| cache.selects(&old.labels, node_cache));
        let mut dirty: Dirty = selecting.map(|(cache, _)| Key::Cache(cache.clone())).collect();
        dirty.extend(rollout::changed(name, &self.standings(&old, node_cache), &[]));
        dirty.insert(Key::Node(name.to_owned()));
        dirty
    }

    /// A list of all Nodes is complete: what was not on it is gone.
    pub fn end_nodes(&mut self, listed: &HashSet<String>) -> Dirty {
        let gone = missing(self.nodes.keys(), listed);
        gone.iter().flat_map(|name| self.delete_node(name)).collect()
    }

    /// A `NodeImageCache` was created or changed, by whomever.
    pub fn apply_node_cache(&mut self, object: NodeCacheObject) -> Dirty {
        self.node_cache_list.answer(&object.name);
        self.take_node_cache(object)
    }

    fn take_node_cache(&mut self, object: NodeCacheObject) -> Dirty {
        let name = object.name.clone();
        let mut new = NodeCache::new(object, &mut self.shared);
        let old = self.node_caches.get(&name);
        let older =
            |old: &NodeCache| is_older(new.resource_version.as_deref(), old.resource_version.as_deref());
        if old.is_some_and(|old| old.uid == new.uid && older(old)) {
            return Dirty::new();
        }
        let mut dirty = self.caches_touched(&name, old, Some(&new));
        if old.is_none_or(|old| new.plans_differently(old)) {
            dirty.insert(Key::Node(name.clone()));
            dirty.extend(self.secrets_kept());
        }
        // What had been fetched before the object was first seen was counted by an earlier process, or by nobody. One that was made
        // anew counts from zero.
        if let Some(old) = old {
            let before = if old.uid == new.uid { old.pulls } else { PullCount::default() };
            self.pulls = self.pulls.plus(new.pulls.since(before));
            new.pulls = new.pulls.max(before);
        }
        self.node_caches.insert(name, new);
        dirty
    }

    /// From here on it is counted what agents fetch: until now another replica has done so. What they say while none leads is in
    /// nobody's count.
    pub fn count_pulls(&mut self) {
        self.pulls = PullCount::default();
    }

    /// A `NodeImageCache` is gone.
    pub fn delete_node_cache(&mut self, name: &str) -> Dirty {
        let Some(old) = self.node_caches.remove(name) else { return Dirty::new() };
        let mut dirty = self.caches_touched(name, Some(&old), None);
        dirty.extend(self.secrets_kept());
        if self.nodes.contains_key(name) {
            dirty.insert(Key::Node(name.to_owned()));
        }
        dirty
    }

    /// All `NodeImageCache`s are about to be listed. To be called before the API server is asked.
    pub fn begin_node_caches(&mut self) {
        self.node_cache_list.begin();
    }

    /// One of all `NodeImageCache`s there are, as a list brings them; see [`Index::list_cache`].
    ///
    /// **Invariant:** a node that was started while the list is read stays started
    /// (`a_list_that_is_older_than_our_own_write_frees_no_place`).
    pub fn list_node_cache(&mut self, object: NodeCacheObject) -> Dirty {
        if !self.node_cache_list.is_answered(&object.name)
            && let Some(held) = self.node_caches.get_mut(&object.name)
        {
            held.resource_version = None;
        }
        self.take_node_cache(object)
    }

    /// The list is complete: what was not on it is gone.
    pub fn end_node_caches(&mut self, listed: &HashSet<String>) -> Dirty {
        let gone = self.node_cache_list.end(self.node_caches.keys(), listed);
        gone.iter().flat_map(|name| self.delete_node_cache(name)).collect()
    }

    /// Everything there is to look at.
    #[must_use]
    pub fn everything(&self) -> Dirty {
        let nodes = self.nodes.keys().chain(self.node_caches.keys()).cloned().map(Key::Node);
        let caches = self.caches.present.keys().cloned().map(Key::Cache);
        let secrets = self.keeps_secrets().then_some(Key::Secrets);
        nodes.chain(caches).chain(self.rollouts()).chain(secrets).collect()
    }

    /// What to do about a node's `NodeImageCache`; nothing where it is as it should be. Who is to do it uses
    /// [`Index::take_on`].
    #[must_use]
    pub fn plan_node(&self, name: &str) -> Option<NodeAction> {
        self.plan_starts(name).map(|(action, _)| action)
    }

    /// The same, and the UIDs of the caches whose roll-outs reach the node with it.
    pub(crate) fn plan_starts(&self, name: &str) -> Option<(NodeAction, Vec<String>)> {
        let current = self.node_caches.get(name);
        if current.is_some_and(|current| current.deleting) {
            return None;
        }
        let delete = |current: &NodeCache| {
            let action = NodeAction::Delete {
                uid: current.uid.clone(),
                resource_version: current.resource_version.clone(),
            };
            (action, Vec::new())
        };
        let Some(node) = self.nodes.get(name) else { return current.map(delete) };
        match current {
            // The node that it speaks of is gone, although one of the same name has come.
            Some(current) if !current.is_of(node) => return Some(delete(current)),
            Some(current) if !current.is_plannable() => return None,
            _ => {}
        }
        let plan = desired::plan(&self.caches, &self.turns, &Place { name, node, current });
        let is_settled = current.is_some_and(|current| {
            current.spec.as_deref() == Some(&plan.spec) && current.node_uids.contains(&node.uid)
        });
        let action = NodeAction::Apply {
            node_uid: node.uid.clone(),
            uid: current.map(|current| current.uid.clone()),
            spec: plan.spec,
        };
        (!is_settled).then_some((action, plan.starts))
    }

    /// The status that an `ImageCache` is to have at `now`; nothing where it has it already.
    #[must_use]
    pub fn plan_status(&self, name: &str, now: Timestamp) -> Option<StatusAction> {
        let cache = self.caches.present.get(name).filter(|cache| !cache.deleting)?;
        let nodes = self.nodes.iter().filter_map(|(node_name, node)| {
            let node_cache = self.node_cache_of(node_name, node);
            cache.selects(&node.labels, node_cache).then_some((node_name.as_str(), node, node_cache))
        });
        let status = status::fold(name, cache, nodes, now);
        (status != cache.status).then(|| StatusAction {
            uid: cache.uid.clone(),
            transitions: transitions(&cache.status.conditions, &status.conditions),
            status,
        })
    }

    /// The status of every `ImageCache`.
    pub(crate) fn cache_statuses(&self) -> impl Iterator<Item = &ImageCacheStatus> {
        self.caches.present.values().map(|cache| &cache.status)
    }

    /// Of every Node its `NodeImageCache`, where there is one.
    pub(crate) fn node_caches_of_nodes(&self) -> impl Iterator<Item = Option<&NodeCache>> {
        self.nodes.iter().map(|(name, node)| self.node_cache_of(name, node))
    }

    pub(crate) fn node_cache_of(&self, name: &str, node: &Node) -> Option<&NodeCache> {
        self.node_caches.get(name).filter(|node_cache| node_cache.is_of(node))
    }

    /// The `NodeImageCache` of an earlier node of this name. It is about to go; until then, whoever runs there obeys it.
    pub(crate) fn lingering(&self, name: &str, node: &Node) -> Option<&NodeCache> {
        self.node_caches.get(name).filter(|node_cache| !node_cache.is_of(node))
    }

    /// The nodes whose plan depends on an `ImageCache` in any of these states.
    fn nodes_of<'a>(&self, name: &str, states: impl IntoIterator<Item = &'a Cache>) -> Dirty {
        let states: Vec<&Cache> = states.into_iter().collect();
        let depends = |(node_name, node): &(&String, &Node)| {
            let matches = |cache: &&Cache| cache.active().is_some_and(|valid| valid.matches(&node.labels));
            states.iter().any(matches)
                || self.node_caches.get(*node_name).is_some_and(|held| claims(held, name))
        };
        self.nodes.iter().filter(depends).map(|(node, _)| Key::Node(node.clone())).collect()
    }

    /// The `ImageCache`s whose status may differ when a node's `NodeImageCache` changes from `old` to `new`.
    fn caches_touched(&self, name: &str, old: Option<&NodeCache>, new: Option<&NodeCache>) -> Dirty {
        let Some(node) = self.nodes.get(name) else { return Dirty::new() };
        let is_lingering = old.is_some_and(|old| !old.is_of(node));
        let old = old.filter(|old| old.is_of(node));
        let new = new.filter(|new| new.is_of(node));
        let has_agent = |node_cache: Option<&NodeCache>| node_cache.is_some_and(|held| held.has_agent);
        let agent_changed = has_agent(old) != has_agent(new);
        let changed = changed_images(old, new);
        let removals = changed_removals(old, new);
        let touched = self.caches.present.iter().filter(|(cache_name, cache)| {
            let selects = cache.selects(&node.labels, old) || cache.selects(&node.labels, new);
            let wants =
                |valid: &ValidCache| valid.images().iter().any(|image| changed.contains(&image.target));
            let is_told = agent_changed || removals.contains(*cache_name);
            selects && (is_told || cache.active().is_some_and(wants))
        });
        let mut dirty: Dirty = touched.map(|(cache, _)| Key::Cache(cache.clone())).collect();
        dirty.extend(rollout::changed(name, &self.standings(node, old), &self.standings(node, new)));
        if agent_changed || is_lingering {
            dirty.extend(self.rollouts());
        }
        dirty
    }

    fn rollouts(&self) -> impl Iterator<Item = Key> {
        let caches = self.caches.present.iter().filter(|(_, cache)| cache.is_limited());
        caches.map(|(name, _)| Key::Rollout(name.clone()))
    }

    /// What nodes have been told to hold.
    pub(crate) fn node_specs(&self) -> impl Iterator<Item = &NodeImageCacheSpec> {
        self.node_caches.values().filter_map(|held| held.spec.as_deref())
    }

    fn claimed_uids(&self) -> HashSet<String> {
        let claims = self.node_specs().flat_map(|spec| &spec.images).flat_map(|image| &image.wanted_by);
        claims.map(|claim| claim.uid.clone()).collect()
    }
}

fn missing<'a>(known: impl Iterator<Item = &'a String>, listed: &HashSet<String>) -> Vec<String> {
    known.filter(|name| !listed.contains(*name)).cloned().collect()
}
