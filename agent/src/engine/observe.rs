//! Looking at the store and at the runtime.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use larder_oci::{Digest, ImageKey, spec::Descriptor};
use larder_plan::node::{self, Delivered, Held};
use larder_runtime::{self as runtime, Observation};
use larder_store::{Claim, Store, StoreError, StoreId, StoredImage};
use tokio::task::spawn_blocking;

use super::{link::Link, names::Names};

/// What the node holds.
#[derive(Debug, Default)]
pub(super) struct Observed {
    images: BTreeMap<ImageKey, Found>,
    /// Images in the runtime that the agent once gave to it, and that are not wanted.
    pub strays: BTreeSet<ImageKey>,
}

/// One image that the store names.
#[derive(Debug)]
pub(super) struct Found {
    pub digest: Digest,
    pub size: u64,
    complete: bool,
    pub claim: Claim,
    pub standing: Standing,
}

/// How an image stands in the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    NotNeeded,
    Ready,
    /// Its name stands for this digest there.
    Moved(Digest),
    Missing,
    Unknown,
    /// Layers of it were left to a runtime, and there is none.
    Elsewhere,
}

impl Observed {
    /// What the plan needs to know. `looked_up` says whether it has been looked up that a name is not meant to stand for a
    /// digest that the runtime has for it.
    pub(super) fn held(&self, looked_up: impl Fn(&ImageKey, &Digest) -> bool) -> Vec<Held> {
        let claim = |claim| match claim {
            Claim::None => node::Claim::Person,
            Claim::Delete => node::Claim::Larder,
            Claim::Retain => node::Claim::Released,
        };
        let delivered = |key: &ImageKey, standing: &Standing| match standing {
            Standing::NotNeeded => Delivered::NotNeeded,
            Standing::Ready => Delivered::Ready,
            Standing::Moved(to) if looked_up(key, to) => Delivered::Missing,
            Standing::Moved(_) => Delivered::Moved,
            Standing::Missing => Delivered::Missing,
            Standing::Unknown | Standing::Elsewhere => Delivered::Unknown,
        };
        self.images
            .iter()
            .map(|(key, found)| Held {
                key: key.clone(),
                digest: found.digest.clone(),
                complete: found.complete,
                claim: claim(found.claim),
                delivered: delivered(key, &found.standing),
            })
            .collect()
    }

    /// The image, if the store names it.
    pub(super) fn get(&self, key: &ImageKey) -> Option<&Found> {
        self.images.get(key)
    }

    /// The image, if the store has all of it.
    pub(super) fn complete(&self, key: &ImageKey) -> Option<&Found> {
        self.images.get(key).filter(|found| found.complete)
    }

    pub(super) fn claim(&self, key: &ImageKey) -> Option<Claim> {
        self.images.get(key).map(|found| found.claim)
    }
}

/// What one look at the store gave.
struct Look {
    store: StoreId,
    images: BTreeMap<ImageKey, Found>,
    /// Those to ask the runtime about, and what that needs to know.
    asked: Vec<runtime::Image>,
    handed_over: BTreeSet<Digest>,
    /// Those that can't be read for want of a runtime.
    elsewhere: BTreeSet<ImageKey>,
}

/// Looks at both. `before` is what the last look gave: where the runtime does not answer, its strays are still that.
pub(super) async fn observe(
    store: &Store,
    link: &mut Link,
    names: &Arc<Names>,
    before: &mut Observed,
) -> Result<Observed, StoreError> {
    let first = look(store, link, names).await?;
    let (mut images, elsewhere) = (first.images, first.elsewhere);
    let observation = link.observe(&first.store, &first.asked, &first.handed_over).await;
    if let Some(lost) =
        observation.as_ref().map(|observation| &observation.lost).filter(|lost| !lost.is_empty())
    {
        tracing::warn!(
            layers = lost.len(),
            "the container runtime has lost layers that were handed over to it"
        );
        let (changed, lost) = (store.clone(), lost.clone());
        run(move || changed.lost(&lost)).await?;
        images = look(store, link, names).await?.images;
    }
    for (key, found) in &mut images {
        found.standing = match standing(key, link, observation.as_ref()) {
            Standing::NotNeeded if elsewhere.contains(key) => Standing::Elsewhere,
            standing => standing,
        };
    }
    let strays = match (observation, link.runtime()) {
        (Some(observation), _) => observation.strays,
        (None, Some(_)) => std::mem::take(&mut before.strays),
        (None, None) => BTreeSet::new(),
    };
    Ok(Observed { images, strays })
}

fn standing(key: &ImageKey, link: &Link, observation: Option<&Observation>) -> Standing {
    if !link.takes(key) {
        return Standing::NotNeeded;
    }
    let Some(observation) = observation else { return Standing::Unknown };
    match observation.states.get(key) {
        Some(runtime::State::Ready) => Standing::Ready,
        Some(runtime::State::Moved { to }) => Standing::Moved(to.clone()),
        // Not asked about: its manifest cannot be read. To deliver it fails, and says why.
        Some(runtime::State::Missing) | None => Standing::Missing,
    }
}

async fn look(store: &Store, link: &Link, names: &Arc<Names>) -> Result<Look, StoreError> {
    let (store, names, runtime) = (store.clone(), names.clone(), link.runtime().cloned());
    run(move || {
        let mut look = Look {
            store: store.id()?.clone(),
            images: BTreeMap::new(),
            asked: Vec::new(),
            handed_over: store.handed_over()?.into_keys().collect(),
            elsewhere: BTreeSet::new(),
        };
        for image in store.images()? {
            let found = Found {
                digest: image.target.clone(),
                // What it was given as a further name for says nothing of what a registry means by it.
                complete: store.is_complete(&image)? && !(image.further && names.is_own(&image.key)),
                size: store.image_size(&image).unwrap_or_default(),
                claim: image.claim,
                standing: Standing::Unknown,
            };
            let takes = runtime.as_ref().is_some_and(|runtime| runtime.takes(&image.key));
            if takes && is_ours(&image, &names) {
                look.asked.extend(read(&store, &image, &names));
            }
            if runtime.is_none() && needs_any(&store, &image, &look.handed_over) {
                look.elsewhere.insert(image.key.clone());
            }
            look.images.insert(image.key, found);
        }
        Ok(look)
    })
    .await
}

/// Whether a layer of an image is among these. One whose manifest can't be read has other troubles. Blocks.
fn needs_any(store: &Store, image: &StoredImage, layers: &BTreeSet<Digest>) -> bool {
    let is_among =
        |layer: &Descriptor| Digest::try_from(layer.digest()).is_ok_and(|digest| layers.contains(&digest));
    !layers.is_empty()
        && runtime::Image::read(store, image).is_ok_and(|image| image.layers.iter().any(is_among))
}

/// Whether the agent cares how an image stands in the runtime.
fn is_ours(image: &StoredImage, names: &Names) -> bool {
    image.claim != Claim::None || names.contains(&image.key)
}

/// What the runtime needs to know of an image that the store names. Blocks.
pub(super) fn read(store: &Store, image: &StoredImage, names: &Names) -> Result<runtime::Image, StoreError> {
    let read = runtime::Image::read(store, image)?;
    let further = read.further || names.source(&image.key).is_some();
    Ok(runtime::Image { pin: names.pin(&image.key), further, ..read })
}

/// Runs what blocks off the async threads.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime only drops blocking work when it shuts down, and then nobody waits for this.
        Err(_) => std::future::pending().await,
    }
}
