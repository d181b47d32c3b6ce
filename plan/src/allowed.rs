//! Which registries `ImageCache`s may name.

use std::{fmt, str::FromStr};

use larder_oci::ImageName;

use crate::validate::{Problem, WantedImage, cut};

/// What `ImageCache`s may bring to the nodes: images of these registries, or of parts of them. An empty list allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<RegistryPattern>);

/// A registry, or a part of one.
///
/// `registry.corp` is all of that registry, `registry.corp/team` is the repository `team` and all below it. A `*` in place
/// of a whole part of the host's name stands for any one part, as it does in kubelet's logins: `*.corp.example` is
/// `eu.corp.example` and not `a.eu.corp.example`. There are no other patterns: who reads the list knows what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryPattern {
    host: String,
    /// Empty: the whole registry.
    path: String,
}

/// A text that is no [`RegistryPattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRegistry(String);

impl fmt::Display for InvalidRegistry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} is no registry: write a host or a host and a path, such as registry.corp, docker.io/library or \
             *.corp.example/team, without scheme, tag or digest",
            self.0
        )
    }
}

impl std::error::Error for InvalidRegistry {}

impl FromStr for RegistryPattern {
    type Err = InvalidRegistry;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRegistry(cut(text));
        let text = text.trim();
        let (host, path) = text.split_once('/').map_or((text, ""), |(host, path)| (host, path));
        let path = path.strip_suffix('/').unwrap_or(path);
        // The rules for names are those of image names: a name in it is one here.
        let plain: Vec<&str> = host.split('.').map(|part| if part == "*" { "any" } else { part }).collect();
        let plain = plain.join(".");
        let separator = if path.is_empty() { "" } else { "/" };
        let name: ImageName = format!("{plain}/{path}{separator}x").parse().map_err(|_| invalid())?;
        if name.registry() == plain {
            return Ok(Self { host: host.to_owned(), path: path.to_owned() });
        }
        // Docker Hub has two names, and image names have one of them.
        if plain == "index.docker.io" && name.registry() == "docker.io" {
            return Ok(Self { host: name.registry().to_owned(), path: path.to_owned() });
        }
        Err(invalid())
    }
}

impl fmt::Display for RegistryPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.host)?;
        if self.path.is_empty() { Ok(()) } else { write!(formatter, "/{}", self.path) }
    }
}

impl RegistryPattern {
    fn allows(&self, name: &ImageName) -> bool {
        let below = || name.repository().strip_prefix(&self.path);
        is_host(&self.host, name.registry())
            && (self.path.is_empty() || below().is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }
}

fn is_host(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.split('.'), host.split('.'));
    pattern.clone().count() == host.clone().count()
        && pattern.zip(host).all(|(pattern, part)| pattern == part || (pattern == "*" && !part.contains(':')))
}

impl From<Vec<RegistryPattern>> for AllowList {
    fn from(patterns: Vec<RegistryPattern>) -> Self {
        Self(patterns)
    }
}

