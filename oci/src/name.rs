//! Image names, normalised as docker does.

use std::{fmt, str::FromStr};

use crate::{
    Digest,
    grammar::{self, Parts},
};

/// An image name in its canonical form, `registry/repository[:tag][@digest]`.
///
/// `ubuntu`, `library/ubuntu:latest` and `index.docker.io/library/ubuntu` are one name:
/// `docker.io/library/ubuntu:latest`. Equality, order and hash are those of the canonical form, so a name is a
/// sound key. Grammar: <https://github.com/distribution/reference/blob/main/reference.go>.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    canonical: String,
    registry_end: usize,
    repository_end: usize,
    tag: Option<(usize, usize)>,
    digest: Option<Digest>,
}

/// A text that is not an image name. The message says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid image name {text:?}: {why}; write [registry/]repository[:tag][@digest], such as ubuntu:24.04"
)]
pub struct InvalidName {
    /// What was given, cut after 128 characters.
    pub text: String,
    why: String,
}

/// The longest name, as it is given and in its canonical form: docker's limit for a repository (255), a tag (128), a digest
/// (135) and separators. What is longer in its canonical form could be written down, and not be read again.
const MAX_LENGTH: usize = 255 + 1 + 128 + 1 + 135;
/// The longest digest, of sha512, and what it is set apart with.
const DIGEST_ROOM: usize = 1 + 135;

/// The registry of names that name none.
const DOCKER_HUB: &str = "docker.io";
/// The longest repository, in characters.
const MAX_REPOSITORY: usize = 255;
/// The repository of images without a name.
const NAMELESS: &str = "larder.invalid/none";

/// As docker shortens, except that the short form of `docker.io/a.b/c` is not `a.b/c`, which is another image's name.
fn familiar(canonical: &str) -> &str {
    let Some(path) = canonical.strip_prefix("docker.io/") else { return canonical };
    let official = path.strip_prefix("library/").filter(|name| !name.contains('/'));
    let first = path.split('/').next().unwrap_or_default();
    let like_a_host = first == "localhost" || first.contains('.');
    official.unwrap_or(if like_a_host { canonical } else { path })
}

impl ImageName {
    /// The registry's host and port, such as `docker.io` or `registry.corp:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.canonical[..self.registry_end]
    }

    /// The repository within the registry, such as `library/ubuntu`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.canonical[self.registry_end + 1..self.repository_end]
    }

    /// The tag, if there is one. A name with neither tag nor digest has the tag `latest`.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.map(|(start, end)| &self.canonical[start..end])
    }

    /// The digest, if the name is pinned to one. It wins over the tag.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask the registry for: the digest if there is one, the tag otherwise.
    #[must_use]
    pub fn manifest_reference(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or_else(|| self.tag()).unwrap_or("latest")
    }

    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.canonical
    }

    /// The short form that docker shows: without `docker.io/` and `library/`.
    #[must_use]
    pub fn familiar(&self) -> &str {
        familiar(&self.canonical)
    }

    /// The repository in the short form that docker shows, such as `ubuntu` or `quay.io/team/app`.
    #[must_use]
    pub fn familiar_repository(&self) -> &str {
        familiar(&self.canonical[..self.repository_end])
    }

    /// The same repository pinned to a digest: the name of an image whose tag has moved on to another.
    #[must_use]
    pub fn untagged(&self, digest: &Digest) -> Self {
        let canonical = format!("{}@{digest}", &self.canonical[..self.repository_end]);
        Self { canonical, tag: None, digest: Some(digest.clone()), ..*self }
    }

    /// The name under which an image without any name is stored. Nobody can push or pull it: RFC 2606 keeps the
    /// domain from ever being a registry's.
    #[must_use]
    pub fn nameless(digest: &Digest) -> Self {
        let canonical = format!("{NAMELESS}@{digest}");
        let registry_end = NAMELESS.find('/').unwrap_or(NAMELESS.len());
        Self {
            canonical,
            registry_end,
            repository_end: NAMELESS.len(),
            tag: None,
            digest: Some(digest.clone()),
        }
    }

    /// Whether it is the name of an image without a name ([`ImageName::nameless`]).
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.canonical[..self.repository_end] == *NAMELESS
    }

    fn from_parts(parts: &Parts<'_>) -> Result<Self, String> {
        let digest = parts.digest.map(str::parse::<Digest>).transpose().map_err(|error| error.to_string())?;
        let registry = match parts.registry {
            None | Some("index.docker.io") => DOCKER_HUB,
            Some(registry) => registry,
        };
        let official = registry == DOCKER_HUB && !parts.repository.contains('/');
        let library = if official { "library/" } else { "" };
        let mut canonical = format!("{registry}/{library}{}", parts.repository);
        let (registry_end, repository_end) = (registry.len(), canonical.len());
        if repository_end - registry_end - 1 > MAX_REPOSITORY {
            return Err(format!("repository name must not be more than {MAX_REPOSITORY} characters"));
        }
        let tag = parts.tag.or(digest.is_none().then_some("latest")).map(|tag| {
            canonical.push(':');
            let start = canonical.len();
            canonical.push_str(tag);
            (start, canonical.len())
        });
        if let Some(digest) = &digest {
            canonical.push('@');
            canonical.push_str(digest.as_str());
        }
        // Any name may become one of its repository and a digest ([`ImageName::untagged`]).
        let length = canonical.len().max(repository_end + DIGEST_ROOM);
        if length > MAX_LENGTH {
            return Err(too_long(length));
        }
        Ok(Self { canonical, registry_end, repository_end, tag, digest })
    }
}

