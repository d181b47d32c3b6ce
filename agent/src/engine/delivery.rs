//! Giving images to the runtime, while they are being fetched or afterwards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_oci::{Digest, ImageKey, spec::Descriptor};
use larder_pull::{Event, Observer};
use larder_runtime::{Arrivals, Category, Image, Layers, Owner, RuntimeError};
use tokio::{
    sync::oneshot,
    task::{Id, JoinError},
    time::Instant,
};

use super::{
    Engine,
    image::Failure,
    names::Names,
    observe,
    pulls::{Held, Resolved},
};
use crate::reason;

/// Images that are given to the runtime at the same time, beside those that are still being fetched. Unpacking is a matter
/// of the disk: more of them are no faster.
pub(super) const CONCURRENT_DELIVERIES: usize = 2;

/// What came of a delivery.
pub(super) enum Delivery {
    /// The runtime has the image, or says why not.
    Ended(Result<(), RuntimeError>),
    /// The pull that it was to follow ended before there was anything to deliver.
    Nothing,
}

/// From a pull to the delivery that runs beside it.
pub(super) struct Pipeline(Mutex<Open>);

struct Open {
    resolved: Option<oneshot::Sender<Resolved>>,
    arrivals: Option<Arrivals>,
    turn: Option<Arc<Held>>,
}

impl Pipeline {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the pull's turn until the delivery ends.
    pub(super) fn hold(&self, turn: Arc<Held>) {
        self.open().turn = Some(turn);
    }

    /// The pull has brought everything.
    pub(super) fn all_there(&self) {
        if let Some(arrivals) = &self.open().arrivals {
            arrivals.all();
        }
    }

    /// The pull has ended: what has not come by now does not come.
    pub(super) fn close(&self) {
        let mut open = self.open();
        (open.resolved, open.arrivals) = (None, None);
    }

    fn done(&self) {
        self.open().turn = None;
    }
}

impl Observer for Pipeline {
    fn resolved(&self, manifest: &Descriptor, index: Option<&Descriptor>) {
        if let Some(resolved) = self.open().resolved.take() {
            // Nobody listens where the delivery has been given up.
            resolved.send((manifest.clone(), index.cloned())).ok();
        }
    }

    fn layers(&self, _: &[(Digest, u64)]) {}

    fn event(&self, blob: &Digest, event: Event) {
        if matches!(event, Event::AlreadyExists | Event::Complete)
            && let Some(arrivals) = &self.open().arrivals
        {
            arrivals.layer(blob);
        }
    }
}

impl Engine {
    /// Begins a delivery that follows a pull, where the image is to be given to a runtime and is not all there.
    pub(super) fn start_pipeline(&mut self, key: &ImageKey) -> Option<Arc<Pipeline>> {
        let runtime = self.link.reachable().filter(|runtime| runtime.takes(key))?.clone();
        let image = self.images.get_mut(key).filter(|image| image.delivery.is_none())?;
        if self.observed.complete(key).is_some() {
            return None;
        }
        let (sender, receiver) = oneshot::channel::<Resolved>();
        let (arrivals, layers) = Layers::arriving();
        let open = Open { resolved: Some(sender), arrivals: Some(arrivals), turn: None };
        let pipeline = Arc::new(Pipeline(Mutex::new(open)));
        let (store, wanted, shared) = (self.store.clone(), key.clone(), pipeline.clone());
        let owner = owner(&self.names, key);
        let abort = self.deliveries.spawn(async move {
            let Ok((manifest, index)) = receiver.await else { return Delivery::Nothing };
            let read = {
                let (store, key) = (store.clone(), wanted.clone());
                observe::run(move || Image::read_manifest(&store, key, manifest, index)).await
            };
            let delivered = match read {
                Ok(image) => runtime.deliver(&store, &image, owner, layers).await,
                Err(error) => Err(error.into()),
            };
            shared.done();
            Delivery::Ended(delivered)
        });
        self.delivery_keys.insert(abort.id(), key.clone());
        image.delivery = Some(abort);
        Some(pipeline)
    }

    /// Starts to give an image to the runtime that the store has as a whole, unless that is under way or its time has not
    /// come.
    pub(super) fn start_delivery(&mut self, key: ImageKey) {
        let Some(runtime) = self.link.reachable().cloned() else { return };
        let Some(image) = self.images.get_mut(&key) else { return };
        let waits = image.deliver_at.is_some_and(|due| due > Instant::now());
        if image.delivery.is_some() || waits || self.tidying.contains(&key) {
            return;
        }
        let (store, wanted, slots) = (self.store.clone(), key.clone(), self.delivery_slots.clone());
        let (owner, names) = (owner(&self.names, &key), self.names.clone());
        let abort = self.deliveries.spawn(async move {
            let Ok(_slot) = slots.acquire().await else { return Delivery::Nothing };
            tracing::info!(image = %wanted, "giving it to the container runtime");
            let read = {
                let (store, key) = (store.clone(), wanted.clone());
                observe::run(move || {
                    let found = store.image(&key)?;
                    found.map(|image| observe::read(&store, &image, &names)).transpose()
                })
                .await
            };
            Delivery::Ended(match read {
                Ok(Some(image)) => runtime.deliver(&store, &image, owner, Layers::all_there()).await,
                // Somebody took it out of the store. The next look finds that out.
                Ok(None) => Err(RuntimeError::Interrupted),
                Err(error) => Err(error.into()),
            })
        });
        self.delivery_keys.insert(abort.id(), key);
        image.delivery = Some(abort);
    }

    /// Takes note of how a delivery ended. That the runtime has the image is for the runtime to say, at the next look.
    pub(super) fn record_delivery(&mut self, ended: Result<(Id, Delivery), JoinError>) {
        let (id, delivery) = match ended {
            Ok((id, delivery)) => (id, delivery),
            Err(error) => (error.id(), Delivery::Nothing),
        };
        let Some(key) = self.delivery_keys.remove(&id) else { return };
        let Some(image) = self.images.get_mut(&key) else { return };
        if image.delivery.as_ref().is_none_or(|abort| abort.id() != id) {
            return;
        }
        image.delivery = None;
        let Delivery::Ended(result) = delivery else { return };
        // Also after a success: what is not there at the next look, in spite of it, must not keep us busy.
        let delay = image.deliver_backoff.next_delay(None);
        image.deliver_at = Some(Instant::now() + delay);
        match result {
            Ok(()) => tracing::info!(image = %key, "the container runtime has it"),
            // The pull says why.
            Err(error) if error.category() == Category::Interrupted => {
                tracing::debug!(image = %key, "not delivered: the pull ended");
                image.deliver_at = None;
            }
            Err(error) if error.category() == Category::Unreachable => {
                self.link.failed(&error, Instant::now());
            }
            Err(error) => {
                let why = reason::of_runtime(&error);
                tracing::warn!(image = %key, reason = why.as_str(), %error, ?delay, "delivery failed");
                image.delivery_failure = Some(Failure::new(why, error.to_string(), delay));
            }
        }
    }
}

/// On whose behalf a wanted image is given to the runtime.
fn owner(names: &Names, key: &ImageKey) -> Owner {
    Owner::Agent { pin: names.pin(key).unwrap_or(true) }
}
