//! Image archives, written from the layer store and read into it.
#![forbid(unsafe_code)]
mod ahead;
mod annotations;
mod compression;
mod error;
mod load;
mod parallel;
mod save;
mod tar_stream;

pub use compression::{Compression, UnknownCompression};
pub use error::{ArchiveError, Result};
pub use load::{LoadOptions, LoadedImage, Source, Stop, load};
pub use save::{Form, SaveImage, SaveOptions, Saved, UnknownForm, save, to_file};
