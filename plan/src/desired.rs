//! (all `ImageCache`s, one node) → what the node is to hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use larder_crds::{
    DeferredImage, DeletionPolicy, ImageState, NodeImage, NodeImageCacheSpec, NodeRemoval, ReleasedImage,
    WantedBy,
};

use crate::{
    index::{Cache, Node, NodeCache, State},
    rollout::{Course, Pace, Standing, Turns, claims},
    settings,
    validate::{Target, ValidCache},
};

/// All `ImageCache`s: those that exist, and what is remembered of those that are gone while a node still names them.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    /// By name.
    pub present: BTreeMap<String, Cache>,
    /// By UID. A node's specification says what a cache's deletion policy was when that was last written. The
    /// object as it was last seen knows better: somebody may set Retain and delete it in the next moment.
    pub departed: HashMap<String, Cache>,
}

impl Caches {
    /// Whether a claim stands although it cannot be checked: its cache exists and is unusable as it is. Nothing is
    /// taken off a node because somebody made a typing error.
    fn keeps(&self, claim: &WantedBy) -> bool {
        self.present.get(&claim.name).is_some_and(|cache| {
            cache.uid == claim.uid && !cache.deleting && matches!(cache.state, State::Broken(_))
        })
    }

    /// Whether the cache that made this claim is gone, and meant its images to stay.
    fn leaves_behind(&self, claim: &WantedBy, target: &Target) -> bool {
        let gone = match self.present.get(&claim.name) {
            Some(cache) if cache.uid == claim.uid && !cache.deleting => return false,
            Some(cache) if cache.uid == claim.uid => Some(cache),
            _ => self.departed.get(&claim.uid),
        };
        match gone.map(|cache| &cache.state) {
            // An image that it had taken out of its list before it went is not left behind.
            Some(State::Valid(valid)) => {
                valid.deletion_policy() == DeletionPolicy::Retain && valid.wants(target)
            }
            Some(State::Broken(_)) | None => claim.deletion_policy == DeletionPolicy::Retain,
        }
    }
}

/// A node to plan for.
pub(crate) struct Place<'a> {
    pub name: &'a str,
    pub node: &'a Node,
    /// Its `NodeImageCache`, if it has one.
    pub current: Option<&'a NodeCache>,
}

/// What a node is to hold.
pub(crate) struct Plan {
    pub spec: NodeImageCacheSpec,
    /// The UIDs of the caches whose roll-outs reach the node with this.
    pub starts: Vec<String>,
}

