//! Which archives are asked for, and what becomes of those that are not: without a look at any of them.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use larder_archive::Entry;
use larder_oci::{Digest, ImageKey, ImageName};

use crate::engine::{desired::DesiredImage, ledger::Archived};

/// An archive that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub key: ImageKey,
    /// Beside the image's own.
    pub further: Vec<ImageName>,
    /// The digest that it is to hold; `None` while the image is not ready.
    pub digest: Option<Digest>,
}

impl Wish {
    pub(super) fn names(&self) -> BTreeSet<String> {
        std::iter::once(&self.key.name).chain(&self.further).map(ToString::to_string).collect()
    }

    /// Whether the file is what this asks for: what we wrote then, and not touched since.
    pub(super) fn is_met(&self, digest: &Digest, archived: Option<&Archived>, entry: Option<&Entry>) -> bool {
        archived.is_some_and(|archived| {
            archived.is_of(&self.key)
                && archived.digest == *digest
                && archived.names == self.names()
                && entry == Some(&Entry::File(archived.stamp))
        })
    }
}

/// Which files are asked for, and what keeps an image from having one: by its key and file, the image that has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub files: BTreeMap<String, Wish>,
    pub taken: Vec<(ImageKey, String, String)>,
}

impl Wishes {
    /// The first image in order has a file. `ready` gives the digest of an image that is.
    pub(super) fn of(images: &[DesiredImage], ready: impl Fn(&ImageKey) -> Option<Digest>) -> Self {
        let mut wishes = Self::default();
        for image in images {
            let Ok(key) = &image.key else { continue };
            for file in &image.archives {
                match wishes.files.entry(file.clone()) {
                    btree_map::Entry::Vacant(place) => {
                        let (further, digest) = (image.tags.clone(), ready(key));
                        place.insert(Wish { key: key.clone(), further, digest });
                    }
                    btree_map::Entry::Occupied(place) if place.get().key != *key => {
                        let by = place.get().key.name.familiar().to_owned();
                        wishes.taken.push((key.clone(), file.clone(), by));
                    }
                    btree_map::Entry::Occupied(_) => {}
                }
            }
        }
        wishes
    }
}

/// What is to become of a file that nobody asks for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Goes,
    /// It is not ours any more.
    IsLeft,
    Stays,
}

/// Images that are not wanted now.
pub(super) struct Others {
    pub released: BTreeSet<ImageKey>,
    pub deferred: BTreeSet<ImageKey>,
    /// All of them stay as they are.
    pub keep: bool,
}

impl Others {
    pub(super) fn fate(&self, archived: &Archived) -> Fate {
        let among = |keys: &BTreeSet<ImageKey>| keys.iter().any(|key| archived.is_of(key));
        if among(&self.released) {
            Fate::IsLeft
        } else if self.keep || among(&self.deferred) {
            Fate::Stays
        } else {
            Fate::Goes
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_archive::Stamp;

    use super::*;

    fn image(name: &str, files: &[&str], tags: &[&str]) -> DesiredImage {
        DesiredImage {
            archives: files.iter().map(|&file| file.to_owned()).collect(),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            ..DesiredImage::new(name, None, false)
        }
    }

    fn key(name: &str) -> ImageKey {
        DesiredImage::new(name, None, false).key.unwrap()
    }

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn stamp(inode: u64) -> Stamp {
        Stamp { size: 10, modified: (20, 30), inode }
    }

    fn archived(name: &str, tags: &[&str]) -> Archived {
        let wish = Wishes::of(&[image(name, &["x.tar"], tags)], |_| None).files.remove("x.tar").unwrap();
        Archived {
            image: wish.key.name.to_string(),
            platform: wish.key.platform.to_string(),
            digest: digest(name),
            names: wish.names(),
            stamp: stamp(1),
        }
    }

    #[test]
    fn a_file_is_the_first_images_that_asks_for_it() {
        let images = [
            image("a", &["a.tar", "both.tar"], &["a:old"]),
            image("b", &["b.tar", "both.tar"], &[]),
            image("a:latest", &["a.tar"], &[]),
        ];
        let wishes = Wishes::of(&images, |wanted| (*wanted == key("a")).then(|| digest("a")));
        assert_eq!(wishes.files.keys().collect::<Vec<_>>(), ["a.tar", "b.tar", "both.tar"]);
        assert_eq!(wishes.files["both.tar"].key, key("a"));
        assert_eq!(wishes.files["a.tar"].digest, Some(digest("a")));
        assert_eq!(wishes.files["b.tar"].digest, None);
        assert_eq!(wishes.taken, [(key("b"), "both.tar".to_owned(), "a:latest".to_owned())]);
        let names: Vec<String> = wishes.files["a.tar"].names().into_iter().collect();
        assert_eq!(names, ["docker.io/library/a:latest", "docker.io/library/a:old"]);
    }

    #[test]
    fn a_file_is_written_again_for_another_digest_other_names_or_when_it_was_touched() {
        let wish = |name, tags: &[&str]| {
            Wishes::of(&[image(name, &["x.tar"], tags)], |_| None).files["x.tar"].clone()
        };
        let there = Some(Entry::File(stamp(1)));
        let known = archived("a", &["a:old"]);
        let is_met = |wish: &Wish, digest: &Digest, entry: &Option<Entry>| {
            wish.is_met(digest, Some(&known), entry.as_ref())
        };
        let same = wish("a", &["a:old"]);
        assert!(is_met(&same, &digest("a"), &there));
        assert!(!is_met(&same, &digest("moved"), &there));
        assert!(!is_met(&wish("a", &[]), &digest("a"), &there), "a name less");
        assert!(!is_met(&wish("b", &["a:old"]), &digest("a"), &there), "another image");
        for touched in
            [Some(Entry::File(stamp(2))), Some(Entry::Absent), Some(Entry::Other("a folder")), None]
        {
            assert!(!is_met(&same, &digest("a"), &touched), "{touched:?}");
        }
        assert!(!same.is_met(&digest("a"), None, there.as_ref()), "nobody knows who wrote it");
    }

    #[test]
    fn what_nobody_asks_for_goes_unless_its_image_was_released_or_waits() {
        let others = |released: &[&str], deferred: &[&str], keep| Others {
            released: released.iter().map(|name| key(name)).collect(),
            deferred: deferred.iter().map(|name| key(name)).collect(),
            keep,
        };
        let known = archived("a", &[]);
        assert_eq!(others(&["b"], &["c"], false).fate(&known), Fate::Goes);
        assert_eq!(others(&["a"], &[], false).fate(&known), Fate::IsLeft);
        assert_eq!(others(&[], &["a"], false).fate(&known), Fate::Stays);
        assert_eq!(others(&[], &[], true).fate(&known), Fate::Stays);
    }
}
