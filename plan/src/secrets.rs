//! Which Secrets agents may read: those that `ImageCache`s name, and no other.

use std::collections::{BTreeSet, HashSet};

use crate::{
    index::{Cache, Dirty, Index, Key, State},
    object::{SecretsRoleObject, is_older},
    validate::{Problem, ValidCache, cut},
};

/// What Helm keeps a release's values in: the operator's namespace is often a release's.
const HELMS_RECORDS: &str = "sh.helm.release.";

/// What is known of the Role that lets agents read Secrets.
#[derive(Debug, Default)]
pub(crate) enum SecretsRole {
    /// Nothing: there has been no look at it.
    #[default]
    Unknown,
    /// It is not there.
    Absent,
    Present(SecretsRoleObject),
}

/// What to do about the Role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretsAction {
    /// Have it allow reading these Secrets, and nothing else.
    Apply(BTreeSet<String>),
    /// Nothing can be done: it is not there, and these Secrets are named.
    Missing(BTreeSet<String>),
}

impl Index {
    /// The Role is about to be looked up. To be called before the API server is asked: it may have been put back to an
    /// earlier state.
    pub fn begin_secrets_role(&mut self) {
        if let SecretsRole::Present(role) = &mut self.secrets_role {
            role.resource_version = None;
        }
    }

    /// The Role is there, was changed, or is gone.
    pub fn apply_secrets_role(&mut self, object: Option<SecretsRoleObject>) -> Dirty {
        let new = match object {
            Some(object) => SecretsRole::Present(object),
            None => SecretsRole::Absent,
        };
        if let (SecretsRole::Present(old), SecretsRole::Present(new)) = (&self.secrets_role, &new)
            && old.uid == new.uid
            && is_older(new.resource_version.as_deref(), old.resource_version.as_deref())
        {
            return Dirty::new();
        }
        self.secrets_role = new;
        self.plan_secrets().map(|_| Key::Secrets).into_iter().collect()
    }

    /// What to do about the Role; nothing where it is as it should be, or where nothing is known of it.
    #[must_use]
    pub fn plan_secrets(&self) -> Option<SecretsAction> {
        let wanted = || self.named_secrets();
        match &self.secrets_role {
            SecretsRole::Unknown => None,
            SecretsRole::Absent => {
                Some(wanted()).filter(|names| !names.is_empty()).map(SecretsAction::Missing)
            }
            SecretsRole::Present(role) => {
                let wanted = wanted();
                (role.names.as_ref() != Some(&wanted)).then_some(SecretsAction::Apply(wanted))
            }
        }
    }

    /// Whether anything is known of the Role.
    pub(crate) fn keeps_secrets(&self) -> bool {
        !matches!(self.secrets_role, SecretsRole::Unknown)
    }

    /// The Secrets that `ImageCache`s name. One that cannot be used keeps the images that it gave to nodes, and so the
    /// Secrets that it named for them.
    fn named_secrets(&self) -> BTreeSet<String> {
        let present = &self.caches.present;
        let active = present.values().filter_map(Cache::active);
        let mut names: BTreeSet<String> = active.flat_map(ValidCache::pull_secrets).cloned().collect();
        let broken: BTreeSet<&str> =
            present.values().filter(|cache| is_broken(cache)).map(|cache| cache.uid.as_str()).collect();
        if !broken.is_empty() {
            // What is equal on many nodes is there once.
            let mut seen = HashSet::new();
            let specs = self.node_specs().filter(|spec| seen.insert(std::ptr::from_ref(*spec)));
            let images = specs.flat_map(|spec| &spec.images);
            let kept = images
                .filter(|image| image.wanted_by.iter().any(|claim| broken.contains(claim.uid.as_str())));
            names.extend(kept.flat_map(|image| &image.pull_secrets).filter(|name| is_allowed(name)).cloned());
        }
        names
    }

    /// What a change of an `ImageCache` from `old` to `new` means.
    pub(crate) fn secrets_touched(&self, old: Option<&Cache>, new: Option<&Cache>) -> Option<Key> {
        let names = |cache: Option<&Cache>| -> BTreeSet<String> {
            let valid = cache.and_then(Cache::active);
            valid.into_iter().flat_map(ValidCache::pull_secrets).cloned().collect()
        };
        let is_broken = |cache: Option<&Cache>| cache.is_some_and(is_broken);
        let differs = names(old) != names(new) || is_broken(old) != is_broken(new);
        (self.keeps_secrets() && differs).then_some(Key::Secrets)
    }

    /// What a change of a node's specification means.
    pub(crate) fn secrets_kept(&self) -> Option<Key> {
        (self.keeps_secrets() && self.caches.present.values().any(is_broken)).then_some(Key::Secrets)
    }
}

fn is_broken(cache: &Cache) -> bool {
    !cache.deleting && matches!(cache.state, State::Broken(_))
}

/// Checks the names of Secrets: in order, each once.
pub(crate) fn read<'a>(names: impl Iterator<Item = &'a str>, problems: &mut Vec<Problem>) -> Vec<String> {
    let mut read = BTreeSet::new();
    for (place, name) in names.enumerate() {
        let why = if !is_name(name) {
            "is no name of a Secret: write lower-case letters, digits, - and ."
        } else if is_allowed(name) {
            read.insert(name.to_owned());
            continue;
        } else {
            "is a record of Helm's, and no Secret with logins"
        };
        let field = format!("spec.pullSecrets[{place}].name");
        problems.push(Problem { field, message: format!("{:?} {why}", cut(name)) });
    }
    read.into_iter().collect()
}

/// A name that Kubernetes takes for a Secret (RFC 1123's subdomains).
fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// Whether agents may be let read a Secret of this name. The admission policy in the manifests has the same rule: a name
/// that it refuses would keep all others from getting through.
fn is_allowed(name: &str) -> bool {
    is_name(name) && !name.starts_with(HELMS_RECORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_secrets_names_and_not_helms() {
        let mut problems = Vec::new();
        let names = ["regcred", "b.c-1", "regcred", "../x", "", "Big", "a_b", "sh.helm.release.v1.larder.v1"];
        assert_eq!(read(names.into_iter(), &mut problems), ["b.c-1", "regcred"]);
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, [3, 4, 5, 6, 7].map(|number| format!("spec.pullSecrets[{number}].name")));
        assert!(problems[4].message.contains("Helm"), "{}", problems[4]);
    }
}
