//! Images as a runtime lists them, whoever brought them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use larder_oci::{Digest, ImageName};

use crate::User;

/// An image in the runtime, whoever brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What tells it from others: its configuration's digest. (Of what is no image, its manifest's.)
    pub id: Digest,
    /// All names that kubelet may know it by: tags, and `repository@digest`.
    pub names: BTreeSet<ImageName>,
    /// When it was made, as its configuration says.
    pub created: Option<Timestamp>,
    /// When it came to the node. CRI does not tell.
    pub came: Option<Timestamp>,
    /// Somebody other than the agent keeps it from kubelet's garbage collection.
    pub is_pinned: bool,
    /// The agent has put its mark on it. Through CRI there are no marks.
    pub is_marked: bool,
    /// What containers may know it by.
    pub(crate) traces: Traces,
}

/// What a container may know its image by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traces {
    /// Digests of its indexes, manifests and configurations.
    pub(crate) digests: BTreeSet<Digest>,
    /// The chain IDs of its unpacked layers.
    pub(crate) chains: BTreeSet<Digest>,
}

/// What became of names that were to leave the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// They are gone, or were not there.
    Gone,
    /// Containers use the image: nothing was changed.
    InUse(Vec<User>),
    /// Somebody has pinned the image, the agent looks after it, or the runtime would take further names along: nothing was
    /// changed.
    Stays,
}

/// A runtime's name for an image. One that is not written as kubelet writes it is none that anybody could mean.
pub(crate) fn canonical(text: &str) -> Option<ImageName> {
    text.parse().ok().filter(|name: &ImageName| name.as_str() == text)
}

/// An image's repository, registry and all.
fn repository(name: &ImageName) -> (&str, &str) {
    (name.registry(), name.repository())
}

/// Of an image's names those that people speak of: tags, and digests of repositories in which it has no tag.
#[must_use]
pub fn spoken(all: impl IntoIterator<Item = ImageName>) -> BTreeSet<ImageName> {
    let (tags, digests): (BTreeSet<_>, BTreeSet<_>) =
        all.into_iter().partition(|name| name.digest().is_none());
    let tagged: BTreeSet<_> = tags.iter().map(repository).collect();
    let further: Vec<_> = digests.into_iter().filter(|name| !tagged.contains(&repository(name))).collect();
    tags.iter().cloned().chain(further).collect()
}

/// Which of an image's names, `all`, have to go when `going` do: also those by digest of repositories that lose their last
/// tag. The order is that of `all`.
#[must_use]
pub fn leaving<'a>(all: &'a [ImageName], going: &BTreeSet<ImageName>) -> Vec<&'a ImageName> {
    let mut tags: BTreeMap<_, (bool, bool)> = BTreeMap::new();
    for name in all.iter().filter(|name| name.digest().is_none()) {
        let (goes, stays) = tags.entry(repository(name)).or_default();
        *goes |= going.contains(name);
        *stays |= !going.contains(name);
    }
    let goes_along = |name: &ImageName| {
        name.digest().is_some() && tags.get(&repository(name)).is_some_and(|&(goes, stays)| goes && !stays)
    };
    all.iter().filter(|name| going.contains(name) || goes_along(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::digest;

    fn names(texts: &[&str]) -> Vec<ImageName> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_digest_is_spoken_of_where_there_is_no_tag() {
        let (app, far) = (format!("app@{}", digest(1)), format!("quay.io/app@{}", digest(1)));
        let spoken: Vec<_> = spoken(names(&["app:v1", &app, &far])).into_iter().collect();
        assert_eq!(spoken, names(&["app:v1", &far]));
        assert_eq!(canonical("app:v1"), None);
        assert!(canonical("docker.io/library/app:v1").is_some());
    }

    #[test]
    fn a_digest_goes_with_the_last_tag_of_its_repository() {
        let (app, far) = (format!("app@{}", digest(1)), format!("quay.io/app@{}", digest(1)));
        let all = names(&["app:v1", "app:v2", &app, &far]);
        let gone = |going: &[&str]| -> Vec<ImageName> {
            leaving(&all, &names(going).into_iter().collect()).into_iter().cloned().collect()
        };
        assert_eq!(gone(&["app:v1"]), names(&["app:v1"]));
        assert_eq!(gone(&["app:v1", "app:v2"]), names(&["app:v1", "app:v2", &app]));
        assert_eq!(gone(&[&far]), names(&[&far]));
        assert_eq!(gone(&["app:v3"]), []);
    }
}