/// What a node is to hold, where `turns` says whose turn it is.
///
/// The plan is a fixed point: applied, and planned again, it is the same.
pub(crate) fn plan(caches: &Caches, turns: &Turns, place: &Place<'_>) -> Plan {
    let previous = place.current.and_then(|current| current.spec.as_deref());
    let mut wanted: BTreeMap<Target, NodeImage> = BTreeMap::new();
    let mut deferred: BTreeSet<Target> = BTreeSet::new();
    let mut names = Names::of(previous);
    let mut starts = Vec::new();
    for (name, cache) in &caches.present {
        let Some(valid) = cache.active() else { continue };
        let matches = valid.matches(&place.node.labels);
        // A cache that is paused keeps what it gave, also to nodes that it no longer selects.
        if !matches && valid.pace() != Pace::Paused {
            continue;
        }
        let standing = || Standing::new(name, cache, valid, place.node, place.current);
        match Course::of(valid.pace(), standing, turns.has(&cache.uid, place.name)) {
            Course::Give { starts: is_start } => {
                give(name, cache, valid, &mut wanted);
                starts.extend(is_start.then(|| cache.uid.clone()));
            }
            course => {
                keep(name, cache, valid, place.current, course, &mut wanted);
                for image in valid.images().iter().filter(|_| matches) {
                    deferred.insert(image.target.clone());
                    names.add(image.target.clone(), &image.entry.tags);
                }
            }
        }
    }
    for image in previous.iter().flat_map(|spec| &spec.images) {
        for claim in image.wanted_by.iter().filter(|claim| caches.keeps(claim)) {
            want(&mut wanted, image, claim.clone());
        }
    }
    remember_promises(caches, previous, &mut wanted);
    // What the node has not been told of, it does not have: there is nothing to spare.
    let may_be_there = previous.map(|spec| {
        let told = spec.images.iter().map(Target::from).chain(spec.deferred.iter().map(Target::from));
        told.collect::<BTreeSet<_>>()
    });
    deferred.retain(|target| {
        !wanted.contains_key(target) && may_be_there.as_ref().is_none_or(|told| told.contains(target))
    });
    let mut released = released(caches, place.current, &wanted);
    released.retain(|image| !deferred.contains(&Target::from(image)));
    let mut images: Vec<NodeImage> = wanted.into_values().collect();
    for image in &mut images {
        image.wanted_by.sort();
        image.wanted_by.dedup();
    }
    let mut deferred: Vec<_> = deferred.into_iter().map(DeferredImage::from).collect();
    for image in &mut deferred {
        image.tags = names.further(&Target::from(&*image));
    }
    for image in &mut released {
        image.tags = names.further(&Target::from(&*image));
    }
    let mut spec = NodeImageCacheSpec { images, released, deferred, ..Default::default() };
    set_limits(caches, place.node, &mut spec);
    Plan { spec, starts }
}

/// What concerns the node as a whole: what is to go from it, and what fetching has to respect.
fn set_limits(caches: &Caches, node: &Node, spec: &mut NodeImageCacheSpec) {
    for (name, cache) in &caches.present {
        let Some(valid) = cache.active().filter(|valid| valid.matches(&node.labels)) else { continue };
        spec.disk_reserve = settings::larger(spec.disk_reserve, valid.disk_reserve());
        let limit = valid.max_concurrent_downloads();
        spec.max_concurrent_downloads = spec.max_concurrent_downloads.into_iter().chain(limit).min();
        // While a cache is paused, nothing is removed for it.
        if valid.pace() != Pace::Paused {
            spec.remove.extend(valid.removals().iter().map(|rule| NodeRemoval {
                cache: name.clone(),
                image: rule.image.clone(),
                except: rule.except.clone(),
                keep_newest: rule.keep_newest,
                dry_run: rule.dry_run,
            }));
        }
    }
    spec.remove.sort();
}

/// The further names of images that a node is not to look after now, and may have.
struct Names<'a>(BTreeMap<Target, BTreeSet<&'a String>>);

impl<'a> Names<'a> {
    /// Those that the node has been told of.
    fn of(previous: Option<&'a NodeImageCacheSpec>) -> Self {
        let mut all = Self(BTreeMap::new());
        let Some(spec) = previous else { return all };
        let wanted = spec.images.iter().map(|image| (Target::from(image), &image.tags));
        let released = spec.released.iter().map(|image| (Target::from(image), &image.tags));
        let deferred = spec.deferred.iter().map(|image| (Target::from(image), &image.tags));
        wanted.chain(released).chain(deferred).for_each(|(target, tags)| all.add(target, tags));
        all
    }

    fn add(&mut self, target: Target, tags: &'a [String]) {
        if !tags.is_empty() {
            self.0.entry(target).or_default().extend(tags);
        }
    }

    fn further(&self, target: &Target) -> Vec<String> {
        self.0.get(target).into_iter().flatten().map(|&name| name.clone()).collect()
    }
}

/// What a cache asks for.
fn give(name: &str, cache: &Cache, valid: &ValidCache, wanted: &mut BTreeMap<Target, NodeImage>) {
    for image in valid.images() {
        let claim = WantedBy {
            name: name.to_owned(),
            uid: cache.uid.clone(),
            deletion_policy: valid.deletion_policy(),
        };
        want(wanted, &image.entry, claim);
    }
}