impl FromStr for ImageName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = |why: String| InvalidName { text: text.chars().take(128).collect(), why };
        if text.len() > MAX_LENGTH {
            return Err(invalid(too_long(text.len())));
        }
        let parts = grammar::parse(text).ok_or_else(|| invalid(explain(text).to_owned()))?;
        Self::from_parts(&parts).map_err(invalid)
    }
}

fn too_long(length: usize) -> String {
    format!("with registry and tag or digest it has {length} characters, {MAX_LENGTH} at most are allowed")
}

/// Which rule was broken: "invalid reference format" helps nobody.
fn explain(text: &str) -> &'static str {
    if text.is_empty() {
        return "repository name must have at least one component";
    }
    if text.contains("://") {
        return "a name has no scheme: leave out https://";
    }
    if text.chars().any(char::is_whitespace) {
        return "it contains white space";
    }
    let name = text.split('@').next().unwrap_or(text);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name[last..].find(':').map_or(name.len(), |colon| last + colon);
    let mut components = name[..end].split('/').peekable();
    // Of a host, capitals are no fault.
    components.next_if(|first| first.contains(['.', ':']));
    if components.any(|component| component.chars().any(char::is_uppercase)) {
        return "repository name must be lowercase";
    }
    "invalid reference format"
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.canonical)
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ImageName({})", self.canonical)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ImageName {
        text.parse().unwrap()
    }

    #[test]
    fn normalises_as_docker_does() {
        for (given, canonical) in [
            ("ubuntu", "docker.io/library/ubuntu:latest"),
            ("ubuntu:18.04", "docker.io/library/ubuntu:18.04"),
            ("user/app", "docker.io/user/app:latest"),
            ("index.docker.io/library/ubuntu", "docker.io/library/ubuntu:latest"),
            ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("registry.corp:5000/team/app:v1", "registry.corp:5000/team/app:v1"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ] {
            assert_eq!(name(given).as_str(), canonical, "{given}");
        }
    }

    #[test]
    fn a_digest_needs_no_tag_and_wins_over_one() {
        let hex = "a".repeat(64);
        let pinned = name(&format!("ubuntu@sha256:{hex}"));
        assert_eq!(pinned.as_str(), format!("docker.io/library/ubuntu@sha256:{hex}"));
        assert_eq!(pinned.tag(), None);
        let both = name(&format!("ubuntu:1@sha256:{hex}"));
        assert_eq!(both.tag(), Some("1"));
        assert_eq!(both.manifest_reference(), format!("sha256:{hex}"));
    }

    #[test]
    fn parts_are_those_of_the_canonical_form() {
        let parsed = name("registry.corp:5000/team/app:v1");
        assert_eq!(
            (parsed.registry(), parsed.repository(), parsed.tag()),
            ("registry.corp:5000", "team/app", Some("v1"))
        );
        assert_eq!(name("ubuntu").familiar(), "ubuntu:latest");
        assert_eq!(name("quay.io/a/b:1").familiar(), "quay.io/a/b:1");
    }

    #[test]
    fn a_short_form_is_the_same_image() {
        for (full, short) in [
            ("docker.io/library/distros/ubuntu", "library/distros/ubuntu:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest"),
            ("docker.io/localhost/c", "docker.io/localhost/c:latest"),
            ("docker.io/library/a.b", "a.b:latest"),
            ("docker.io/team/app", "team/app:latest"),
        ] {
            assert_eq!(name(full).familiar(), short);
            assert_eq!(name(short), name(full));
        }
    }

    #[test]
    fn a_bad_name_says_what_is_wrong() {
        for (given, why) in [
            ("", "at least one component"),
            ("Ubuntu", "lowercase"),
            ("Team/app", "lowercase"),
            ("https://quay.io/a", "no scheme"),
            ("a b", "white space"),
            ("ubuntu:", "invalid reference format"),
            ("ubuntu@sha256:abc", "invalid reference format"),
            (&format!("ubuntu@sha256:{}", "g".repeat(64)), "invalid reference format"),
            (&format!("ubuntu@sha256:{}", "A".repeat(64)), "lower-case"),
            (&"a".repeat(10_000), "10000 characters"),
        ] {
            let error = given.parse::<ImageName>().unwrap_err().to_string();
            assert!(error.contains(why), "{given}: {error}");
            assert!(error.len() < 400, "{error}");
        }
    }

    #[test]
    fn images_that_lost_their_tag_or_never_had_a_name() {
        let digest: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let untagged = name("ubuntu:18.04").untagged(&digest);
        assert_eq!(untagged, name(&format!("ubuntu@{digest}")));
        assert_eq!((untagged.tag(), untagged.digest()), (None, Some(&digest)));
        assert_eq!(untagged.familiar_repository(), "ubuntu");
        assert_eq!(name("quay.io/a/b:1").familiar_repository(), "quay.io/a/b");
        let nameless = ImageName::nameless(&digest);
        assert_eq!(nameless, name(nameless.as_str()));
        assert_eq!((nameless.registry(), nameless.repository()), ("larder.invalid", "none"));
        assert!(nameless.is_nameless() && !untagged.is_nameless());
    }

    /// Found by fuzzing: a host is not limited by the grammar, and `:latest` is implied.
    #[test]
    fn what_is_taken_can_be_read_again_however_long_it_is() {
        let sha512: Digest = format!("sha512:{}", "a".repeat(128)).parse().unwrap();
        let taken = |host: usize, rest: &str| {
            let parsed = format!("{}.io/{rest}", "h".repeat(host)).parse::<ImageName>().ok()?;
            assert_eq!(parsed.as_str().parse::<ImageName>().unwrap(), parsed);
            let untagged = parsed.untagged(&sha512);
            assert_eq!(untagged.as_str().parse::<ImageName>().unwrap(), untagged);
            Some(parsed.as_str().len())
        };
        let long = "r".repeat(200);
        let rests = [
            long.clone(),
            format!("{long}:v1"),
            format!("{long}:{}", "t".repeat(128)),
            format!("{long}@{sha512}"),
        ];
        for rest in rests {
            let lengths: Vec<usize> = (1..400).filter_map(|host| taken(host, &rest)).collect();
            assert!(
                lengths.len() > 100 && lengths.iter().all(|length| *length <= MAX_LENGTH),
                "{rest}: {lengths:?}"
            );
        }
        let error = format!("{}.io/{long}", "h".repeat(310)).parse::<ImageName>().unwrap_err().to_string();
        assert!(error.contains("with registry and tag or digest it has 650 characters"), "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,300}") {
            let _ = text.parse::<ImageName>();
        }

        #[test]
        fn the_canonical_form_is_a_fixed_point(
            text in "((docker\\.io|[a-zA-Z]{1,5}(\\.[a-z]{2,3})?(:[1-9][0-9]{1,3})?)/)?(library/)?[a-z0-9]{1,8}(\\.[a-z]{2})?(/[a-z0-9]{1,8})?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,10})?"
        ) {
            if let Ok(parsed) = text.parse::<ImageName>() {
                prop_assert_eq!(&parsed, &parsed.as_str().parse::<ImageName>().unwrap());
                prop_assert_eq!(&parsed, &parsed.familiar().parse::<ImageName>().unwrap());
            }
        }
    }
}
