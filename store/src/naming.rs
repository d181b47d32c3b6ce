//! Names as people move them. An image whose name goes to another one stays, without its tag, until it is pruned; and
//! what the agent looks after, it goes on looking after, whoever gives the name to another image.

use larder_oci::{ImageKey, ImageName};

use crate::{
    Claim, Lease, NewImage, Store, StoredImage,
    error::{Result, StoreError},
    index::Index,
    lock::ExclusiveLock,
};

/// An image whose name went to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untagged {
    /// What it was called.
    pub was: ImageKey,
    /// The image as it stands in the store now: under its repository and digest.
    pub now: StoredImage,
}

impl Lease {
    /// Names an image as [`Lease::commit`] does, on behalf of a person.
    ///
    /// The image that had the key before, if it is another and has no further name, stays as `repository@digest`; it
    /// is returned. The agent's claim on the key, if it has one, is kept, and the given one passed over.
    pub fn commit_by_hand(&self, image: NewImage) -> Result<Option<Untagged>> {
        let stored = self.make_ready(image)?;
        let layout = &self.store().layout;
        let untagged = {
            let lock = ExclusiveLock::take(layout)?;
            let mut index = Index::read(layout)?;
            let (changed, untagged) = give_name(&mut index, stored)?;
            if changed {
                index.write(layout, &lock)?;
            }
            untagged
        };
        self.served();
        Ok(untagged)
    }
}

impl Store {
    /// Gives images a further name, all at once: the images of one name, each for its platform.
    ///
    /// Images that had the new name before stay without a tag, for every platform; they are returned.
    /// [`StoreError::NoImage`] if one of the images is gone, and then nothing has changed.
    pub fn tag(&self, images: &[ImageKey], name: &ImageName) -> Result<Vec<Untagged>> {
        let lock = ExclusiveLock::take(&self.layout)?;
        let mut index = Index::read(&self.layout)?;
        let mut named = Vec::new();
        for key in images {
            let source =
                find(&index, key).ok_or_else(|| StoreError::NoImage { key: Box::new(key.clone()) })?;
            let key = ImageKey { name: name.clone(), platform: source.key.platform.clone() };
            named.push(StoredImage { key, claim: Claim::None, further: false, ..source.clone() });
        }
        let (mut untagged, mut changed) = (Vec::new(), false);
        for image in named.iter().cloned() {
            let (put, old) = give_name(&mut index, image)?;
            changed |= put;
            untagged.extend(old);
        }
        // The name stands for the new image alone: for other platforms, the old one has lost it.
        let others: Vec<StoredImage> = present(&index)
            .filter(|other| other.key.name == *name && other.claim == Claim::None)
            .filter(|other| named.iter().all(|image| image.key != other.key && image.target != other.target))
            .cloned()
            .collect();
        for other in others {
            index.remove(&other.key);
            changed = true;
            untagged.extend(keep_untagged(&mut index, other)?);
        }
        if changed {
            index.write(&self.layout, &lock)?;
        }
        Ok(untagged)
    }

    /// Gives images further names on behalf of the agent, all at once: each pair is a name and the image that it is to stand
    /// for. Returns the names that stand for another image than before.
    ///
    /// What a name stood for until now has lost it. Passed over are names that a person has given to something else, and
    /// those whose image is not there.
    pub fn tag_for_agent(&self, names: &[(ImageKey, ImageKey)]) -> Result<Vec<ImageKey>> {
        let lock = ExclusiveLock::take(&self.layout)?;
        let mut index = Index::read(&self.layout)?;
        let mut changed = Vec::new();
        for (name, of) in names {
            let Some(source) = find(&index, of).cloned() else { continue };
            let stays = |old: &StoredImage| old.claim == Claim::None || old.is_same_as(&source);
            if find(&index, name).is_some_and(stays) {
                continue;
            }
            let image = StoredImage { key: name.clone(), claim: Claim::Delete, further: true, ..source };
            if index.put(image)? {
                changed.push(name.clone());
            }
        }
        if !changed.is_empty() {
            index.write(&self.layout, &lock)?;
        }
        Ok(changed)
    }

    /// Takes several names away, all at once; those that are not there are passed over. Returns those that were.
    ///
    /// `may_go` has a last look at each image, while nobody can change it: false leaves it. It must not call the
    /// store.
    pub fn remove_all(
        &self,
        keys: &[ImageKey],
        may_go: impl Fn(&StoredImage) -> bool,
    ) -> Result<Vec<ImageKey>> {
        let lock = ExclusiveLock::take(&self.layout)?;
        let mut index = Index::read(&self.layout)?;
        let mut removed = Vec::new();
        for key in keys {
            if find(&index, key).is_some_and(&may_go) && index.remove(key) {
                removed.push(key.clone());
            }
        }
        if !removed.is_empty() {
            index.write(&self.layout, &lock)?;
        }
        Ok(removed)
    }
}

fn present(index: &Index) -> impl Iterator<Item = &StoredImage> {
    index.entries.iter().filter_map(|entry| entry.image.as_ref())
}

fn find<'a>(index: &'a Index, key: &ImageKey) -> Option<&'a StoredImage> {
    present(index).find(|image| image.key == *key)
}

/// Puts the image in the place of the one with the same key; whether that changes anything, and who lost the name.
fn give_name(index: &mut Index, mut image: StoredImage) -> Result<(bool, Option<Untagged>)> {
    let old = find(index, &image.key).cloned();
    if let Some(old) = &old
        && old.claim != Claim::None
    {
        (image.claim, image.further) = (old.claim, old.further);
    }
    let digest = image.manifest_digest.clone();
    let changed = index.put(image)?;
    let untagged = match old {
        Some(old) if changed && old.manifest_digest != digest => keep_untagged(index, old)?,
        _ => None,
    };
    Ok((changed, untagged))
}

/// Keeps an image that has just lost its name under its digest, unless it has another name.
fn keep_untagged(index: &mut Index, old: StoredImage) -> Result<Option<Untagged>> {
    let same = |image: &StoredImage| {
        image.manifest_digest == old.manifest_digest && image.key.platform == old.key.platform
    };
    if present(index).any(same) {
        return Ok(None);
    }
    let was = old.key.clone();
    let key = ImageKey { name: was.name.untagged(&old.target), platform: was.platform.clone() };
    let now = StoredImage { key, ..old };
    index.put(now.clone())?;
    Ok(Some(Untagged { was, now }))
}
