//! Whether there is room for an image: asked once it is known what it consists of, before any of it is fetched.

use std::{collections::BTreeSet, sync::Arc};

use larder_oci::{Digest, ImageKey};
use larder_store::{Lease, Presence};

use crate::{
    PullError, Puller, blocking,
    resolve::{Resolved, digest_of},
};

/// Who decides whether an image is fetched.
pub trait Admission: Send + Sync {
    /// Asked once a try, after the image's name has been resolved and before anything of it is kept. Called where blocking is
    /// allowed. `Err` says why not, in a sentence with the numbers: the pull ends with [`PullError::InsufficientDisk`], and
    /// leaves nothing behind that was not there before.
    fn admit(&self, needs: &Needs) -> Result<(), String>;
}

/// What an image consists of, and what of it is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Which image.
    pub image: ImageKey,
    /// Its configuration and its layers, each once. Its manifests are small, and left out.
    pub blobs: Vec<Need>,
}

/// A blob that an image needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes, as the manifest says.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Whether it is a layer, and not the configuration.
    pub is_layer: bool,
    /// Where it is, or how much of it.
    pub presence: Presence,
}

impl Puller {
    /// The same, asking before it fetches anything.
    #[must_use]
    pub fn with_admission(self, admission: Arc<dyn Admission>) -> Self {
        Self { admission: Some(admission), ..self }
    }

    /// Asks whether the image may be fetched, where there is somebody to ask.
    pub(crate) async fn admit(
        &self,
        key: &ImageKey,
        lease: &Arc<Lease>,
        resolved: &Resolved,
    ) -> Result<(), PullError> {
        let Some(admission) = self.admission.clone() else { return Ok(()) };
        let mut needs = Needs { image: key.clone(), blobs: needs(resolved)? };
        let (store, lease) = (self.store.clone(), lease.clone());
        blocking(move || {
            for need in &mut needs.blobs {
                need.presence = store.presence(&need.digest, need.size)?;
            }
            admission.admit(&needs).map_err(|why| {
                lease.undo();
                PullError::InsufficientDisk(why)
            })
        })
        .await
    }
}

fn needs(resolved: &Resolved) -> Result<Vec<Need>, PullError> {
    let config = (resolved.document.config(), false);
    let layers = resolved.document.layers().iter().map(|layer| (layer, true));
    let mut seen = BTreeSet::new();
    let mut needs = Vec::new();
    for (descriptor, is_layer) in std::iter::once(config).chain(layers) {
        let digest = digest_of(descriptor)?;
        if seen.insert(digest.clone()) {
            needs.push(Need {
                digest,
                size: descriptor.size(),
                media_type: descriptor.media_type().to_string(),
                is_layer,
                presence: Presence::default(),
            });
        }
    }
    Ok(needs)
}
