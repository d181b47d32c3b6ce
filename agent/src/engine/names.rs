//! Which names the node is to know, what each stands for, and giving further names in the store.
//!
//! A further name is an image of its own for store and runtime: it is delivered, pinned, put back and taken away like any
//! other. It is never looked up, and stands for what its image is: it moves when that moves.
//!
//! A name is one image's. One that is wanted as an image of its own is that; of several images that want the same further
//! name the first in the list has it; and one that a person has given to something else in the store stays the person's. An
//! image that a name is refused to has failed, and stays where it is.

use std::collections::{BTreeMap, BTreeSet};

use larder_crds::FailureReason;
use larder_oci::{Digest, ImageKey};
use larder_runtime::RuntimeError;
use larder_store::{Claim, StoreError};
use tokio::{task::JoinError, time::Instant};

use super::{
    DesiredImage, Engine,
    act::CHORES_PAUSE,
    image::Failure,
    observe::{self, Found, Standing},
    report::{State, failed, of_failure},
};
use crate::reason;

/// What the names that the node is to know stand for.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Images by their own names, and whether they are pinned.
    own: BTreeMap<ImageKey, bool>,
    /// Further names, and the images that have them.
    further: BTreeMap<ImageKey, ImageKey>,
    /// Images, and the further names that are another's.
    refused: BTreeMap<ImageKey, Vec<Refused>>,
}

/// A further name that is another image's.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    name: ImageKey,
    /// The image that has it: the same where it is that image's own.
    to: ImageKey,
}

impl Names {
    /// What a list of images comes to; those that can't be read are passed over.
    pub(super) fn of(images: &[DesiredImage]) -> Self {
        let mut names = Self::default();
        let readable = || images.iter().filter_map(|image| Some((image.key.as_ref().ok()?, image)));
        for (key, image) in readable() {
            *names.own.entry(key.clone()).or_default() |= image.pin;
        }
        for (key, image) in readable() {
            for name in &image.tags {
                names.add(ImageKey { name: name.clone(), platform: key.platform.clone() }, key);
            }
        }
        names
    }

    fn add(&mut self, name: ImageKey, of: &ImageKey) {
        if name == *of {
            return;
        }
        let to = if self.own.contains_key(&name) {
            name.clone()
        } else {
            self.further.entry(name.clone()).or_insert_with(|| of.clone()).clone()
        };
        if to != *of {
            let refused = self.refused.entry(of.clone()).or_default();
            let new = Refused { name, to };
            if !refused.contains(&new) {
                refused.push(new);
            }
        }
    }

    /// Whether an image is wanted by this, its own name.
    pub(super) fn is_own(&self, key: &ImageKey) -> bool {
        self.own.contains_key(key)
    }

    /// Whether the name is wanted, for whatever image.
    pub(super) fn contains(&self, key: &ImageKey) -> bool {
        self.is_own(key) || self.further.contains_key(key)
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeSet<ImageKey> {
        self.own.keys().chain(self.further.keys()).cloned().collect()
    }

    /// The further names, each with its image.
    pub(super) fn further(&self) -> impl Iterator<Item = (&ImageKey, &ImageKey)> {
        self.further.iter()
    }

    /// The image that a further name stands for.
    pub(super) fn source(&self, name: &ImageKey) -> Option<&ImageKey> {
        self.further.get(name)
    }

    /// The further names of an image.
    fn of_image<'a>(&'a self, key: &'a ImageKey) -> impl Iterator<Item = &'a ImageKey> {
        self.further().filter(move |(_, of)| *of == key).map(|(name, _)| name)
    }

    /// Whether what a name stands for is to be pinned; `None` where the name is not wanted.
    pub(super) fn pin(&self, key: &ImageKey) -> Option<bool> {
        self.own.get(self.source(key).unwrap_or(key)).copied()
    }

    /// Which names of an image are another's, in a sentence.
    fn conflict(&self, key: &ImageKey) -> Option<String> {
        let refused = self.refused.get(key)?;
        let Refused { name, to } = refused.first()?;
        let name = &name.name;
        let first = if *name == to.name {
            format!("{name} cannot be a further name of {}: it is an image of its own here", key.name)
        } else {
            format!("{name} cannot be a further name of {}: it is one of {} already", key.name, to.name)
        };
        let more = match refused.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more of its names are taken)"),
        };
        Some(format!(
            "{first}{more}; the image itself is here. Take the name out of tags in one of the ImageCaches"
        ))
    }
}

impl Engine {
    /// Gives further names in the store: all at once, which is one write. Those that are being taken away at this moment wait.
    pub(super) fn start_naming(&mut self, mut tags: Vec<(ImageKey, ImageKey)>) {
        tags.retain(|(name, _)| !self.tidying.contains(name));
        let waits = self.naming_at.is_some_and(|due| due > Instant::now());
        if tags.is_empty() || waits || !self.naming.is_empty() {
            return;
        }
        let store = self.store.clone();
        self.naming.spawn(async move {
            let names = tags.iter().map(|(name, _)| name.clone()).collect();
            let changed = observe::run(move || store.tag_for_agent(&tags)).await;
            Named { names, changed }
        });
    }

