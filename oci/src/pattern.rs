//! Patterns for image names.

use crate::{Digest, ImageName};

/// A pattern for image names: `*`, `?` and `[…]` as shells have them, and `**` for any number of path parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    glob: glob::Pattern,
    kind: Kind,
}

/// How a pattern is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `*` stops at a `/`; a name without its tag counts too.
    Docker,
    /// `*` matches everything; a name without its tag counts too.
    Keeping,
    /// `*` stops at a `/`; the whole name has to match.
    Removing,
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern {text:?}: {why}")]
pub struct InvalidPattern {
    text: String,
    why: String,
}

impl Pattern {
    /// As docker's `--filter reference=` has it: `*` and `?` stop at a `/`.
    pub fn docker(text: &str) -> Result<Self, InvalidPattern> {
        Self::parse(text, text, Kind::Docker)
    }

    /// For what is to be kept: `*` matches everything, since keeping too much harms less than keeping too little.
    pub fn keeping(text: &str) -> Result<Self, InvalidPattern> {
        Self::parse(text, text, Kind::Keeping)
    }

    /// For what is to be removed: a text without `*`, `?` and `[` is one image's name, read as docker reads it (`nginx` is
    /// `docker.io/library/nginx:latest`, and no other tag). Otherwise the whole name has to match, tag and all; `*` and `?`
    /// stop at a `/`.
    pub fn removing(text: &str) -> Result<Self, InvalidPattern> {
        if text.contains(['*', '?', '[']) {
            return Self::parse(text, text, Kind::Removing);
        }
        let name = text.parse::<ImageName>();
        let name = name.map_err(|error| InvalidPattern { text: cut(text), why: error.to_string() })?;
        Self::parse(text, &glob::Pattern::escape(name.as_str()), Kind::Removing)
    }

    fn parse(text: &str, glob: &str, kind: Kind) -> Result<Self, InvalidPattern> {
        // Go writes a negated class with ^.
        let glob = glob::Pattern::new(&glob.replace("[^", "[!"));
        let glob = glob.map_err(|error| InvalidPattern {
            text: cut(text),
            why: format!("{} at character {}", error.msg, error.pos + 1),
        })?;
        Ok(Self { text: text.to_owned(), glob, kind })
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the name matches, short or in full; with its tag, or, unless it is a pattern for what is to be removed,
    /// without.
    #[must_use]
    pub fn matches(&self, name: &ImageName) -> bool {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: self.kind != Kind::Keeping,
            require_literal_leading_dot: false,
        };
        let full = name.as_str();
        let matches = |text: &str| self.glob.matches_with(text, options);
        let without_tag = || {
            let repository = &full[..name.registry().len() + 1 + name.repository().len()];
            self.kind != Kind::Removing && (matches(name.familiar_repository()) || matches(repository))
        };
        !name.is_nameless() && (matches(name.familiar()) || matches(full) || without_tag())
    }

    /// Whether it is an ID, or its beginning of at least twelve digits, rather than a pattern.
    #[must_use]
    pub fn is_id(&self, id: &Digest) -> bool {
        let hex = self.text.strip_prefix("sha256:").unwrap_or(&self.text);
        hex.len() >= 12 && id.hex().starts_with(hex)
    }
}

/// What a message shows of a text that may be long.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ImageName {
        text.parse().unwrap()
    }

    #[test]
    fn dockers_reference_filter() {
        for (pattern, image, expected) in [
            ("ubuntu", "ubuntu:24.04", true),
            ("ubuntu:24.04", "ubuntu:24.04", true),
            ("ubuntu:22.04", "ubuntu:24.04", false),
            ("ubu*", "ubuntu:24.04", true),
            ("*:24.04", "ubuntu:24.04", true),
            ("*", "team/app", false),
            ("*/*", "team/app", true),
            ("*", "quay.io/team/app", false),
            ("quay.io/**", "quay.io/team/app:1", true),
            ("quay.io/*/app", "quay.io/team/app:1", true),
            ("docker.io/library/ubuntu", "ubuntu", true),
            ("[a-c]pp", "app", true),
            ("[^a-c]pp", "app", false),
            ("ap?:v1", "app:v1", true),
        ] {
            assert_eq!(
                Pattern::docker(pattern).unwrap().matches(&name(image)),
                expected,
                "{pattern} {image}"
            );
        }
        assert!(Pattern::docker("[").unwrap_err().to_string().contains("invalid pattern \"[\""));
    }

    #[test]
    fn what_is_removed_is_taken_narrowly() {
        for (pattern, image, expected) in [
            ("nginx", "nginx:latest", true),
            ("nginx", "nginx:1.19", false),
            ("nginx:1.1*", "nginx:1.19", true),
            ("docker.io/library/nginx:1.1*", "nginx:1.19", true),
            ("docker.io/library/nginx:1.1*", "nginx:1.2", false),
            ("nginx*", "nginx:1.19", true),
            ("registry.corp/team/*", "registry.corp/team/app:v1", true),
            ("registry.corp/team/*", "registry.corp/team/sub/app:v1", false),
            ("registry.corp/**", "registry.corp/team/sub/app:v1", true),
            ("team/app", "team/app:v1", false),
            ("team/ap?", "team/app:v1", false),
        ] {
            assert_eq!(
                Pattern::removing(pattern).unwrap().matches(&name(image)),
                expected,
                "{pattern} {image}"
            );
        }
        assert!(Pattern::removing("Team/App").is_err());
    }

    #[test]
    fn what_is_kept_is_taken_widely() {
        assert!(Pattern::keeping("quay.io/*").unwrap().matches(&name("quay.io/a/b/c:1")));
        assert!(Pattern::keeping("*").unwrap().matches(&name("quay.io/a/b/c:1")));
        assert!(!Pattern::keeping("redis").unwrap().matches(&name("rediss")));
        let id = Digest::sha256(b"");
        assert!(Pattern::keeping("e3b0c44298fc").unwrap().is_id(&id));
        assert!(Pattern::keeping(id.as_str()).unwrap().is_id(&id));
        assert!(!Pattern::keeping("e3b0").unwrap().is_id(&id), "too short to be no name");
    }

    proptest! {
        #[test]
        fn a_name_matches_itself(
            text in "([a-z]{1,8}\\.io/)?[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}(:[a-zA-Z0-9_.-]{1,10})?"
        ) {
            if let Ok(name) = text.parse::<ImageName>() {
                for spelling in [name.as_str(), name.familiar(), name.familiar_repository()] {
                    prop_assert!(Pattern::docker(spelling).unwrap().matches(&name));
                    prop_assert!(Pattern::keeping(spelling).unwrap().matches(&name));
                }
            }
        }

        #[test]
        fn what_docker_matches_is_kept(pattern in "[a-c*?/:]{1,8}", text in "[a-c]{1,3}(/[a-c]{1,3}){0,2}(:[a-c]{1,3})?") {
            let name = text.parse::<ImageName>().unwrap();
            if let (Ok(strict), Ok(wide)) = (Pattern::docker(&pattern), Pattern::keeping(&pattern)) {
                prop_assert!(!strict.matches(&name) || wide.matches(&name));
            }
        }

        #[test]
        fn never_panics(pattern in "\\PC{0,30}") {
            if let Ok(pattern) = Pattern::docker(&pattern) {
                let _ = pattern.matches(&name("team/app:v1"));
            }
        }
    }
}