/// What a cache gave a node whose turn for its present content has not come.
fn keep(
    name: &str,
    cache: &Cache,
    valid: &ValidCache,
    current: Option<&NodeCache>,
    course: Course,
    wanted: &mut BTreeMap<Target, NodeImage>,
) {
    let Some(current) = current else { return };
    let images = current.spec.iter().flat_map(|spec| &spec.images);
    for image in images.filter(|image| claims(image, name, &cache.uid)) {
        let target = Target::from(image);
        let is_there = || current.standing(&target).is_some_and(|image| image.state == ImageState::Ready);
        if course == Course::Withdraw && !is_there() {
            continue;
        }
        // What does not make a node fetch takes effect at once. An image that has been taken out of the list goes when
        // the cache goes, as it does everywhere else.
        let wish = valid.wish(&target);
        let deletion_policy = wish.map_or(DeletionPolicy::Delete, |_| valid.deletion_policy());
        let claim = WantedBy { name: name.to_owned(), uid: cache.uid.clone(), deletion_policy };
        match wish {
            // Nothing is taken away from a node while the cache is paused.
            Some(wish) if valid.pace() == Pace::Paused => {
                want(wanted, &settings::keeping_names(&wish.entry, image), claim);
            }
            Some(wish) => want(wanted, &wish.entry, claim),
            None => want(wanted, image, claim),
        }
    }
}

/// Adds a claim on an image, and the wishes that go with it.
fn want(wanted: &mut BTreeMap<Target, NodeImage>, wish: &NodeImage, claim: WantedBy) {
    match wanted.entry(Target::from(wish)) {
        Entry::Occupied(mut place) => {
            settings::join(place.get_mut(), wish);
            place.get_mut().wanted_by.push(claim);
        }
        Entry::Vacant(place) => {
            place.insert(NodeImage { wanted_by: vec![claim], ..wish.clone() });
        }
    }
}

/// A deleted cache's wish to leave its images behind must hold when the next cache that wants them goes as well: which
/// of two caches is deleted first makes no difference. So one such claim stays on an image that others want, unless
/// a cache of the same name took it over.
fn remember_promises(
    caches: &Caches,
    previous: Option<&NodeImageCacheSpec>,
    wanted: &mut BTreeMap<Target, NodeImage>,
) {
    for image in previous.iter().flat_map(|spec| &spec.images) {
        let target = Target::from(image);
        let Some(entry) = wanted.get_mut(&target) else { continue };
        let promise = image.wanted_by.iter().find(|claim| {
            let taken_over = entry.wanted_by.iter().any(|now| now.name == claim.name);
            !taken_over && caches.leaves_behind(claim, &target)
        });
        // Written down as it was meant: a restarted operator knows no more than this.
        let promise =
            promise.map(|claim| WantedBy { deletion_policy: DeletionPolicy::Retain, ..claim.clone() });
        entry.wanted_by.extend(promise);
    }
}

/// The images that nobody wants any more and that are to stay.
fn released(
    caches: &Caches,
    current: Option<&NodeCache>,
    wanted: &BTreeMap<Target, NodeImage>,
) -> Vec<ReleasedImage> {
    let Some((current, spec)) = current.and_then(|current| Some((current, current.spec.as_deref()?))) else {
        return Vec::new();
    };
    let left = spec.images.iter().filter_map(|image| {
        let target = Target::from(image);
        image.wanted_by.iter().any(|claim| caches.leaves_behind(claim, &target)).then_some(target)
    });
    // What the agent has taken up, it has given up its claim on: the entry has served.
    let waiting = spec.released.iter().filter(|_| !current.is_taken_up()).map(Target::from);
    let released: BTreeSet<Target> =
        left.chain(waiting).filter(|target| !wanted.contains_key(target)).collect();
    released.into_iter().map(ReleasedImage::from).collect()
}
