//! The vocabulary of container images, without any input or output.
//!
//! Everything here is a value: image names as docker normalises them ([`ImageName`]), digests that are safe to
//! use as file names ([`Digest`]), platforms and how one is chosen ([`Platform`]), and manifests parsed from bytes
//! that nobody vouches for ([`manifest`]). The types of the OCI image specification itself come from `oci-spec`.

#![forbid(unsafe_code)]

pub mod digest;
mod grammar;
mod key;
pub mod manifest;
pub mod name;
pub mod pattern;
pub mod platform;

pub use digest::{Digest, Hasher, InvalidDigest};
pub use key::ImageKey;
pub use manifest::{Document, ManifestError};
pub use name::{ImageName, InvalidName};
pub use oci_spec::image as spec;
pub use pattern::{InvalidPattern, Pattern};
pub use platform::{InvalidPlatform, Platform};
