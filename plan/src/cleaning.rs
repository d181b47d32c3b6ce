//! Images that rules take off a node: (rules, the images that are there) → what goes.
//!
//! A rule speaks of names, and an image may have several: those that match go, and the image goes with its last one, as
//! docker has it. What keeps an image (it is wanted, in use, or pinned by others) keeps all of its names.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use larder_crds::{NodeRemoval, NodeRemovalStatus};
use larder_oci::{Digest, ImageName, Pattern};

use crate::removal::matches_everything;

/// The most names that a status gives for a rule.
pub const MAX_NAMES: usize = 10;

/// An image on the node: in its layer store, in its container runtime, or in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What tells it from others: its configuration's digest.
    pub id: Digest,
    /// Its tags; names by digest in repositories in which it has no tag.
    pub names: BTreeSet<ImageName>,
    /// When it was made, as its configuration says.
    pub created: Option<Timestamp>,
    /// When it came to the node, where that is known.
    pub came: Option<Timestamp>,
    /// Why it stays for now, whatever the rules say.
    pub stays: Option<Stays>,
}

/// Why an image stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stays {
    /// An `ImageCache` wants it, will want it, or has just left it behind.
    Wanted,
    /// Others have pinned it.
    Pinned,
    /// A container uses it.
    InUse,
    /// It came, or a container used it, a moment ago: whoever brought it may be about to use it.
    Young,
}

/// Rules, ready to be applied.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    given: NodeRemoval,
    /// Nothing where the rule cannot be read, which the operator rules out. Then it matches nothing: one with half of its
    /// exceptions would take away too much.
    patterns: Option<(Pattern, Vec<Pattern>)>,
}

/// What rules come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What each rule matches, in the order of the rules. Nothing counts as removed.
    pub statuses: Vec<NodeRemovalStatus>,
    /// What goes.
    pub going: Vec<Going>,
}

/// An image of which names go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Going {
    /// Which image.
    pub id: Digest,
    /// The names that go.
    pub names: BTreeSet<ImageName>,
    /// The rules that say so, by their places.
    pub rules: BTreeSet<usize>,
    /// Whether no name is left.
    pub is_last: bool,
}

impl Rules {
    /// Reads the rules of a node.
    #[must_use]
    pub fn new(given: &[NodeRemoval]) -> Self {
        let read = |given: &NodeRemoval| Rule { patterns: patterns(given), given: given.clone() };
        Self(given.iter().map(read).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules as they were given.
    pub fn given(&self) -> impl Iterator<Item = &NodeRemoval> {
        self.0.iter().map(|rule| &rule.given)
    }

    /// What goes, and what would. Each image is given once. The order of rules makes no difference to what goes.
    #[must_use]
    pub fn plan(&self, images: &[Image]) -> Plan {
        let mut plan = Plan::default();
        let mut going: BTreeMap<&Digest, Going> = BTreeMap::new();
        for (place, rule) in self.0.iter().enumerate() {
            let (mut gone, mut in_use, mut shown) = (0, 0, BTreeSet::new());
            for (image, names) in rule.matching(images) {
                match image.stays {
                    Some(Stays::Wanted | Stays::Pinned) => continue,
                    Some(Stays::InUse) => in_use += 1,
                    Some(Stays::Young) | None => gone += 1,
                }
                shown.extend(names.iter().map(|name| name.as_str()));
                if image.stays.is_none() && !rule.given.dry_run {
                    let entry = going.entry(&image.id).or_insert_with(|| Going::of(image));
                    entry.names.extend(names.into_iter().cloned());
                    entry.rules.insert(place);
                    entry.is_last = entry.names.len() == image.names.len();
                }
            }
            plan.statuses.push(NodeRemovalStatus {
                cache: rule.given.cache.clone(),
                image: rule.given.image.clone(),
                dry_run: rule.given.dry_run,
                images: gone,
                in_use,
                removed: 0,
                names: shown.into_iter().take(MAX_NAMES).map(str::to_owned).collect(),
            });
        }
        plan.going = going.into_values().collect();
        plan
    }
}

impl Going {
    fn of(image: &Image) -> Self {
        Self { id: image.id.clone(), names: BTreeSet::new(), rules: BTreeSet::new(), is_last: false }
    }
}

fn patterns(given: &NodeRemoval) -> Option<(Pattern, Vec<Pattern>)> {
    let pattern = Pattern::removing(&given.image).ok().filter(|pattern| !matches_everything(pattern))?;
    let except = given.except.iter().map(|text| Pattern::keeping(text)).collect::<Result<_, _>>();
    Some((pattern, except.ok()?))
}

impl Rule {
    /// The images of which the rule takes names, with these names: without the newest of each repository.
    fn matching<'a>(&self, images: &'a [Image]) -> Vec<(&'a Image, Vec<&'a ImageName>)> {
        let Some((pattern, except)) = &self.patterns else { return Vec::new() };
        let is_excepted =
            |image: &Image, name| except.iter().any(|text| text.matches(name) || text.is_id(&image.id));
        let names = |image: &'a Image| {
            let names = image.names.iter().filter(|name| pattern.matches(name) && !is_excepted(image, name));
            (image, names.collect::<Vec<_>>())
        };
        let mut matching: Vec<_> = images.iter().map(names).collect();
        if let Some(count) = self.given.keep_newest.and_then(|count| usize::try_from(count).ok()) {
            let newest = newest(&matching, count);
            for (image, names) in &mut matching {
                names.retain(|name| !newest.contains(&(repository(name), &image.id)));
            }
        }
        matching.retain(|(_, names)| !names.is_empty());
        matching
    }
}

/// An image's repository, registry and all.
fn repository(name: &ImageName) -> (&str, &str) {
    (name.registry(), name.repository())
}

/// The images that are the newest ones of a repository, with that repository. Images count, not names.
fn newest<'a>(
    matching: &[(&'a Image, Vec<&'a ImageName>)],
    count: usize,
) -> BTreeSet<((&'a str, &'a str), &'a Digest)> {
    let mut repositories: BTreeMap<_, BTreeMap<&Digest, &Image>> = BTreeMap::new();
    for (image, names) in matching {
        for name in names {
            repositories.entry(repository(name)).or_default().insert(&image.id, image);
        }
    }
    let newest_of = |(repository, images): (_, BTreeMap<&'a Digest, &'a Image>)| {
        let mut images: Vec<_> = images.into_values().collect();
        images.sort_by(|a, b| (b.created, b.came, &b.id).cmp(&(a.created, a.came, &a.id)));
        images.into_iter().take(count).map(move |image| (repository, &image.id)).collect::<Vec<_>>()
    };
    repositories.into_iter().flat_map(newest_of).collect()
}

#[cfg(test)]
mod tests;
