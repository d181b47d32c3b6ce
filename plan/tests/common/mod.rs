//! A small API server in memory: objects with UIDs, generations and resource versions, an index that follows them, and
//! an agent a node. It acts on the plan as the operator does, and on nothing but the keys that the index calls dirty.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
use larder_crds::{
    AgentInfo, CachedImage, DeletionPolicy, FailureReason, ImageCacheSpec, ImageCacheStatus, ImageState,
    NodeImage, NodeImageCacheSpec, NodeImageCacheStatus, NodeImageStatus, Rollout,
};
use larder_plan::{
    Index, Key, SecretsAction,
    index::{Dirty, NodeAction},
    object::{CacheObject, NodeCacheObject, NodeObject, SecretsRoleObject},
    rollout::Written,
};

/// The canonical name of a one-word image.
pub fn canonical(image: &str) -> String {
    format!("docker.io/library/{image}:latest")
}

pub fn spec(pool: Option<&str>, images: &[&str], deletion_policy: DeletionPolicy) -> ImageCacheSpec {
    ImageCacheSpec {
        node_selector: pool.map(|pool| LabelSelector {
            match_labels: Some(BTreeMap::from([("pool".to_owned(), pool.to_owned())])),
            match_expressions: None,
        }),
        images: images
            .iter()
            .map(|&image| CachedImage { image: image.to_owned(), ..CachedImage::default() })
            .collect(),
        deletion_policy,
        ..Default::default()
    }
}

pub fn node(key: &str) -> Key {
    Key::Node(key.to_owned())
}

pub fn cache(key: &str) -> Key {
    Key::Cache(key.to_owned())
}

pub fn rollout(key: &str) -> Key {
    Key::Rollout(key.to_owned())
}

/// The same with a roll-out that reaches some nodes at a time.
pub fn limited(spec: ImageCacheSpec, limit: &str) -> ImageCacheSpec {
    let limit = limit.parse().map_or_else(|_| IntOrString::String(limit.to_owned()), IntOrString::Int);
    ImageCacheSpec { rollout: Some(Rollout { max_concurrent_nodes: Some(limit) }), ..spec }
}

pub fn paused(spec: ImageCacheSpec) -> ImageCacheSpec {
    ImageCacheSpec { paused: true, ..spec }
}

/// How a write that was sent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    Answered,
    /// It is written, and the answer is lost.
    Unanswered,
    Refused,
}

#[derive(Default)]
pub struct World {
    pub index: Index,
    pub caches: BTreeMap<String, CacheObject>,
    pub nodes: BTreeMap<String, NodeObject>,
    pub node_caches: BTreeMap<String, NodeCacheObject>,
    /// What each node's agent has in its store and looks after, or has been told to keep.
    pub held: BTreeMap<String, BTreeSet<String>>,
    pub kept: BTreeMap<String, BTreeSet<String>>,
    pub dirty: Dirty,
    /// Writes so far.
    pub writes: usize,
    pub now: i64,
    /// Whether dirty keys are worked on from the last to the first.
    pub backwards: bool,
    /// Writes that have been sent and have not arrived.
    pub under_way: BTreeMap<String, NodeAction>,
    /// The Role that lets agents read Secrets, where there is one.
    pub role: Option<SecretsRoleObject>,
    version: u64,
    uids: u64,
}

impl World {
    fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    fn version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn soil(&mut self, dirty: Dirty) -> Dirty {
        self.dirty.extend(dirty.clone());
        dirty
    }

    /// Creates or edits an `ImageCache`; `Err` is a specification that cannot be read.
    pub fn put_cache(&mut self, name: &str, spec: Result<ImageCacheSpec, String>) -> Dirty {
        let resource_version = Some(self.version());
        let object = match self.caches.get(name).cloned() {
            Some(old) => {
                let generation = old.generation.map(|generation| generation + i64::from(old.spec != spec));
                CacheObject { resource_version, generation, spec, ..old }
            }
            None => CacheObject {
                name: name.to_owned(),
                uid: self.uid(),
                resource_version,
                generation: Some(1),
                deleting: false,
                spec,
                status: ImageCacheStatus::default(),
            },
        };
        self.caches.insert(name.to_owned(), object.clone());
        let dirty = self.index.apply_cache(object);
        self.soil(dirty)
    }

    pub fn delete_cache(&mut self, name: &str) -> Dirty {
        self.caches.remove(name);
        let dirty = self.index.delete_cache(name);
        self.soil(dirty)
    }

