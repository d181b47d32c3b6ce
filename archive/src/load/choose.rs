//! Taking some images out of an archive, and not the others.

use std::collections::BTreeSet;

use larder_oci::{Digest, ImageKey, ImageName, Platform};
use larder_store::Claim;

use super::image::Candidate;
use crate::{ArchiveError, Result};

/// How many names an error lists.
const NAMES: usize = 10;

/// An image to take out of an archive: the one of this name, or the archive's only one, whatever its name there. If the
/// name has a digest, the image must have that digest, and its name is of no importance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// What the image is called in the store, and the platform that it is to be for.
    pub key: ImageKey,
    /// Who looks after it there.
    pub claim: Claim,
}

/// The images to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only {
    /// The image that must be there.
    pub wanted: Pick,
    /// Images to take along, of the same platform, where they are there.
    pub along: Vec<Pick>,
}

impl Only {
    pub(super) fn platform(&self) -> &Platform {
        &self.wanted.key.platform
    }

    fn picks(&self) -> impl Iterator<Item = &Pick> {
        std::iter::once(&self.wanted).chain(&self.along)
    }

    /// Leaves of what an archive lists the entries that may be wanted: what is wrong with the others is of no importance.
    /// Where none has a wanted name, all of them: one may be the only one.
    pub(super) fn narrow<T>(&self, listed: Vec<T>, names: impl Fn(&T) -> Vec<ImageName>) -> Vec<T> {
        if self.picks().any(|pick| pick.key.name.digest().is_some()) {
            return listed;
        }
        let is_wanted = |name: &ImageName| self.picks().any(|pick| pick.key.name == *name);
        let (mut kept, mut others) = (Vec::new(), Vec::new());
        let mut found = false;
        for entry in listed {
            let names = names(&entry);
            found |= names.iter().any(is_wanted);
            // What has no name may get one from elsewhere in the archive.
            let stays = names.is_empty() || names.iter().any(is_wanted);
            if stays { kept.push(entry) } else { others.push(entry) }
        }
        if !found {
            kept.append(&mut others);
        }
        kept
    }

    /// The images to take, under their new names. They are of the right platform already.
    pub(super) fn choose(&self, images: &[Candidate]) -> Result<Vec<(Pick, Candidate)>> {
        let mut chosen = vec![(self.wanted.clone(), find(&self.wanted, images)?)];
        for pick in &self.along {
            if let Ok(image) = find(pick, images) {
                chosen.push((pick.clone(), image));
            }
        }
        Ok(chosen)
    }
}

fn find(pick: &Pick, images: &[Candidate]) -> Result<Candidate> {
    let Pick { key, .. } = pick;
    if let Some(digest) = key.name.digest() {
        let of_digest = images.iter().find_map(|image| with_digest(image, digest));
        return of_digest.ok_or_else(|| absent(&key.name, images));
    }
    let named: Vec<&Candidate> =
        images.iter().filter(|image| image.name.as_ref() == Some(&key.name)).collect();
    let of_name = best(&named, &key.platform);
    let only = || is_one(images).then(|| best(&images.iter().collect::<Vec<_>>(), &key.platform)).flatten();
    of_name.or_else(only).ok_or_else(|| absent(&key.name, images))
}

/// Of several that serve a platform, the one that was made for it.
fn best(images: &[&Candidate], platform: &Platform) -> Option<Candidate> {
    let exact = images.iter().find(|image| image.platform == *platform);
    exact.or(images.first()).map(|&image| image.clone())
}

/// Whether they are one image, perhaps under several names or for several platforms.
fn is_one(images: &[Candidate]) -> bool {
    let Some(first) = images.first() else { return false };
    images.iter().all(|image| image.target() == first.target())
        || images.iter().all(|image| image.name.is_some() && image.name == first.name)
}

/// The image, if its name may have this digest. The manifest's counts as well as the index's; what the name then stands for is
/// the one that it says.
fn with_digest(image: &Candidate, digest: &Digest) -> Option<Candidate> {
    if image.target() == digest {
        return Some(image.clone());
    }
    image.without_index().filter(|image| image.target() == digest)
}

fn absent(wanted: &ImageName, images: &[Candidate]) -> ArchiveError {
    let label = |image: &Candidate| match &image.name {
        Some(name) if wanted.digest().is_none() => name.familiar().to_owned(),
        Some(name) => format!("{} ({})", name.familiar(), image.target()),
        None => format!("one without a name ({})", image.target()),
    };
    let labels: BTreeSet<String> = images.iter().map(label).collect();
    let mut holds = labels.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    if labels.len() > NAMES {
        holds = format!("{holds} and {} more", labels.len() - NAMES);
    }
    ArchiveError::Absent { wanted: wanted.familiar().to_owned(), holds }
}
