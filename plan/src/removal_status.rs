//! What the nodes say of rules for removal → what the `ImageCache` says of them.
//!
//! An image that is still there holds nothing up: whether an `ImageCache` is ready does not depend on its rules.

use std::collections::BTreeSet;

use larder_crds::{NodeRemovalStatus, RemovalRule, RemovalSummary};

use crate::{cleaning::MAX_NAMES, node_cache::NodeCache};

/// What has been counted so far of a cache's rules.
pub(crate) struct Tally<'a> {
    cache: &'a str,
    rules: Vec<RuleTally<'a>>,
}

struct RuleTally<'a> {
    rule: &'a RemovalRule,
    nodes: i32,
    images: i32,
    in_use: i32,
    removed: i32,
    /// The first ones, in order.
    names: BTreeSet<&'a str>,
}

impl<'a> Tally<'a> {
    pub fn new(cache: &'a str, rules: &'a [RemovalRule]) -> Self {
        let new =
            |rule| RuleTally { rule, nodes: 0, images: 0, in_use: 0, removed: 0, names: BTreeSet::new() };
        Self { cache, rules: rules.iter().map(new).collect() }
    }

    pub fn add(&mut self, held: Option<&'a NodeCache>) {
        let Some(held) = held else { return };
        for rule in &mut self.rules {
            if let Some(status) = held.removal(self.cache, &rule.rule.image) {
                rule.add(status);
            }
        }
    }

    /// One a rule, whether it matches anything or not.
    pub fn summaries(self) -> Vec<RemovalSummary> {
        let summary = |rule: RuleTally<'_>| RemovalSummary {
            image: rule.rule.image.clone(),
            dry_run: rule.rule.dry_run,
            nodes: rule.nodes,
            images: rule.images,
            in_use: rule.in_use,
            removed: rule.removed,
            names: rule.names.into_iter().map(str::to_owned).collect(),
        };
        self.rules.into_iter().map(summary).collect()
    }
}

impl<'a> RuleTally<'a> {
    fn add(&mut self, status: &'a NodeRemovalStatus) {
        self.removed = self.removed.saturating_add(status.removed.max(0));
        // A node that has not heard yet that the rule is in earnest now, or is not any more, speaks of another one.
        if status.dry_run != self.rule.dry_run {
            return;
        }
        let (images, in_use) = (status.images.max(0), status.in_use.max(0));
        self.nodes += i32::from(images > 0 || in_use > 0);
        self.images = self.images.saturating_add(images);
        self.in_use = self.in_use.saturating_add(in_use);
        for name in &status.names {
            self.names.insert(name);
            if self.names.len() > MAX_NAMES {
                self.names.pop_last();
            }
        }
    }
}