    pub fn put_node(&mut self, name: &str, pool: &str) -> Dirty {
        let uid = self.nodes.get(name).map(|old| old.uid.clone());
        let uid = uid.unwrap_or_else(|| self.uid());
        let labels = BTreeMap::from([("pool".to_owned(), pool.to_owned())]);
        let is_available = self.nodes.get(name).is_none_or(|old| old.is_available);
        let object = NodeObject { name: name.to_owned(), uid, labels, is_available };
        self.nodes.insert(name.to_owned(), object.clone());
        let dirty = self.index.apply_node(object);
        self.soil(dirty)
    }

    /// A node leaves service, or comes back.
    pub fn set_available(&mut self, name: &str, is_available: bool) -> Dirty {
        let Some(node) = self.nodes.get_mut(name) else { return Dirty::new() };
        node.is_available = is_available;
        let dirty = self.index.apply_node(node.clone());
        self.soil(dirty)
    }

    pub fn delete_node(&mut self, name: &str) -> Dirty {
        self.nodes.remove(name);
        let dirty = self.index.delete_node(name);
        self.soil(dirty)
    }

    pub fn delete_node_cache(&mut self, name: &str) -> Dirty {
        self.node_caches.remove(name);
        let dirty = self.index.delete_node_cache(name);
        self.soil(dirty)
    }

    pub fn write_node_cache(&mut self, object: NodeCacheObject) -> Dirty {
        let resource_version = Some(self.version());
        let object = NodeCacheObject { resource_version, ..object };
        self.node_caches.insert(object.name.clone(), object.clone());
        let dirty = self.index.apply_node_cache(object);
        self.soil(dirty)
    }

    /// A new operator, which knows nothing but what the API server has.
    pub fn restart(&mut self) {
        let (index, dirty) = Index::new(
            self.caches.values().cloned().collect(),
            self.nodes.values().cloned().collect(),
            self.node_caches.values().cloned().collect(),
        );
        (self.index, self.dirty) = (index, dirty);
        self.under_way.clear();
        let dirty = self.index.apply_secrets_role(self.role.clone());
        self.soil(dirty);
    }

