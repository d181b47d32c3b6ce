//! Carrying out what rules for removal say: out of the runtime first, then out of the store.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use larder_oci::{Digest, ImageKey, ImageName};
use larder_runtime::{self as runtime, Removal, Runtime};
use larder_store::{Store, StoreError};

use super::{chores, observe, survey::in_runtime};

/// Names that no rule takes away: of images that are wanted, will be wanted, or have just been left behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<BTreeSet<ImageName>>>);

impl Kept {
    /// Replaces them; true if they are others.
    pub(super) fn set<'a>(&self, keys: impl Iterator<Item = &'a ImageKey>) -> bool {
        let names: BTreeSet<ImageName> =
            keys.flat_map(|key| [key.name.clone(), in_runtime(&key.name)]).collect();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *kept != names;
        *kept = names;
        is_new
    }

    /// Whether one of these names is kept.
    pub(super) fn has_any<'a>(&self, names: impl IntoIterator<Item = &'a ImageName>) -> bool {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.into_iter().any(|name| kept.contains(name) || kept.contains(&in_runtime(name)))
    }
}

/// An image of which names are to go.
#[derive(Debug, Clone)]
pub(super) struct Purge {
    pub id: Digest,
    /// All its names.
    pub all: BTreeSet<ImageName>,
    /// Those that go.
    pub names: BTreeSet<ImageName>,
    /// Whether no name is left then.
    pub is_last: bool,
    /// Its names in the store, with the manifests that they stand for.
    pub stored: Vec<(ImageKey, Digest)>,
    /// The rules that say so: the cache, and the rule's `image`.
    pub rules: Vec<(String, String)>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Purged {
    pub purge: Purge,
    /// Whether the names are gone.
    pub is_gone: bool,
}

/// Takes names away. An image that is wanted, used or pinned by the time its turn comes is passed over.
pub(super) async fn carry_out(
    purges: Vec<Purge>,
    store: &Store,
    runtime: Option<&Runtime>,
    kept: &Kept,
) -> Vec<Purged> {
    let mut done = Vec::with_capacity(purges.len());
    for purge in purges {
        let is_gone = !kept.has_any(&purge.all) && leaves_runtime(&purge, runtime).await;
        done.push(Purged { purge, is_gone });
    }
    let gone: Vec<Purge> = done.iter().filter(|one| one.is_gone).map(|one| one.purge.clone()).collect();
    if let Err(error) = take_out(store, gone, kept.clone()).await {
        tracing::warn!(%error, "the layer store does not let go what a rule takes away; trying again");
        for one in &mut done {
            one.is_gone &= one.purge.stored.is_empty();
        }
    }
    done
}

async fn leaves_runtime(purge: &Purge, runtime: Option<&Runtime>) -> bool {
    let Some(runtime) = runtime else { return true };
    let names = purge.names.iter().map(in_runtime).collect();
    let image = purge.names.first().map(ToString::to_string).unwrap_or_default();
    match runtime.remove(&purge.id, &names).await {
        Ok(Removal::Gone) => true,
        Ok(Removal::InUse(_) | Removal::Stays) => {
            tracing::debug!(image, "a rule takes it away, and the container runtime has reasons to keep it");
            false
        }
        Err(error) => {
            tracing::warn!(image, %error, "the container runtime does not let it go; trying again");
            false
        }
    }
}

/// Takes names out of the store, if they still stand for the same, and reclaims the space.
async fn take_out(store: &Store, gone: Vec<Purge>, kept: Kept) -> Result<(), StoreError> {
    let mut going: Vec<(ImageKey, Digest)> = Vec::new();
    for purge in gone {
        let all: Vec<ImageName> = purge.stored.iter().map(|(key, _)| key.name.clone()).collect();
        let leaving: Vec<&ImageName> = runtime::leaving(&all, &purge.names);
        going.extend(purge.stored.iter().filter(|(key, _)| leaving.contains(&&key.name)).cloned());
    }
    if going.is_empty() {
        return Ok(());
    }
    let store = store.clone();
    observe::run(move || {
        let keys: Vec<ImageKey> = going.iter().map(|(key, _)| key.clone()).collect();
        store.remove_all(&keys, |image| {
            let same = |(key, manifest): &(ImageKey, Digest)| {
                *key == image.key && *manifest == image.manifest_digest
            };
            going.iter().any(same) && !kept.has_any([&image.key.name])
        })?;
        chores::reclaim(&store)
    })
    .await
}
