//! Blobs of the store, as a push reads them.

use std::io::{Error, Read, Seek, SeekFrom};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, TryStreamExt},
};
use larder_oci::Digest;
use larder_registry::{BlobSource, ByteStream};
use larder_store::{Blob, Store};
use tokio::task::spawn_blocking;

/// The size of the pieces that a blob is read in: large enough to be cheap, small enough to hold several.
const PIECE: usize = 128 << 10;

/// A blob of the store, wherever it is at the moment.
pub(crate) struct StoredBlob {
    pub store: Store,
    pub digest: Digest,
}

impl BlobSource for StoredBlob {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<ByteStream, Error>> {
        let (store, digest) = (self.store.clone(), self.digest.clone());
        Box::pin(async move {
            let blob = blocking(move || {
                let mut blob = store.open_blob(&digest).map_err(Error::other)?;
                blob.seek(SeekFrom::Start(offset)).map_err(|error| Error::other(blob.failed(error)))?;
                Ok(blob)
            });
            let pieces = stream::try_unfold(blob.await?, |blob| blocking(move || piece(blob)));
            Ok(pieces.into_stream().boxed())
        })
    }
}

/// The next piece; `None` at the end.
fn piece(mut blob: Blob) -> Result<Option<(Bytes, Blob)>, Error> {
    let mut bytes = Vec::with_capacity(PIECE);
    let read = blob.by_ref().take(PIECE as u64).read_to_end(&mut bytes);
    read.map_err(|error| Error::other(blob.failed(error)))?;
    Ok((!bytes.is_empty()).then(|| (bytes.into(), blob)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(|_| Error::other("interrupted"))?
}