    /// Works on dirty keys until there are none, as the operator does.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.work() {
                return;
            }
        }
        panic!("the plan never comes to rest");
    }

    /// Works on one dirty key, if there is one. Nodes whose write is under way wait.
    pub fn work(&mut self) -> bool {
        let is_free = |key: &&Key| !matches!(key, Key::Node(name) if self.under_way.contains_key(name));
        let key =
            if self.backwards { self.dirty.iter().rfind(is_free) } else { self.dirty.iter().find(is_free) };
        let Some(key) = key.cloned() else { return false };
        self.dirty.remove(&key);
        match key {
            Key::Node(name) => {
                self.send(&name);
                self.land(&name, Landing::Answered);
            }
            Key::Cache(name) => self.report(&name),
            Key::Rollout(name) => {
                let dirty = self.index.roll_out(&name);
                self.soil(dirty);
            }
            Key::Secrets => {
                if let Some(SecretsAction::Apply(names)) = self.index.plan_secrets() {
                    self.write_role(Some(names));
                }
            }
        }
        true
    }

    /// The Role that lets agents read Secrets says this now, and the watch brings it. `None`: something of its own.
    pub fn write_role(&mut self, names: Option<BTreeSet<String>>) {
        let resource_version = Some(self.version());
        let role = SecretsRoleObject { uid: "role".to_owned(), resource_version, names };
        self.role = Some(role.clone());
        let dirty = self.index.apply_secrets_role(Some(role));
        self.soil(dirty);
    }

    /// Sends what is to be done about a node's object to the API server, which has not got it yet.
    pub fn send(&mut self, name: &str) {
        self.dirty.remove(&node(name));
        // Whoever does not know how its last write ended asks first.
        if self.index.is_in_doubt(name) {
            self.read_back(name);
        }
        if let Some(action) = self.index.take_on(name) {
            self.under_way.insert(name.to_owned(), action);
        }
    }

    fn read_back(&mut self, name: &str) {
        self.watch(name);
        let dirty = self.index.conclude(name, Written::Known);
        self.soil(dirty);
    }

    /// The watch brings what the API server has of a node.
    fn watch(&mut self, name: &str) {
        let dirty = match self.node_caches.get(name).cloned() {
            Some(object) => self.index.apply_node_cache(object),
            None => self.index.delete_node_cache(name),
        };
        self.soil(dirty);
    }

    /// What was sent arrives, or does not.
    pub fn land(&mut self, name: &str, landing: Landing) {
        let Some(action) = self.under_way.remove(name) else { return };
        let is_written = landing != Landing::Refused && self.write(name, action, landing);
        if is_written && landing == Landing::Unanswered {
            self.dirty.insert(node(name));
            return;
        }
        let written = if is_written { Written::Known } else { Written::Refused };
        let dirty = self.index.conclude(name, written);
        self.soil(dirty);
        if !is_written {
            // It was refused for something that had changed: sooner or later the watch brings it.
            self.watch(name);
            self.dirty.insert(node(name));
        }
    }

    /// Does what the API server does with a write, and says whether it took it. Without an answer only the API server knows;
    /// the watch will tell.
    fn write(&mut self, name: &str, action: NodeAction, landing: Landing) -> bool {
        let old = self.node_caches.get(name).cloned();
        let object = match action {
            NodeAction::Delete { uid, resource_version } => {
                let is_same =
                    old.is_some_and(|old| old.uid == uid && old.resource_version == resource_version);
                if is_same {
                    self.delete_node_cache(name);
                    self.writes += 1;
                }
                return is_same;
            }
            NodeAction::Apply { node_uid, uid, spec } => {
                if uid.is_some() && uid != old.as_ref().map(|old| old.uid.clone()) {
                    return false;
                }
                let generation = old.as_ref().and_then(|old| old.generation).unwrap_or(0);
                let is_new_spec = old.as_ref().is_none_or(|old| old.spec.as_ref() != Ok(&spec));
                NodeCacheObject {
                    name: name.to_owned(),
                    uid: old.as_ref().map_or_else(|| self.uid(), |old| old.uid.clone()),
                    resource_version: Some(self.version()),
                    generation: Some(generation + i64::from(is_new_spec)),
                    deleting: false,
                    node_uids: vec![node_uid],
                    spec: Ok(spec),
                    status: old.map(|old| old.status).unwrap_or_default(),
                }
            }
        };
        self.writes += 1;
        self.check_limits(name, &object);
        self.node_caches.insert(name.to_owned(), object.clone());
        if landing == Landing::Answered {
            let dirty = self.index.apply_node_cache(object);
            self.soil(dirty);
        }
        true
    }

    /// Whether a node fetches what a cache has given it, as the API server has it.
    pub fn is_busy(object: &NodeCacheObject, cache: &CacheObject) -> bool {
        let Ok(spec) = &object.spec else { return false };
        let given = spec.images.iter().filter(|image| image.wanted_by.iter().any(|by| by.uid == cache.uid));
        let states: Vec<_> = given
            .map(|image| {
                let reported =
                    object.status.images.iter().find(|reported| {
                        reported.image == image.image && reported.platform == image.platform
                    });
                reported.map(|reported| reported.state)
            })
            .collect();
        !states.contains(&Some(ImageState::Failed))
            && states.iter().any(|state| *state != Some(ImageState::Ready))
    }

    /// How many nodes fetch what a cache has given them.
    pub fn busy(&self, cache: &str) -> usize {
        let cache = &self.caches[cache];
        let nodes = self.node_caches.values().filter(|object| self.nodes.contains_key(&object.name));
        nodes.filter(|object| Self::is_busy(object, cache)).count()
    }

    /// The cache that keeps a node busy, if there is one.
    pub fn busy_with_anything(&self, node: &str) -> Option<&str> {
        let object = self.node_caches.get(node)?;
        self.caches.values().find(|cache| Self::is_busy(object, cache)).map(|cache| cache.name.as_str())
    }

    /// A write of the operator's that makes a node busy never makes too many of them.
    fn check_limits(&self, name: &str, new: &NodeCacheObject) {
        for (cache_name, cache) in &self.caches {
            let Ok(spec) = &cache.spec else { continue };
            let old = self.node_caches.get(name);
            let begins = Self::is_busy(new, cache) && !old.is_some_and(|old| Self::is_busy(old, cache));
            if !begins {
                continue;
            }
            assert!(!spec.paused, "{name} began with {cache_name}, which is paused");
            let limit = match spec.rollout.as_ref().and_then(|rollout| rollout.max_concurrent_nodes.as_ref())
            {
                None => continue,
                Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap(),
                Some(IntOrString::String(percent)) => {
                    let percent: usize = percent.trim_end_matches('%').parse().unwrap();
                    let pool = spec
                        .node_selector
                        .as_ref()
                        .map(|selector| selector.match_labels.as_ref().unwrap()["pool"].clone());
                    let selected = self.nodes.values().filter(|node| match &pool {
                        Some(pool) => node.labels["pool"] == *pool,
                        None => {
                            self.node_caches.get(&node.name).is_some_and(|held| held.status.agent.is_some())
                        }
                    });
                    (selected.count() * percent).div_ceil(100).max(1)
                }
            };
            let before = self.busy(cache_name);
            assert!(before < limit, "{name} is the {}th busy with {cache_name}, of {limit}", before + 1);
        }
    }

    fn report(&mut self, name: &str) {
        let now = Timestamp::from_second(self.now).unwrap();
        let Some(action) = self.index.plan_status(name, now) else { return };
        let resource_version = Some(self.version());
        let object = self.caches.get_mut(name).unwrap();
        assert_eq!(object.uid, action.uid);
        (object.status, object.resource_version) = (action.status, resource_version);
        let object = object.clone();
        let dirty = self.index.apply_cache(object);
        self.soil(dirty);
        self.writes += 1;
    }

    /// The node's agent does all that it is told, and says so.
    pub fn run_agent(&mut self, name: &str) {
        self.run_agent_with(name, |_| ready(10));
    }

    /// The same, where each image stands as `standing` says.
    pub fn run_agent_with(&mut self, name: &str, standing: impl Fn(&NodeImage) -> NodeImageStatus) {
        let Some(object) = self.node_caches.get(name).cloned() else { return };
        let Ok(spec) = object.spec.clone() else { return };
        self.obey(name, &spec);
        let images = spec.images.iter().map(|image| NodeImageStatus {
            image: image.image.clone(),
            platform: image.platform.clone(),
            ..standing(image)
        });
        let status = NodeImageCacheStatus {
            observed_generation: object.generation,
            agent: Some(AgentInfo {
                version: "1".to_owned(),
                platform: "linux/amd64".to_owned(),
                runtime: None,
            }),
            images: images.collect(),
            ..Default::default()
        };
        if status != object.status {
            self.write_node_cache(NodeCacheObject { status, ..object });
        }
    }

    fn obey(&mut self, name: &str, spec: &NodeImageCacheSpec) {
        let wanted: BTreeSet<String> = spec.images.iter().map(|image| image.image.clone()).collect();
        let released: BTreeSet<String> = spec.released.iter().map(|image| image.image.clone()).collect();
        let held = self.held.entry(name.to_owned()).or_default();
        let kept = self.kept.entry(name.to_owned()).or_default();
        kept.extend(held.difference(&wanted).filter(|image| released.contains(*image)).cloned());
        *kept = kept.difference(&wanted).cloned().collect();
        *held = wanted;
    }

    /// What a node is to hold, as the API server has it.
    pub fn desired(&self, node: &str) -> Vec<String> {
        let spec = self.node_caches.get(node).and_then(|object| object.spec.as_ref().ok());
        spec.map(|spec| spec.images.iter().map(|image| image.image.clone()).collect()).unwrap_or_default()
    }

    pub fn released(&self, node: &str) -> Vec<String> {
        let spec = self.node_caches.get(node).and_then(|object| object.spec.as_ref().ok());
        spec.map(|spec| spec.released.iter().map(|image| image.image.clone()).collect()).unwrap_or_default()
    }

    pub fn kept(&self, node: &str) -> Vec<String> {
        self.kept.get(node).into_iter().flatten().cloned().collect()
    }

    pub fn status(&self, cache: &str) -> &ImageCacheStatus {
        &self.caches[cache].status
    }

    /// The status of a condition and its reason.
    pub fn condition(&self, cache: &str, kind: &str) -> (String, String) {
        let condition =
            self.status(cache).conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }
}

fn image_status(state: ImageState) -> NodeImageStatus {
    NodeImageStatus::new("", None, state)
}

pub fn ready(size: i64) -> NodeImageStatus {
    NodeImageStatus {
        size: Some(size),
        bytes_present: Some(size),
        digest: Some("sha256:1".to_owned()),
        ..image_status(ImageState::Ready)
    }
}

pub fn pulling(size: Option<i64>, present: i64) -> NodeImageStatus {
    NodeImageStatus { size, bytes_present: Some(present), ..image_status(ImageState::Pulling) }
}

pub fn failed(reason: FailureReason, message: &str) -> NodeImageStatus {
    NodeImageStatus {
        reason: Some(reason),
        message: Some(message.to_owned()),
        ..image_status(ImageState::Failed)
    }
}