    /// Takes note of what came of it. What the names stand for is for the store to say, at the next look.
    pub(super) fn record_naming(&mut self, named: Result<Named, JoinError>) {
        let Ok(Named { names, changed }) = named else { return };
        self.naming_at = None;
        match changed {
            Ok(changed) => {
                for name in &changed {
                    let of = self.names.source(name).map(ToString::to_string);
                    tracing::info!(image = %name, of, "it has a further name");
                }
                // What is not as it should be at the next look, in spite of it, must not keep us busy.
                if changed.is_empty() {
                    self.naming_at = Some(Instant::now() + CHORES_PAUSE);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the layer store does not take further names; trying again");
                self.naming_at = Some(Instant::now() + CHORES_PAUSE);
                let (error, why) = (error.to_string(), reason::of_runtime(&RuntimeError::from(error)));
                for name in &names {
                    if let Some(image) = self.images.get_mut(name) {
                        image.delivery_failure = Some(Failure::new(why, error.clone(), CHORES_PAUSE));
                    }
                }
            }
        }
    }

    /// How an image stands that is `state` by its own name: ready only when its further names are.
    pub(super) fn with_further_names(&self, key: &ImageKey, state: State, now: Instant) -> State {
        let State::Ready { digest, size } = &state else { return state };
        if let Some(conflict) = self.names.conflict(key) {
            return failed(FailureReason::NameConflict, &conflict);
        }
        let mut lacking = None;
        for name in self.names.of_image(key) {
            match self.lacks(name, digest, now) {
                None => {}
                Some(Lack::Failed(state)) => return state,
                Some(Lack::UnderWay) => {
                    lacking = Some(State::Delivering { digest: digest.clone(), size: *size });
                }
            }
        }
        lacking.unwrap_or(state)
    }

    /// What a further name lacks, of standing for an image of this digest in store and runtime.
    fn lacks(&self, name: &ImageKey, digest: &Digest, now: Instant) -> Option<Lack> {
        let failure = self.images.get(name).and_then(|image| image.delivery_failure.as_ref());
        let failure = failure.map(|failure| {
            let message = format!("{}, a further name of it: {}", name.name, failure.message);
            Lack::Failed(of_failure(&Failure { message, ..failure.clone() }))
        });
        let found = self.observed.get(name);
        let Some(found) = found.filter(|_| self.is_named(name, digest)) else {
            let persons = found.filter(|found| found.claim == Claim::None).map(|found| persons(name, found));
            return persons.or(failure).or(Some(Lack::UnderWay));
        };
        match (&found.standing, self.link.trouble(now).filter(|_| self.link.takes(name))) {
            (Standing::NotNeeded | Standing::Ready, _) => None,
            (_, Some(trouble)) => Some(Lack::Failed(failed(FailureReason::RuntimeUnavailable, trouble))),
            (Standing::Unknown, None) if self.ready.contains(name) => None,
            (Standing::Unknown | Standing::Missing | Standing::Moved(_) | Standing::Elsewhere, None) => {
                failure.or(Some(Lack::UnderWay))
            }
        }
    }

    fn is_named(&self, name: &ImageKey, digest: &Digest) -> bool {
        self.observed.complete(name).is_some_and(|found| found.digest == *digest)
    }
}

/// What came of giving further names.
pub(super) struct Named {
    names: Vec<ImageKey>,
    /// Those that stand for another image than before.
    changed: Result<Vec<ImageKey>, StoreError>,
}

/// What a further name lacks.
enum Lack {
    UnderWay,
    Failed(State),
}

fn persons(name: &ImageKey, found: &Found) -> Lack {
    let name = &name.name;
    Lack::Failed(failed(
        FailureReason::NameConflict,
        &format!(
            "{name} is the name of an image that somebody has put into the node's layer store by hand ({}): remove it \
             there with larder rm {}, or take the name out of tags",
            found.digest,
            name.familiar()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ImageKey {
        ImageKey { name: name.parse().unwrap(), platform: "linux/amd64".parse().unwrap() }
    }

    fn wanted(name: &str, tags: &[&str]) -> DesiredImage {
        let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        DesiredImage { tags, ..DesiredImage::new(name, Some("linux/amd64"), false) }
    }

    #[test]
    fn a_name_is_one_images_and_its_own_comes_first() {
        let names = Names::of(&[
            wanted("a", &["x", "b", "y"]),
            wanted("b", &[]),
            wanted("c", &["x", "z", "c"]),
            wanted("a", &["x", "w"]),
        ]);
        let further: Vec<_> = names.further().map(|(name, of)| (name.clone(), of.clone())).collect();
        let expected = [("w", "a"), ("x", "a"), ("y", "a"), ("z", "c")];
        assert_eq!(further, expected.map(|(name, of)| (key(name), key(of))));
        assert_eq!(names.source(&key("x")), Some(&key("a")));
        assert!(names.is_own(&key("b")) && !names.is_own(&key("x")) && names.contains(&key("x")));
        assert_eq!(names.all().len(), 7);

        let conflict = names.conflict(&key("a")).unwrap();
        assert!(conflict.contains(
            "library/b:latest cannot be a further name of docker.io/library/a:latest: it is an image"
        ));
        let conflict = names.conflict(&key("c")).unwrap();
        assert!(
            conflict.contains("library/x:latest cannot be")
                && conflict.contains("one of docker.io/library/a:latest")
        );
        assert_eq!(names.conflict(&key("b")), None);
    }

    #[test]
    fn the_same_name_for_another_platform_is_another() {
        let arm = DesiredImage::new("x", Some("linux/arm64"), false);
        let names = Names::of(&[wanted("a", &["x"]), arm]);
        assert_eq!(names.conflict(&key("a")), None);
        assert_eq!(names.further().count(), 1);
    }

    #[test]
    fn a_name_is_pinned_if_anybody_wants_its_image_pinned() {
        let unpinned = |name: &str, tags: &[&str]| DesiredImage { pin: false, ..wanted(name, tags) };
        let names = Names::of(&[unpinned("a", &["x"]), unpinned("b", &["y"]), wanted("b", &[])]);
        for (name, pin) in
            [("a", Some(false)), ("x", Some(false)), ("b", Some(true)), ("y", Some(true)), ("z", None)]
        {
            assert_eq!(names.pin(&key(name)), pin, "{name}");
        }
    }
}
