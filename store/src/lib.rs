//! A layer store in OCI image-layout form that many processes use at once and that no kill and no power cut harms.
//!
//! The folder is what the image specification describes
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>), so other tools read it as it stands:
//!
//! ```text
//! oci-layout
//! index.json                     one descriptor an image, that is, a name and a platform
//! blobs/<algorithm>/<hex>
//! .larder/lock                   the store's lock
//! .larder/id                     the store's ID
//! .larder/leases/                what running pulls need
//! .larder/partial/               blobs in the making
//! .larder/elsewhere/<alg>/<hex>  in the place of a blob that was handed over: its size
//! .larder/trash/                 collected blobs, on their way out
//! .larder/index.json.new         space for the next index, so that images can be removed from a full disk
//! ```
//!
//! # The way an image gets in
//!
//! [`Store::lease`] → [`Lease::protect`] the digests → [`Lease::ingest`] each, which gives a [`BlobWriter`] for those
//! that are missing → [`Lease::commit`]. [`Store::remove`] takes the name away, [`Store::collect`] the blobs.
//!
//! # Layers that are elsewhere
//!
//! On a node, the container runtime has the layers of the images that it was given. So that they are on the disk once,
//! [`Store::hand_over`] leaves a layer to it: a marker takes the place of the file, and the layer is read through the
//! [`Annex`]. Before a pull fetches a layer, [`Store::find_layer`] asks whether the annex has it already. [`Store::lost`]
//! says that it has it no more.
//!
//! All calls block, on the disk or on a lock; asynchronous programs make them where blocking is allowed.
//!
//! # Who waits for whom
//!
//! Locks are `flock`s, which the kernel drops when their owner dies.
//!
//! - Readers ([`Store::images`], [`Store::open_blob`], …) take no lock: `index.json` is replaced as a whole, and an
//!   open file outlives its name. Who wants to read all of an image takes [`Store::hold`] first.
//! - The store's lock, shared: taking a lease, each [`Lease::protect`], and [`Store::hand_over`]. They wait for those that
//!   follow.
//! - The store's lock, exclusive: the change of `index.json` at the end of a pull (milliseconds), [`Store::lost`], and the
//!   part of a collection that decides and renames.
//! - A blob in the making is locked by its one writer. Nobody waits for it here; [`Ingest::Busy`] says so, and the
//!   caller asks again.
//!
//! That a blob which a pull relies on is never collected follows from the order: the pull protects the digest while no
//! collection runs, and then looks whether the blob is there. A collection before that has deleted the blob already,
//! and the pull fetches it; one after that sees the lease.
//!
//! Other tools know nothing of these locks. They may read at any time; let them write when no collection can run.
//!
//! # A kill
//!
//! What is at a blob's name has its digest: only [`BlobWriter::finish`] renames a file to it, after hashing every byte.
//! Bytes are handed to the kernel as they arrive, so a blob in the making loses none of them, and its lease, which
//! stays, keeps them until the next try. `index.json` is the old one or the new one.
//!
//! # A power cut
//!
//! The kernel writes data and names in an order of its own, unless told otherwise. So: a blob's data is synced before
//! the rename that names it, hence a name never stands for fewer bytes. Its folder is synced by the commit, before
//! `index.json` is written, hence the index never names what the disk does not have; until then, the worst is that
//! the finished blob is again a blob in the making, to be hashed and named anew. The new index is synced before it
//! replaces the old one, and the root folder after that, hence a commit that returned stays. Collection deletes only
//! afterwards. A blob in the making may hold anything after a power cut; since its bytes are hashed when they are
//! taken up again, the worst is a [`StoreError::DigestMismatch`] that says `resumed`, upon which the blob is fetched
//! anew. Verifying all blobs after an unclean boot would be the other way; it reads the whole store, and it can only
//! tell that an image was lost, not keep it.

#![forbid(unsafe_code)]

mod annex;
mod blob;
mod collect;
mod elsewhere;
mod error;
mod id;
mod image;
mod index;
mod inventory;
mod layout;
mod lease;
mod lock;
mod naming;
mod presence;
mod read;
mod spool;

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

pub use annex::{Annex, AnnexBlob, AnnexIngest, AnnexWriter};
pub use blob::{BlobWriter, Ingest};
pub use collect::{CollectOptions, Collected};
pub use error::{Category, StoreError};
pub use id::StoreId;
pub use image::{Claim, NewImage, StoredImage};
pub use inventory::Inventory;
pub use larder_oci::ImageKey;
pub use lease::Lease;
pub use naming::Untagged;
pub use presence::Presence;
pub use read::{Blob, BlobState};
pub use spool::SpoolWriter;

use error::Result;
use layout::Layout;

/// A handle to a store; clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Arc<Layout>,
    annex: Option<Arc<dyn Annex>>,
    /// Once it has been read.
    id: Arc<OnceLock<StoreId>>,
}

impl Store {
    /// Opens the store in the folder `root`, and makes one if the folder is empty or missing. Refuses a folder that
    /// holds something else. A layout made by other tools is taken as it is.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Self { layout: Arc::new(Layout::open(root)?), annex: None, id: Arc::default() })
    }

    /// The same store, with a way to the blobs that were handed over.
    #[must_use]
    pub fn with_annex(self, annex: Arc<dyn Annex>) -> Self {
        Self { annex: Some(annex), ..self }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.layout.root()
    }
}
