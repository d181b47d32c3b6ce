//! Fetching images, one task each.

use std::sync::Arc;

use larder_oci::{ImageKey, spec::Descriptor};
use larder_plan::node::Delivered;
use larder_pull::{Progress, PullError, Pulled};
use larder_store::Claim;
use tokio::{
    sync::Semaphore,
    task::{Id, JoinError},
    time::Instant,
};

use super::{
    Engine,
    delivery::Pipeline,
    image::{Failure, Pull},
    observe::Standing,
};
use crate::reason;

/// Images that are fetched from one registry at the same time. There is no limit over all registries: a slow one
/// must not hold up the others.
const CONCURRENT_PULLS_A_REGISTRY: usize = 3;

/// The platform's manifest and the index that the name stands for, once the store has them.
pub(super) type Resolved = (Descriptor, Option<Descriptor>);

impl Engine {
    /// Starts to fetch an image, unless that is under way or its time has not come. What it needs of the runtime goes on
    /// beside it.
    ///
    /// While the runtime is away nothing is fetched for it: it may have the layers already.
    pub(super) fn start_pull(&mut self, key: &ImageKey) {
        let Some(image) = self.images.get(key) else { return };
        let waits = image.failure.as_ref().is_some_and(|failure| failure.due > Instant::now());
        if image.pull.is_some() || waits || self.link.is_missed_by(key) || self.tidying.contains(key) {
            return;
        }
        // What a person put there stays a person's, whatever is fetched for it again.
        let claim = match self.observed.claim(key) {
            Some(Claim::None) => Claim::None,
            _ => Claim::Delete,
        };
        let slots = self
            .slots
            .entry(key.name.registry().to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(CONCURRENT_PULLS_A_REGISTRY)))
            .clone();
        let pipeline = self.start_pipeline(key);
        let progress = Arc::new(match &pipeline {
            Some(pipeline) => Progress::observed(pipeline.clone()),
            None => Progress::default(),
        });
        let puller = self.puller.clone().to_annex(pipeline.is_some());
        let (image_key, shared) = (key.clone(), progress.clone());
        let abort = self.pulls.spawn(async move {
            let _end = pipeline.as_ref().map(|pipeline| End(pipeline.clone()));
            let slot = slots.acquire_owned().await.map_err(|_| PullError::Interrupted)?;
            // Kept until the image is delivered too: a runtime that is slower than the registry must not be given ever more
            // images at once.
            let slot = Arc::new(slot);
            if let Some(pipeline) = &pipeline {
                pipeline.hold(slot.clone());
            }
            tracing::info!(image = %image_key, "pulling");
            shared.begin();
            let image = puller.pull(&image_key, claim, &shared).await?;
            if let Some(pipeline) = &pipeline {
                pipeline.all_there();
            }
            Ok(image)
        });
        self.pull_keys.insert(abort.id(), key.clone());
        if let Some(image) = self.images.get_mut(key) {
            image.pull = Some(Pull { progress, abort });
        }
    }

    /// Takes note of how a pull ended.
    pub(super) fn record_pull(&mut self, ended: Result<(Id, Result<Pulled, PullError>), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(PullError::Interrupted)),
        };
        let Some(key) = self.pull_keys.remove(&id) else { return };
        let Some(image) = self.images.get_mut(&key) else {
            // Its lease was alive when the image was given up, and is not any more.
            self.forget.insert(key);
            return;
        };
        // An image that was unwanted for a moment has a new entry, and perhaps a new pull, by now.
        if image.pull.as_ref().is_none_or(|pull| pull.abort.id() != id) {
            return;
        }
        image.pull = None;
        match result {
            Ok(pulled) => {
                tracing::info!(image = %key, digest = %pulled.digest, bytes = pulled.size, "pulled");
                image.failure = None;
                image.backoff.reset();
                image.rechecked = true;
                // What the runtime has under the name is older than this answer.
                image.looked_up = match self.observed.get(&key) {
                    Some(found) => match &found.standing {
                        Standing::Moved(to) => Some(to.clone()),
                        _ if found.digest != pulled.digest => Some(found.digest.clone()),
                        _ => None,
                    },
                    None => None,
                };
            }
            Err(error) => {
                let delay = image.backoff.next_delay(error.retry_after());
                tracing::warn!(image = %key, reason = reason::of(&error).as_str(), %error, ?delay, "pull failed");
                image.failure = Some(Failure::new(reason::of(&error), error.to_string(), delay));
            }
        }
    }

    /// How images stand, as the plan wants to know it.
    pub(super) fn held(&self) -> Vec<larder_plan::node::Held> {
        let mut held = self
            .observed
            .held(|key, to| self.images.get(key).is_some_and(|image| image.looked_up.as_ref() == Some(to)));
        // A name is on its way from one image to another.
        for image in &mut held {
            let under_way = self.images.get(&image.key).is_some_and(|known| known.delivery.is_some());
            if image.delivered == Delivered::Moved && under_way {
                image.delivered = Delivered::Missing;
            }
        }
        held
    }
}

/// However a pull ends: no layers come any more.
struct End(Arc<Pipeline>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}
