//! What the engine says about the images.

use k8s_openapi::jiff::Timestamp;
use larder_crds::FailureReason;
use larder_oci::{Digest, ImageKey};

use super::{Engine, Image, observe::Observed};

/// How the wanted images stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The generation that the report is about. `None` before the engine has taken anything up.
    pub generation: Option<i64>,
    /// The images, in the order in which they are wanted.
    pub images: Vec<ImageReport>,
}

/// How one image stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReport {
    /// The name as it was given.
    pub image: String,
    /// The platform as it was given.
    pub platform: Option<String>,
    /// Where it stands.
    pub state: State,
}

/// Where an image stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its turn has not come.
    Pending,
    /// It is being fetched.
    Pulling {
        /// Bytes that are there.
        present: u64,
        /// Bytes in all, 0 while that is not known.
        total: u64,
    },
    /// It is there, every byte verified.
    Ready {
        /// The digest that the name stands for.
        digest: Digest,
        /// Bytes in all.
        size: u64,
    },
    /// It could not be had.
    Failed {
        /// Why, in a word.
        reason: FailureReason,
        /// Why, in a sentence.
        message: String,
        /// When it is tried again; never, where the name can't even be read.
        retry_time: Option<Timestamp>,
    },
}

pub(super) fn report(engine: &Engine) -> Report {
    let images = engine.desired.images.iter().map(|wanted| ImageReport {
        image: wanted.image.clone(),
        platform: wanted.platform.clone(),
        state: match (&engine.trouble, &wanted.key) {
            (Some(trouble), _) => failed(FailureReason::StoreError, trouble),
            (None, Err(unreadable)) => failed(FailureReason::InvalidReference, unreadable),
            (None, Ok(key)) => state(key, engine.images.get(key), &engine.observed),
        },
    });
    Report { generation: engine.desired.generation, images: images.collect() }
}

fn failed(reason: FailureReason, message: &str) -> State {
    State::Failed { reason, message: message.to_owned(), retry_time: None }
}

fn state(key: &ImageKey, image: Option<&Image>, observed: &Observed) -> State {
    // An image that is there stays ready while its tag is looked up again, and when that fails.
    if let Some(found) = observed.complete(key) {
        return State::Ready { digest: found.digest.clone(), size: found.size };
    }
    let Some(image) = image else { return State::Pending };
    let progress = image.pull.as_ref().map(|(progress, _)| progress);
    match (progress, &image.failure) {
        // A new try replaces the last one's failure once it has got further than that one.
        (Some(progress), failure) if progress.has_begun() && (progress.total() > 0 || failure.is_none()) => {
            State::Pulling { present: progress.present(), total: progress.total() }
        }
        (_, Some(failure)) => State::Failed {
            reason: failure.reason,
            message: failure.message.clone(),
            retry_time: Some(failure.retry_time),
        },
        (_, None) => State::Pending,
    }
}
