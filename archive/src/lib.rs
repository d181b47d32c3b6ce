//! Image archives, written from the layer store and read into it.
//!
//! [`save`] and [`to_file`] write images as an archive that docker, containerd, skopeo and podman load: an OCI image
//! layout with docker's `manifest.json` beside it, or either alone, plain or compressed. [`load`] reads all of these,
//! docker's older forms, and layouts in folders. Both stream: memory stays bounded whatever an image's size, and what
//! is loaded is written once, into the store.
//!
//! Archives come from strangers. Nothing in one becomes a path on the disk, every byte is hashed before it counts,
//! documents and headers have bounds, and an image gets its name only when all of the archive has been read and all
//! of its images have been checked.
//!
//! [`ArchiveFolder`] is a folder that archives are kept in, by names that others have chosen.
//!
//! All calls block, on the disk or on a lock; asynchronous programs make them where blocking is allowed.
#![forbid(unsafe_code)]
mod ahead;
mod annotations;
mod compression;
mod error;
mod folder;
mod load;
mod parallel;
mod save;
mod tar_stream;

pub use compression::{Compression, UnknownCompression};
pub use error::{ArchiveError, Result};
pub use folder::{ArchiveFolder, Entry, Stamp};
pub use load::{LoadOptions, LoadedImage, Only, Pick, Source, Stop, forget_killed_loads, load};
pub use save::{Form, SaveImage, SaveOptions, Saved, UnknownForm, save, to_file};
