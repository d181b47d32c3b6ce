//! Images as CRI lists them, compared with those that are meant.

use larder_oci::{Digest, ImageName};

use crate::{Image, State, api::cri, users::digest_of};

/// A name as kubelet asks for it and runtimes list it: the digest wins over the tag.
pub(super) fn name(name: &ImageName) -> String {
    match name.digest() {
        Some(digest) => name.untagged(digest).as_str().to_owned(),
        None => name.as_str().to_owned(),
    }
}

/// The image that a name stands for in the runtime.
pub(super) fn find<'a>(wanted: &ImageName, listed: &'a [cri::Image]) -> Option<&'a cri::Image> {
    let wanted = name(wanted);
    listed.iter().find(|image| image.repo_tags.iter().chain(&image.repo_digests).any(|name| *name == wanted))
}

/// Whether an image has tags, or digests of other repositories, beside this name.
pub(super) fn has_other_names(own: &ImageName, image: &cri::Image) -> bool {
    let (name, repository) = (name(own), format!("{}/{}@", own.registry(), own.repository()));
    image.repo_tags.iter().any(|tag| *tag != name)
        || image.repo_digests.iter().any(|digest| !digest.starts_with(&repository))
}

/// Whether an image of the runtime's is the one that is meant: by its ID, which is the configuration's digest, or by the
/// digest that a registry knows it by.
pub(super) fn is_same(image: &Image, found: &cri::Image) -> bool {
    let ours = [image.config.digest(), image.manifest.digest()].map(|digest| Digest::try_from(digest).ok());
    let is_ours = |digest: Digest| digest == image.target || ours.contains(&Some(digest));
    std::iter::once(&found.id).chain(&found.repo_digests).filter_map(|id| digest_of(id)).any(is_ours)
}

/// How an image stands among those that the runtime lists.
pub(super) fn state(image: &Image, listed: &[cri::Image]) -> State {
    match find(&image.key.name, listed) {
        None => State::Missing,
        Some(found) if is_same(image, found) => State::Ready,
        Some(found) => {
            let repository = format!("{}/{}@", image.key.name.registry(), image.key.name.repository());
            let own = found.repo_digests.iter().find(|name| name.starts_with(&repository));
            let to = own.or_else(|| found.repo_digests.first()).unwrap_or(&found.id);
            digest_of(to).map_or(State::Missing, |to| State::Moved { to })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{digest, image};

    fn listed(id: &str, tags: &[&str], digests: &[String]) -> cri::Image {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        cri::Image {
            id: id.to_owned(),
            repo_tags: tags,
            repo_digests: digests.to_vec(),
            ..cri::Image::default()
        }
    }

    #[test]
    fn a_tag_is_ready_moved_or_missing() {
        let wanted = image("app:v1", 1);
        let config = wanted.config.digest().to_string();
        let at = |digest: &Digest| format!("docker.io/library/app@{digest}");
        let tag = "docker.io/library/app:v1";
        assert_eq!(state(&wanted, &[]), State::Missing);
        assert_eq!(state(&wanted, &[listed(&config, &["docker.io/library/app:v2"], &[])]), State::Missing);
        // containerd: the ID is the configuration's digest. CRI-O: the same without the algorithm.
        assert_eq!(state(&wanted, &[listed(&config, &[tag], &[])]), State::Ready);
        let bare = config.trim_start_matches("sha256:");
        assert_eq!(state(&wanted, &[listed(bare, &[tag], &[])]), State::Ready);
        // An ID of another making, as CRI-O has for layers that it has pulled in parts.
        assert_eq!(state(&wanted, &[listed(&"ab".repeat(32), &[tag], &[at(&wanted.target)])]), State::Ready);
        let other = listed(digest(9).as_str(), &[tag], &[at(&digest(8))]);
        assert_eq!(state(&wanted, &[other]), State::Moved { to: digest(8) });
        assert_eq!(
            state(&wanted, &[listed(digest(9).as_str(), &[tag], &[])]),
            State::Moved { to: digest(9) }
        );
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let target = image("app", 1).target;
        let wanted = image(&format!("app:v1@{target}"), 1);
        assert_eq!(name(&wanted.key.name), format!("docker.io/library/app@{target}"));
        let config = wanted.config.digest().to_string();
        let there = listed(&config, &[], &[format!("docker.io/library/app@{target}")]);
        assert_eq!(state(&wanted, std::slice::from_ref(&there)), State::Ready);
        assert!(!has_other_names(&wanted.key.name, &there));
    }

    #[test]
    fn further_names_are_noticed() {
        let own = image("app:v1", 1).key.name;
        let digests = ["docker.io/library/app@sha256:0".to_owned()];
        assert!(!has_other_names(&own, &listed("x", &["docker.io/library/app:v1"], &digests)));
        let tags = ["docker.io/library/app:v1", "docker.io/library/app:v2"];
        assert!(has_other_names(&own, &listed("x", &tags, &digests)));
        let digests = ["quay.io/app@sha256:0".to_owned()];
        assert!(has_other_names(&own, &listed("x", &["docker.io/library/app:v1"], &digests)));
    }
}
