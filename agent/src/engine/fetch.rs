//! One try to fetch one image.

use std::{sync::Arc, time::Duration};

use larder_oci::ImageKey;
use larder_pull::{Progress, PullError, Pulled, Puller};
use larder_store::Claim;
use tokio::time::timeout;

use super::{
    delivery::Pipeline,
    disk,
    load::{Load, LoadError},
    logins::Logins,
};

/// Why an image could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The registry, the image or the disk is in the way.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The archive is in the way that it comes from.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The archive that it comes from was changed while it was read: it is still on its way here.
    #[error("the archive was changed while it was read; it is read again once it is whole")]
    Unsettled,
    /// It took too long.
    #[error("fetching it took longer than {} seconds (pullTimeout){}", limit.as_secs(), so_far(*present, *total))]
    TimedOut {
        /// How long it might take.
        limit: Duration,
        /// Bytes that are there.
        present: u64,
        /// Bytes in all; 0 if that is not known yet.
        total: u64,
    },
}

impl FetchError {
    /// How long the registry asks to wait before the next try.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Pull(error) => error.retry_after(),
            Self::Load(_) | Self::Unsettled | Self::TimedOut { .. } => None,
        }
    }
}

/// What a try has come to that ran out of time.
fn so_far(present: u64, total: u64) -> String {
    if total == 0 {
        return "; its registry has not said yet what it consists of".to_owned();
    }
    format!(
        "; {} of {} are here, and the next try goes on from there",
        disk::bytes(present),
        disk::bytes(total)
    )
}

/// A try, ready to go.
pub(super) struct Fetch {
    pub key: ImageKey,
    pub claim: Claim,
    pub puller: Puller,
    pub progress: Arc<Progress>,
    /// Where it comes from, if that is not the registry in its name.
    pub load: Option<Load>,
    /// The delivery that goes on beside it, where there is one.
    pub pipeline: Option<Arc<Pipeline>>,
    /// How long it may take.
    pub limit: Option<Duration>,
    pub logins: Logins,
}

impl Fetch {
    /// Fetches the image. Dropped, or out of time, it leaves what has come for the next try.
    pub(super) async fn run(self) -> Result<Pulled, FetchError> {
        let _end = self.pipeline.as_ref().map(|pipeline| End(pipeline.clone()));
        tracing::info!(image = %self.key, "{}", if self.load.is_some() { "loading" } else { "pulling" });
        let fetched = match self.limit {
            None => self.fetch().await,
            Some(limit) => timeout(limit, self.fetch()).await.unwrap_or_else(|_| {
                let (present, total) = (self.progress.present(), self.progress.total());
                Err(FetchError::TimedOut { limit, present, total })
            }),
        };
        if let (Ok(_), Some(pipeline)) = (&fetched, &self.pipeline) {
            pipeline.all_there();
        }
        fetched
    }

    async fn fetch(&self) -> Result<Pulled, FetchError> {
        if let Some(load) = &self.load {
            return load.run(&self.puller, &self.logins, &self.progress).await;
        }
        let pull = || self.puller.pull(&self.key, self.claim, &self.progress);
        Ok(self.logins.with(&self.key.name, pull).await?)
    }
}

/// However a pull ends: no layers come any more.
struct End(Arc<Pipeline>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}