impl AllowList {
    /// Whether an image of this name may be brought to the nodes.
    #[must_use]
    pub fn allows(&self, name: &ImageName) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.allows(name))
    }

    /// Reports every name that images are fetched from or that they are given.
    pub(crate) fn check(&self, wanted: &[WantedImage], problems: &mut Vec<Problem>) {
        for image in wanted {
            let artifact = image.entry.load.as_ref().and_then(|source| source.artifact.as_deref());
            let tags = image.entry.tags.iter().map(|tag| ("tags", tag.as_str()));
            let names = std::iter::once(("image", image.target.image.as_str()));
            for (field, text) in names.chain(tags).chain(artifact.map(|name| ("load.artifact", name))) {
                // What cannot be read has been reported.
                let Ok(name) = text.parse::<ImageName>() else { continue };
                if !self.allows(&name) {
                    problems.push(Problem {
                        field: format!("spec.images[{}].{field}", image.entry.position),
                        message: format!(
                            "{text} is not allowed here: names of images have to begin with {} (the operator's \
                             --allow-registry says so)",
                            self.described()
                        ),
                    });
                }
            }
        }
    }

    fn described(&self) -> String {
        let mut shown: Vec<String> = self.0.iter().take(5).map(ToString::to_string).collect();
        let more = self.0.len().saturating_sub(shown.len());
        if more > 0 {
            return format!("{} or {more} others", shown.join(", "));
        }
        let last = shown.pop().unwrap_or_default();
        if shown.is_empty() { last } else { format!("{} or {last}", shown.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use larder_crds::{CachedImage, ImageCacheSpec, ImageSource};

    use super::*;
    use crate::validate::{ValidCache, describe};

    fn list(patterns: &[&str]) -> AllowList {
        let read = |text: &&str| text.parse::<RegistryPattern>().unwrap();
        patterns.iter().map(read).collect::<Vec<_>>().into()
    }

    #[test]
    fn whole_parts_are_compared() {
        for (pattern, image, is_allowed) in [
            ("registry.corp", "registry.corp/app:v1", true),
            ("registry.corp", "registry.corp/deep/er/app@sha256:0", false),
            ("registry.corp", "registry.corp/deep/er/app", true),
            ("registry.corp", "registry.corp:5000/app", false),
            ("registry.corp", "registry.corp.evil.example/app", false),
            ("registry.corp", "evil.registry.corp/app", false),
            ("registry.corp", "docker.io/registry.corp/app", false),
            ("registry.corp:5000", "registry.corp:5000/app", true),
            ("registry.corp/team", "registry.corp/team/app:v1", true),
            ("registry.corp/team", "registry.corp/team:v1", true),
            ("registry.corp/team/", "registry.corp/team/a/b", true),
            ("registry.corp/team", "registry.corp/teamwork/app", false),
            ("registry.corp/team", "registry.corp/other/team/app", false),
            ("docker.io", "ubuntu", true),
            ("index.docker.io", "ubuntu", true),
            ("docker.io/library", "ubuntu:24.04", true),
            ("docker.io/library", "team/app", false),
            ("docker.io/library/ubuntu", "ubuntu:24.04", true),
            ("*.corp.example", "eu.corp.example/app", true),
            ("*.corp.example", "a.eu.corp.example/app", false),
            ("*.corp.example", "corp.example/app", false),
            ("*.corp.example:5000", "eu.corp.example:5000/app", true),
            ("*.corp.example:5000", "eu.corp.example/app", false),
            ("registry.*", "registry.corp:5000/app", false),
            ("localhost:5000", "localhost:5000/app", true),
        ] {
            let found = image.parse::<ImageName>().is_ok_and(|name| list(&[pattern]).allows(&name));
            assert_eq!(found, is_allowed, "{pattern} {image}");
        }
        assert!(AllowList::default().allows(&"any.where/at:all".parse().unwrap()));
    }

    #[test]
    fn what_is_no_registry_is_refused() {
        for text in [
            "",
            "/",
            "team",
            "team/app",
            "https://registry.corp",
            "registry.corp/app:v1",
            "registry.corp/*",
            "re*.corp",
            "registry.corp/Team",
            "registry.corp//x",
            "a b.corp",
            "*",
            "**.corp",
        ] {
            let error = text.parse::<RegistryPattern>().unwrap_err().to_string();
            assert!(error.contains("such as registry.corp"), "{text}: {error}");
        }
    }

    #[test]
    fn every_name_of_an_image_counts() {
        let image = |image: &str, tags: &[&str], artifact: Option<&str>| CachedImage {
            image: image.to_owned(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            load: artifact.map(|name| ImageSource { file: None, artifact: Some(name.to_owned()) }),
            ..CachedImage::default()
        };
        let check = |images: Vec<CachedImage>| {
            let spec = ImageCacheSpec { images, ..ImageCacheSpec::default() };
            let found = ValidCache::within(&spec, &list(&["registry.corp", "docker.io/library"]));
            found.err().map(|problems| describe(&problems)).unwrap_or_default()
        };
        let fine = image("registry.corp/a", &["ubuntu:mine"], Some("registry.corp/archives/a:v1"));
        assert_eq!(check(vec![fine.clone()]), "");
        assert_eq!(
            check(vec![fine, image("team/app", &[], None)]),
            "spec.images[1].image: docker.io/team/app:latest is not allowed here: names of images have to begin with \
             registry.corp or docker.io/library (the operator's --allow-registry says so)"
        );
        for (images, field) in [
            (image("registry.corp/a", &["other.corp/a:v1"], None), "spec.images[0].tags: other.corp/a:v1 is"),
            (
                image("registry.corp/a", &[], Some("other.corp/a:v1")),
                "spec.images[0].load.artifact: other.corp/a:v1 is",
            ),
        ] {
            let message = check(vec![images]);
            assert!(message.starts_with(field), "{message}");
        }
    }
}
