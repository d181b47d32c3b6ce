//! Looking at the store and changing it, off the async threads.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::{Digest, ImageKey};
use larder_plan::node::{self, Held};
use larder_store::{Claim, CollectOptions, Store, StoreError, StoredImage};
use tokio::task::spawn_blocking;

/// What the store holds.
#[derive(Debug, Default)]
pub(super) struct Observed {
    images: BTreeMap<ImageKey, Found>,
}

/// One image that the store names.
#[derive(Debug)]
pub(super) struct Found {
    pub digest: Digest,
    pub size: u64,
    complete: bool,
    claim: Claim,
}

impl Observed {
    /// What the plan needs to know.
    pub(super) fn held(&self) -> Vec<Held> {
        let claim = |claim| match claim {
            Claim::None => node::Claim::Person,
            Claim::Delete => node::Claim::Larder,
            Claim::Retain => node::Claim::Released,
        };
        self.images
            .iter()
            .map(|(key, found)| Held {
                key: key.clone(),
                complete: found.complete,
                claim: claim(found.claim),
            })
            .collect()
    }

    /// The image, if all of it is there.
    pub(super) fn complete(&self, key: &ImageKey) -> Option<&Found> {
        self.images.get(key).filter(|found| found.complete)
    }

    pub(super) fn claim(&self, key: &ImageKey) -> Option<Claim> {
        self.images.get(key).map(|found| found.claim)
    }
}

/// What is to become of images that are there.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub claims: Vec<(ImageKey, Claim)>,
    pub remove: Vec<ImageKey>,
    pub forget: BTreeSet<ImageKey>,
}

/// Looks at the store.
pub(super) async fn observe(store: &Store) -> Result<Observed, StoreError> {
    let store = store.clone();
    run(move || look(&store)).await
}

/// Carries changes out, and looks again if there were any.
pub(super) async fn apply(store: &Store, changes: Changes) -> Result<Option<Observed>, StoreError> {
    if changes.claims.is_empty() && changes.remove.is_empty() && changes.forget.is_empty() {
        return Ok(None);
    }
    let store = store.clone();
    run(move || {
        for (key, claim) in &changes.claims {
            store.set_claim(std::slice::from_ref(key), *claim)?;
        }
        for key in changes.remove.iter().chain(&changes.forget) {
            store.forget(key)?;
        }
        for key in &changes.remove {
            store.remove(key)?;
            tracing::info!(image = %key, "removed");
        }
        let collected = store.collect(&CollectOptions::default())?;
        tracing::info!(blobs = collected.blobs.len(), bytes = collected.bytes, "space reclaimed");
        look(&store).map(Some)
    })
    .await
}

fn look(store: &Store) -> Result<Observed, StoreError> {
    let found = |image: StoredImage| -> Result<(ImageKey, Found), StoreError> {
        let found = Found {
            digest: image.target.clone(),
            complete: store.is_complete(&image)?,
            size: store.image_size(&image).unwrap_or_default(),
            claim: image.claim,
        };
        Ok((image.key, found))
    };
    let images = store.images()?.into_iter().map(found).collect::<Result<_, _>>()?;
    Ok(Observed { images })
}

async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime only drops blocking work when it shuts down, and then nobody waits for this.
        Err(_) => std::future::pending().await,
    }
}
