//! Reading images out of archives and folders.
//!
//! What arrives goes straight into the store, under a lease: there is no second copy. When all of it is there, the
//! images that `index.json` or `manifest.json` names are checked, every one, before the first gets its name. What
//! nothing refers to is collected.

mod docker;
mod folder;
mod image;
mod oci;
mod receive;

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use larder_oci::{Digest, ImageKey, ImageName, Platform};
use larder_store::{Claim, CollectOptions, Lease, NewImage, Store, Untagged};

use crate::{ArchiveError, Result};
use image::Candidate;

pub(crate) use image::is_image_config;

/// Asked now and then whether to stop: true ends the work with [`ArchiveError::Interrupted`].
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Where images come from.
pub enum Source {
    /// An archive in a file, or a folder in the form of an OCI image layout.
    Path(PathBuf),
    /// An archive as a stream, such as standard input.
    Stream(Box<dyn Read + Send>),
}

/// How to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Only images for this platform; all that there are otherwise.
    pub platform: Option<Platform>,
}

/// An image that has been loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its name and platform in the store. [`ImageName::is_nameless`] if the archive gives it no name.
    pub key: ImageKey,
    /// Its ID, as docker has it: the digest of its configuration. An artifact's is its manifest's.
    pub id: Digest,
    /// The digest that its name stands for: its manifest's, or that of the index it came with.
    pub target: Digest,
    /// The image that had the name before, if that was another.
    pub replaced: Option<Untagged>,
}

/// Loads all images of an archive or a folder; returns them in the order in which it lists them.
///
/// On an error, what has been read is removed again. Calls block.
pub fn load(
    store: &Store,
    source: Source,
    options: &LoadOptions,
    stop: Stop<'_>,
) -> Result<Vec<LoadedImage>> {
    // One name for all loads, so that the next one finds what one that was killed has left, and clears it away.
    let key =
        ImageKey { name: ImageName::nameless(&Digest::sha256(b"larder load")), platform: Platform::host() };
    let killed = store.forget(&key)? > 0;
    let lease = store.lease(&key)?;
    let mut unused = BTreeSet::new();
    let loaded = load_under(store, &lease, source, options, stop, &mut unused);
    lease.release();
    if loaded.is_err() || killed || !unused.is_empty() {
        // What it takes is only what nobody needs, at this moment or any other.
        if let Err(error) = store.collect(&CollectOptions::default()) {
            tracing::warn!(%error, "cannot remove what was read from the archive and is not needed");
        }
    }
    loaded
}

fn load_under(
    store: &Store,
    lease: &Lease,
    source: Source,
    options: &LoadOptions,
    stop: Stop<'_>,
    unused: &mut BTreeSet<Digest>,
) -> Result<Vec<LoadedImage>> {
    let mut candidates = match source {
        Source::Path(path) if path.is_dir() => {
            let index = folder::receive(&path, lease, stop, unused)?;
            oci::images(store, lease, &index, options.platform.as_ref())?
        }
        Source::Path(path) => from_stream(store, lease, open(&path)?, options, stop, unused)?,
        Source::Stream(stream) => from_stream(store, lease, stream, options, stop, unused)?,
    };
    candidates.dedup_by(|one, other| one.key() == other.key() && one.target() == other.target());
    let loaded = candidates.iter().map(|candidate| name(store, candidate)).collect::<Result<Vec<_>>>()?;
    for digest in candidates.iter().flat_map(Candidate::digests) {
        unused.remove(digest);
    }
    Ok(loaded)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(ArchiveError::file("open", path))
}

fn from_stream(
    store: &Store,
    lease: &Lease,
    stream: impl Read + Send + 'static,
    options: &LoadOptions,
    stop: Stop<'_>,
    unused: &mut BTreeSet<Digest>,
) -> Result<Vec<Candidate>> {
    let mut received = receive::receive(stream, lease, stop)?;
    unused.append(&mut received.written);
    let platform = options.platform.as_ref();
    // docker 25 lists an image without a name in manifest.json alone, and leaves index.json empty.
    let is_empty = |index: &&Vec<u8>| oci::descriptors(index).is_ok_and(|listed| listed.is_empty());
    match (&received.index, &received.manifest) {
        (Some(index), Some(manifest)) if is_empty(&index) => {
            docker::images(store, lease, manifest, &received, platform, stop)
        }
        (Some(index), manifest) => {
            let mut images = oci::images(store, lease, index, platform)?;
            if let Some(manifest) = manifest {
                docker::name_the_nameless(&mut images, manifest, &received)?;
            }
            Ok(images)
        }
        (None, Some(manifest)) => docker::images(store, lease, manifest, &received, platform, stop),
        (None, None) => Err(ArchiveError::NoImages),
    }
}

fn name(store: &Store, candidate: &Candidate) -> Result<LoadedImage> {
    let lease = store.lease(&candidate.key())?;
    let commit = || {
        lease.protect(candidate.digests())?;
        let (manifest, index) = (candidate.manifest.clone(), candidate.index.clone());
        lease.commit_by_hand(NewImage { manifest, index, claim: Claim::None })
    };
    match commit() {
        Ok(replaced) => Ok(LoadedImage {
            key: candidate.key(),
            id: candidate.id.clone(),
            target: candidate.target().clone(),
            replaced,
        }),
        Err(error) => {
            lease.release();
            Err(error.into())
        }
    }
}
