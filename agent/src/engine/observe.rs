//! Looking at the store and at the runtime.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::{Digest, ImageKey};
use larder_plan::node::{self, Delivered, Held};
use larder_runtime::{self as runtime, Observation};
use larder_store::{Claim, Store, StoreError, StoredImage};
use tokio::task::spawn_blocking;

use super::link::Link;

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
    claim: Claim,
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
            Standing::Unknown => Delivered::Unknown,
        };
        self.images
            .iter()
            .map(|(key, found)| Held {
                key: key.clone(),
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
    images: BTreeMap<ImageKey, Found>,
    /// Those to ask the runtime about, and what that needs to know.
    asked: Vec<runtime::Image>,
    handed_over: BTreeSet<Digest>,
}

/// Looks at both. `before` is what the last look gave: where the runtime does not answer, its strays are still that.
pub(super) async fn observe(
    store: &Store,
    link: &mut Link,
    wanted: &BTreeSet<ImageKey>,
    before: &mut Observed,
) -> Result<Observed, StoreError> {
    let first = look(store, link, wanted).await?;
    let mut images = first.images;
    let observation = link.observe(&first.asked, &first.handed_over).await;
    if let Some(lost) =
        observation.as_ref().map(|observation| &observation.lost).filter(|lost| !lost.is_empty())
    {
        tracing::warn!(
            layers = lost.len(),
            "the container runtime has lost layers that were handed over to it"
        );
        let (changed, lost) = (store.clone(), lost.clone());
        run(move || changed.lost(&lost)).await?;
        images = look(store, link, wanted).await?.images;
    }
    for (key, found) in &mut images {
        found.standing = standing(key, link, observation.as_ref());
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

async fn look(store: &Store, link: &Link, wanted: &BTreeSet<ImageKey>) -> Result<Look, StoreError> {
    let (store, wanted, runtime) = (store.clone(), wanted.clone(), link.runtime().cloned());
    run(move || {
        let mut look = Look { images: BTreeMap::new(), asked: Vec::new(), handed_over: BTreeSet::new() };
        for image in store.images()? {
            let found = Found {
                digest: image.target.clone(),
                complete: store.is_complete(&image)?,
                size: store.image_size(&image).unwrap_or_default(),
                claim: image.claim,
                standing: Standing::Unknown,
            };
            let takes = runtime.as_ref().is_some_and(|runtime| runtime.takes(&image.key));
            if takes && is_ours(&image, &wanted) {
                look.asked.extend(runtime::Image::read(&store, &image));
            }
            look.images.insert(image.key, found);
        }
        if runtime.is_some() {
            look.handed_over = store.handed_over()?.into_keys().collect();
        }
        Ok(look)
    })
    .await
}

/// Whether the agent cares how an image stands in the runtime.
fn is_ours(image: &StoredImage, wanted: &BTreeSet<ImageKey>) -> bool {
    image.claim != Claim::None || wanted.contains(&image.key)
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
