//! Reading images out of archives and folders.
//!
//! What arrives goes straight into the store, under a lease: there is no second copy. When all of it is there, the
//! images that `index.json` or `manifest.json` names are checked, every one, before the first gets its name. What
//! nothing refers to is collected.

mod choose;
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

use larder_oci::{Digest, ImageKey, ImageName, Platform, spec::Descriptor};
use larder_store::{Claim, CollectOptions, Lease, NewImage, Store, StoreError, Untagged};

use crate::{ArchiveError, Result};
use image::Candidate;

pub use choose::{Only, Pick};

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
    /// Only these images, under the names that are given here; the platform is theirs then. All that there are otherwise, on
    /// behalf of a person ([`Lease::commit_by_hand`]).
    pub only: Option<Only>,
}

impl LoadOptions {
    fn platform(&self) -> Option<&Platform> {
        self.only.as_ref().map(Only::platform).or(self.platform.as_ref())
    }

    /// What of an archive's entries is to be looked at.
    fn narrow<T>(&self, listed: Vec<T>, names: impl Fn(&T) -> Vec<ImageName>) -> Vec<T> {
        match &self.only {
            Some(only) => only.narrow(listed, names),
            None => listed,
        }
    }
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

/// Loads all images of an archive or a folder, or those that the options name; returns them in the order in which it lists
/// them, or in which they were named.
///
/// On an error, what has been read is removed again, and so is what came with images that were not asked for. Calls block.
pub fn load(
    store: &Store,
    source: Source,
    options: &LoadOptions,
    stop: Stop<'_>,
) -> Result<Vec<LoadedImage>> {
    let key = lease_key();
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

/// Clears away what loads have left that were killed. The next load does so too.
pub fn forget_killed_loads(store: &Store) -> Result<()> {
    if store.forget(&lease_key())? > 0 {
        store.collect(&CollectOptions::default())?;
    }
    Ok(())
}

/// One name for all loads, so that the next one finds what one that was killed has left.
fn lease_key() -> ImageKey {
    ImageKey { name: ImageName::nameless(&Digest::sha256(b"larder load")), platform: Platform::host() }
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
            oci::images(store, lease, &index, options)?
        }
        Source::Path(path) => from_stream(store, lease, open(&path)?, options, stop, unused)?,
        Source::Stream(stream) => from_stream(store, lease, stream, options, stop, unused)?,
    };
    candidates.dedup_by(|one, other| one.key() == other.key() && one.target() == other.target());
    let picked = options.only.as_ref().map(|only| only.choose(&candidates)).transpose()?;
    let (loaded, named) = match picked {
        Some(picked) => {
            let loaded =
                picked.iter().map(|(pick, image)| name_as(store, pick, image)).collect::<Result<_>>()?;
            (loaded, picked.into_iter().map(|(_, image)| image).collect())
        }
        None => (candidates.iter().map(|image| name(store, image)).collect::<Result<_>>()?, candidates),
    };
    for digest in named.iter().flat_map(Candidate::digests) {
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
    // docker 25 lists an image without a name in manifest.json alone, and leaves index.json empty.
    let is_empty = |index: &&Vec<u8>| oci::descriptors(index).is_ok_and(|listed| listed.is_empty());
    match (&received.index, &received.manifest) {
        (Some(index), Some(manifest)) if is_empty(&index) => {
            docker::images(store, lease, manifest, &received, options, stop)
        }
        (Some(index), manifest) => {
            let mut images = oci::images(store, lease, index, options)?;
            if let Some(manifest) = manifest {
                docker::name_the_nameless(&mut images, manifest, &received)?;
            }
            Ok(images)
        }
        (None, Some(manifest)) => docker::images(store, lease, manifest, &received, options, stop),
        (None, None) => Err(ArchiveError::NoImages),
    }
}

/// Gives an image the name that it has in the archive, on behalf of a person.
fn name(store: &Store, candidate: &Candidate) -> Result<LoadedImage> {
    commit(store, &candidate.key(), candidate, |lease, manifest, index| {
        lease.commit_by_hand(NewImage { manifest, index, claim: Claim::None })
    })
}

/// Gives an image the name that it was asked for by.
fn name_as(store: &Store, pick: &Pick, candidate: &Candidate) -> Result<LoadedImage> {
    commit(store, &pick.key, candidate, |lease, manifest, index| {
        lease.commit(NewImage { manifest, index, claim: pick.claim }).map(|()| None)
    })
}

fn commit(
    store: &Store,
    key: &ImageKey,
    candidate: &Candidate,
    commit: impl FnOnce(
        &Lease,
        Descriptor,
        Option<Descriptor>,
    ) -> std::result::Result<Option<Untagged>, StoreError>,
) -> Result<LoadedImage> {
    let lease = store.lease(key)?;
    let committed = lease
        .protect(candidate.digests())
        .and_then(|()| commit(&lease, candidate.manifest.clone(), candidate.index.clone()));
    match committed {
        Ok(replaced) => Ok(LoadedImage {
            key: key.clone(),
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
