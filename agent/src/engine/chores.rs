//! Taking away what nobody wants: from the runtime first, then from the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use larder_oci::ImageKey;
use larder_runtime::{Containers, Image, Layers, Owner, Runtime, RuntimeError, User, Withdrawal};
use larder_store::{Claim, CollectOptions, Store, StoreError};

use super::{
    observe,
    purge::{self, Kept, Purge, Purged},
};

/// What is wanted, as those see it who take things away.
#[derive(Debug, Clone, Default)]
pub(super) struct WantedNow(Arc<Mutex<BTreeSet<ImageKey>>>);

impl WantedNow {
    pub(super) fn set(&self, wanted: BTreeSet<ImageKey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
    }

    fn contains(&self, key: &ImageKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

/// What is to become of images that are there.
#[derive(Debug, Default)]
pub(super) struct Chores {
    /// Images that change hands in the store.
    pub claims: Vec<(ImageKey, Claim)>,
    /// Images whose interrupted pulls are to be cleaned up.
    pub forget: BTreeSet<ImageKey>,
    pub remove: Vec<ImageKey>,
    /// Images to leave to the runtime.
    pub leave: Vec<ImageKey>,
    /// A person's images that are not wanted any more.
    pub give_back: Vec<ImageKey>,
    /// Blobs may have lost the name that they were kept for.
    pub collect: bool,
    /// What rules take away.
    pub purges: Vec<Purge>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The images that are gone.
    pub removed: Vec<ImageKey>,
    /// Those that are not Larder's any more, and still there.
    pub left: Vec<ImageKey>,
    /// Those that stay, and what uses them.
    pub in_use: BTreeMap<ImageKey, Vec<User>>,
    /// Those that the runtime did not let go for another reason.
    pub failed: BTreeMap<ImageKey, RuntimeError>,
    /// What was cleaned up, where that worked.
    pub forgotten: BTreeSet<ImageKey>,
    /// What became of what rules take away.
    pub purged: Vec<Purged>,
    pub trouble: Option<StoreError>,
}

impl Chores {
    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty()
            && self.forget.is_empty()
            && self.remove.is_empty()
            && self.leave.is_empty()
            && self.give_back.is_empty()
            && self.purges.is_empty()
            && !self.collect
    }

    /// Those that must not be fetched or delivered meanwhile.
    pub(super) fn touched(&self) -> BTreeSet<ImageKey> {
        let away = self.remove.iter().chain(&self.leave).chain(&self.give_back);
        away.chain(&self.forget).cloned().collect()
    }

    /// Carries them out. An image that is wanted again by the time its turn comes is passed over.
    pub(super) async fn run(
        self,
        store: Store,
        runtime: Option<Runtime>,
        wanted: WantedNow,
        kept: Kept,
    ) -> Done {
        let mut done = Done::default();
        // First, so that whatever interrupts the rest, an image that was released is not taken for one to remove.
        let claims = self.claims.into_iter().chain(self.leave.iter().map(|key| (key.clone(), Claim::Retain)));
        if let Err(error) = set_claims(&store, claims.collect()).await {
            done.trouble = Some(error);
            return done;
        }
        for key in self.give_back {
            if let Some(runtime) = &runtime
                && !wanted.contains(&key)
            {
                match give_back(&store, runtime, &key).await {
                    Ok(()) => done.left.push(key),
                    Err(error) => drop(done.failed.insert(key, error)),
                }
            }
        }
        let mut gone = Vec::new();
        for key in self.leave {
            if wanted.contains(&key) {
                continue;
            }
            let left = match &runtime {
                Some(runtime) => runtime.release(&key).await,
                None => Ok(()),
            };
            match left {
                Ok(()) => {
                    tracing::info!(image = %key, "left to the container runtime");
                    gone.push(key);
                }
                Err(error) => drop(done.failed.insert(key, error)),
            }
        }
        // Most of what is tried again and again is in use, and one look tells that of all.
        let containers = match &runtime {
            Some(runtime) if self.remove.len() > 1 => runtime.containers().await.unwrap_or_default(),
            _ => Containers::default(),
        };
        for key in self.remove {
            if wanted.contains(&key) {
                continue;
            }
            match withdraw(&store, runtime.as_ref(), &key, &containers).await {
                Ok(Withdrawal::Gone) => done.removed.push(key),
                Ok(Withdrawal::Left) => {
                    tracing::info!(image = %key, "it was in the container runtime before Larder, and stays there");
                    gone.push(key);
                }
                Ok(Withdrawal::InUse(users)) => drop(done.in_use.insert(key, users)),
                Err(error) => drop(done.failed.insert(key, error)),
            }
        }
        done.left.extend(gone.iter().cloned());
        gone.extend(done.removed.iter().cloned());
        let mut forget = BTreeSet::new();
        for key in self.forget.into_iter().filter(|key| !wanted.contains(key)) {
            match abandon(&store, runtime.as_ref(), &key).await {
                Ok(()) => drop(forget.insert(key)),
                Err(error) => drop(done.failed.insert(key, error)),
            }
        }
        match take_out(&store, gone, forget, wanted, self.collect).await {
            Ok(forgotten) => done.forgotten = forgotten,
            Err(error) => done.trouble = Some(error),
        }
        done.purged = purge::carry_out(self.purges, &store, runtime.as_ref(), &kept).await;
        done
    }
}

async fn set_claims(store: &Store, claims: Vec<(ImageKey, Claim)>) -> Result<(), StoreError> {
    if claims.is_empty() {
        return Ok(());
    }
    let store = store.clone();
    observe::run(move || {
        claims
            .iter()
            .try_for_each(|(key, claim)| store.set_claim(std::slice::from_ref(key), *claim).map(drop))
    })
    .await
}

/// What the store knows of an image, where it names it and can read it.
async fn image(store: &Store, key: &ImageKey) -> Result<Option<Image>, StoreError> {
    let (store, key) = (store.clone(), key.clone());
    observe::run(move || store.image(&key)?.map(|image| Image::read(&store, &image)).transpose()).await
}

async fn withdraw(
    store: &Store,
    runtime: Option<&Runtime>,
    key: &ImageKey,
    containers: &Containers,
) -> Result<Withdrawal, RuntimeError> {
    let Some(runtime) = runtime.filter(|runtime| runtime.takes(key)) else { return Ok(Withdrawal::Gone) };
    // One that can't be read any more has to go all the same.
    let image = image(store, key).await.unwrap_or_default();
    let users = image.as_ref().map(|image| containers.made_from(image)).unwrap_or_default();
    if !users.is_empty() {
        return Ok(Withdrawal::InUse(users));
    }
    runtime.withdraw(key, image.as_ref()).await
}

/// Takes from the runtime what a delivery that was given up has left there. An image that the store names is another matter.
async fn abandon(store: &Store, runtime: Option<&Runtime>, key: &ImageKey) -> Result<(), RuntimeError> {
    let Some(runtime) = runtime.filter(|runtime| runtime.takes(key)) else { return Ok(()) };
    let (named, wanted) = (store.clone(), key.clone());
    if observe::run(move || named.image(&wanted)).await?.is_none() {
        runtime.withdraw(key, None).await?;
    }
    Ok(())
}

/// The image becomes one that a person has given to the runtime: it stays, without a pin of ours.
async fn give_back(store: &Store, runtime: &Runtime, key: &ImageKey) -> Result<(), RuntimeError> {
    match image(store, key).await? {
        Some(image) => {
            runtime.deliver(store, &image, Owner::Person { pin: false }, Layers::all_there()).await
        }
        None => Ok(()),
    }
}

/// Takes images out of the store, and reclaims the space.
async fn take_out(
    store: &Store,
    gone: Vec<ImageKey>,
    forget: BTreeSet<ImageKey>,
    wanted: WantedNow,
    collect: bool,
) -> Result<BTreeSet<ImageKey>, StoreError> {
    if gone.is_empty() && forget.is_empty() && !collect {
        return Ok(forget);
    }
    let store = store.clone();
    observe::run(move || {
        for key in gone.iter().chain(&forget) {
            store.forget(key)?;
        }
        let may_go =
            |image: &larder_store::StoredImage| image.claim != Claim::None && !wanted.contains(&image.key);
        for key in store.remove_all(&gone, may_go)? {
            tracing::info!(image = %key, "removed");
        }
        reclaim(&store)?;
        Ok(forget)
    })
    .await
}

/// Collects what nothing needs any more. Blocks.
pub(super) fn reclaim(store: &Store) -> Result<(), StoreError> {
    let collected = store.collect(&CollectOptions::default())?;
    if !collected.blobs.is_empty() {
        tracing::info!(blobs = collected.blobs.len(), bytes = collected.bytes, "space reclaimed");
    }
    Ok(())
}
