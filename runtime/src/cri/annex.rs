//! Layers that a runtime has pulled by itself.

use std::io;

use larder_oci::Digest;
use larder_store::{Annex, AnnexBlob, StoreId};

/// The runtime gets all layers by itself and gives none back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CriAnnex;

impl Annex for CriAnnex {
    fn keep(&self, _store: &StoreId, _digest: &Digest, _size: u64) -> io::Result<bool> {
        Ok(true)
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn AnnexBlob>> {
        let text = format!(
            "layer {digest} is in the container runtime, which gives no layers back through CRI; pull the image into \
             another store (--store), or use containerd's own API (--runtime containerd)"
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }
}
