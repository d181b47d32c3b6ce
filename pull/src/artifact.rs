//! Single files that are artifacts in a registry, as `oras push` makes them: a manifest with one layer, which is the file
//! (<https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage>).

use std::sync::Arc;

use larder_oci::{Digest, ImageKey, ImageName};
use larder_registry::RegistryError;
use larder_store::{Blob, CollectOptions, Lease, StoreError};
use tokio::sync::Semaphore;

use crate::{CONCURRENT_BLOBS, Progress, PullError, Puller, blob::Fetch, blocking, resolve};

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// It could not be fetched.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The name stands for something else than one file.
    #[error(
        "{name} is not one file: its manifest has {layers} layers; push the file with `oras push {name} FILE`"
    )]
    NotOneFile {
        /// The artifact.
        name: ImageName,
        /// The digest that its name stands for.
        digest: Digest,
        /// Its manifest's layers.
        layers: usize,
    },
}

impl From<RegistryError> for ArtifactError {
    fn from(error: RegistryError) -> Self {
        Self::Pull(error.into())
    }
}

/// A file that is in the store, for as long as it is needed.
#[derive(Debug)]
pub struct Artifact {
    /// The digest that the artifact's name stands for.
    pub digest: Digest,
    /// The file's own.
    pub file: Digest,
    lease: Arc<Lease>,
}

impl Puller {
    /// The digest that an artifact's name stands for: one request without a body, and none for a name with a digest.
    pub async fn artifact_digest(&self, name: &ImageName) -> Result<Digest, PullError> {
        match name.digest() {
            Some(digest) => Ok(digest.clone()),
            None => Ok(self.registry.head_manifest(name).await?.digest),
        }
    }

    /// Fetches a file that is an artifact, on behalf of an image that is to come out of it. Where the name stands for an
    /// index, the one for the image's platform.
    ///
    /// Like a pull of the image, one that fails, is dropped or is killed leaves what it has for the next one
    /// ([`Store::forget`](larder_store::Store::forget) drops that).
    ///
    /// # Errors
    /// [`ArtifactError`].
    pub async fn fetch_artifact(
        &self,
        name: &ImageName,
        image: &ImageKey,
        progress: &Arc<Progress>,
    ) -> Result<Artifact, ArtifactError> {
        let key = ImageKey { name: name.clone(), platform: image.platform.clone() };
        let lease = {
            let (store, image) = (self.store.clone(), image.clone());
            blocking(move || Ok(Arc::new(store.lease(&image)?))).await?
        };
        let resolved = self.resolve(&key, &lease, None).await?;
        let digest = resolve::digest_of(resolved.target())?;
        let [layer] = resolved.document.layers().as_slice() else {
            let layers = resolved.document.layers().len();
            lease.undo();
            return Err(ArtifactError::NotOneFile { name: name.clone(), digest, layers });
        };
        self.admit(&key, &lease, &resolved).await?;
        let (file, size) = (resolve::digest_of(layer)?, layer.size());
        progress.start(size);
        let (protecting, wanted) = (lease.clone(), file.clone());
        blocking(move || Ok(protecting.protect([&wanted])?)).await?;
        let fetch = Fetch {
            puller: self,
            name,
            lease: lease.clone(),
            digest: file.clone(),
            size,
            // It is read from here, and by nobody else.
            is_layer: false,
            progress: progress.clone(),
            slots: &Semaphore::new(CONCURRENT_BLOBS),
            turn: None,
        };
        fetch.run().await?;
        Ok(Artifact { digest, file, lease })
    }
}

impl Artifact {
    /// Opens the file for reading. Blocks.
    pub fn open(&self) -> Result<Blob, StoreError> {
        self.lease.store().open_blob(&self.file)
    }

    /// Gives the file up, and its space back to the disk unless something else needs it. Blocks.
    pub fn discard(self) -> Result<(), StoreError> {
        let store = self.lease.store().clone();
        if let Some(lease) = Arc::into_inner(self.lease) {
            lease.release();
        }
        store.collect(&CollectOptions::default()).map(drop)
    }
}
