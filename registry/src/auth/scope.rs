//! What a token shall allow (<https://distribution.github.io/distribution/spec/auth/scope/>).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Resources such as `repository:library/ubuntu`, and the actions on each.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Scope(BTreeMap<String, BTreeSet<String>>);

/// The most resources of a challenge that are passed on.
const MAX_RESOURCES: usize = 16;

impl Scope {
    /// Reading a repository.
    pub fn pull(repository: &str) -> Self {
        Self::default().and(&format!("repository:{repository}"), "pull")
    }

    /// Reading and writing a repository.
    pub fn push(repository: &str) -> Self {
        Self::pull(repository).and(&format!("repository:{repository}"), "push")
    }

    /// The same and reading another repository, to mount a blob from there.
    pub fn and_pull(self, repository: &str) -> Self {
        self.and(&format!("repository:{repository}"), "pull")
    }

    /// What a challenge asks for: `repository:a:pull,push repository:b:pull`.
    pub fn parse(text: &str) -> Self {
        let mut scope = Self::default();
        for part in text.split_ascii_whitespace().take(MAX_RESOURCES) {
            // The name may have a port in it: the actions are what comes last.
            let Some((resource, actions)) = part.rsplit_once(':') else { continue };
            for action in actions.split(',').filter(|action| !action.is_empty()) {
                scope = scope.and(resource, action);
            }
        }
        scope
    }

    /// Both.
    pub fn with(mut self, other: Self) -> Self {
        for (resource, actions) in other.0 {
            self.0.entry(resource).or_default().extend(actions);
        }
        self
    }

    fn and(mut self, resource: &str, action: &str) -> Self {
        self.0.entry(resource.to_owned()).or_default().insert(action.to_owned());
        self
    }

    /// One text a resource, as token servers take them.
    pub fn resources(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<_> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.resources().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scopes_are_merged_by_resource() {
        let ours = Scope::push("team/app").and_pull("base/ubuntu");
        assert_eq!(ours.to_string(), "repository:base/ubuntu:pull repository:team/app:pull,push");
        let both = ours.with(Scope::parse("repository:team/app:pull,delete registry:catalog:*"));
        assert_eq!(
            both.to_string(),
            "registry:catalog:* repository:base/ubuntu:pull repository:team/app:delete,pull,push"
        );
        assert_eq!(Scope::parse("repository:host:5000/a:pull"), Scope::pull("host:5000/a"));
        assert_eq!(Scope::parse(" nonsense : a: "), Scope::default());
    }

    proptest! {
        #[test]
        fn text_and_back(text in "[a-z:, *]{0,60}") {
            let scope = Scope::parse(&text);
            prop_assert_eq!(Scope::parse(&scope.to_string()), scope);
        }
    }
}
