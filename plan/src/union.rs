//! What several `ImageCache`s come to on a machine that is no node: the same as on a node that all of them select.

use std::collections::{BTreeMap, btree_map::Entry};

use larder_crds::DiskReserve;

use crate::{
    settings,
    validate::{Target, ValidCache, WantedImage},
};

/// The wishes of several `ImageCache`s, as one.
#[derive(Debug, Clone, Default)]
pub struct Union {
    images: Vec<WantedImage>,
    places: BTreeMap<Target, usize>,
    disk_reserve: Option<DiskReserve>,
    max_concurrent_downloads: Option<i32>,
}

impl Union {
    /// Adds what one asks for.
    pub fn add(&mut self, cache: &ValidCache) {
        for image in cache.images() {
            match self.places.entry(Target::from(&image.entry)) {
                Entry::Occupied(place) => {
                    settings::join(&mut self.images[*place.get()].entry, &image.entry);
                }
                Entry::Vacant(place) => {
                    place.insert(self.images.len());
                    self.images.push(image.clone());
                }
            }
        }
        self.disk_reserve = settings::larger(self.disk_reserve, cache.disk_reserve());
        let limit = cache.max_concurrent_downloads();
        self.max_concurrent_downloads = self.max_concurrent_downloads.into_iter().chain(limit).min();
    }

    /// The images, each once, in the order in which they were first named.
    #[must_use]
    pub fn images(&self) -> &[WantedImage] {
        &self.images
    }

    /// The free space that fetching an image must leave.
    #[must_use]
    pub fn disk_reserve(&self) -> DiskReserve {
        self.disk_reserve.unwrap_or_default()
    }

    /// How many images may be fetched at a time, if that is limited.
    #[must_use]
    pub fn max_concurrent_downloads(&self) -> Option<usize> {
        self.max_concurrent_downloads.and_then(|limit| usize::try_from(limit).ok())
    }
}

#[cfg(test)]
mod tests {
    use larder_crds::{CachedImage, ImageCacheSpec};

    use super::*;

    fn image(name: &str, priority: Option<i32>) -> CachedImage {
        CachedImage { image: name.to_owned(), priority, ..CachedImage::default() }
    }

    #[test]
    fn images_are_there_once_and_the_strictest_limits_count() {
        let first = ImageCacheSpec {
            images: vec![image("b", None), image("docker.io/library/a:latest", None)],
            disk_reserve: Some("10%".to_owned()),
            max_concurrent_downloads: Some(5),
            ..ImageCacheSpec::default()
        };
        let second = ImageCacheSpec {
            images: vec![image("a", Some(7)), image("c", None)],
            disk_reserve: Some("1Gi".to_owned()),
            max_concurrent_downloads: Some(2),
            pull_timeout: Some("30m".to_owned()),
            ..ImageCacheSpec::default()
        };
        let mut union = Union::default();
        for spec in [first, second] {
            union.add(&ValidCache::new(&spec).unwrap());
        }
        let names: Vec<_> = union.images().iter().map(|image| image.spelled.as_str()).collect();
        assert_eq!(names, ["b", "docker.io/library/a:latest", "c"]);
        let a = &union.images()[1].entry;
        assert_eq!((a.priority, a.position, a.pull_timeout_seconds), (7, 0, Some(1_800)));
        assert_eq!(union.disk_reserve(), DiskReserve { percent: Some(10), bytes: Some(1 << 30) });
        assert_eq!(union.max_concurrent_downloads(), Some(2));
    }
}
