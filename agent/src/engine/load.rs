//! Images that come from archives: files in the import folder, and artifacts in registries.
//!
//! A load is one try to have an image, as a pull is; what is loaded is an image like any other afterwards. One archive is read
//! by one task at a time, and that takes along all other images that are wanted from it and are not there: a site's one large
//! archive is read once.
//!
//! A file is looked at, by a `stat`, whenever the engine looks. It is read once it has not changed for a moment, since it may
//! still be on its way here. One that is of no use is read again when it has changed, and not before. Of an artifact that is
//! of no use, the digest is remembered instead.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use larder_archive::{
    ArchiveError, ArchiveFolder, Entry, LoadOptions, LoadedImage, Only, Pick, Source as Archive, Stamp,
    forget_killed_loads, load,
};
use larder_crds::FailureReason;
use larder_oci::{Digest, ImageKey, ImageName};
use larder_pull::{Admission, ArtifactError, Need, Needs, Progress, PullError, Pulled, Puller};
use larder_registry::RegistryError;
use larder_store::{Claim, Presence, Store, StoreError};
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    Engine,
    desired::Source,
    fetch::FetchError,
    image::Failure,
    ledger::{Ledger, Origin},
    logins::{Logins, Refusable},
    stop::stoppable,
};
use crate::reason;

/// How long a file must not have changed before it is read.
const SETTLED: Duration = Duration::from_secs(2);
/// What is counted for unpacking what comes out of an archive: as for compressed layers.
const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What the engine knows of archives to load from. Nothing that could not be found out again.
pub(super) struct Loads {
    folder: Option<PathBuf>,
    ledger: Arc<Ledger>,
    /// The wanted files in the import folder, as of the last look.
    files: BTreeMap<String, Seen>,
    /// Where images were loaded from.
    origins: BTreeMap<ImageKey, Origin>,
    /// Images that could not be had from what their archive was then.
    refused: BTreeMap<ImageKey, Refused>,
    /// What loads have left that were killed is gone.
    is_clean: bool,
}

/// A file as it was seen.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    entry: Entry,
    /// Why it cannot be looked at.
    trouble: Option<String>,
    /// How long it has been so, as far as we know.
    since: Instant,
    is_settled: bool,
}

impl Seen {
    fn new(
        entry: Entry,
        trouble: Option<String>,
        before: Option<&Self>,
        now: Instant,
        age: Option<Duration>,
    ) -> Self {
        let since = before.filter(|before| before.entry == entry).map_or(now, |before| before.since);
        let is_settled = now >= since + SETTLED || age.is_some_and(|age| age >= SETTLED);
        Self { entry, trouble, since, is_settled }
    }

    /// When it will have settled.
    fn due(&self) -> Option<Instant> {
        (!self.is_settled && matches!(self.entry, Entry::File(_))).then(|| self.since + SETTLED)
    }
}

/// What an image could not be had from.
#[derive(Debug, Clone, PartialEq)]
enum Refused {
    /// Nothing, or something that is no file, or a file.
    Entry(Entry),
    /// An artifact of this digest, and why.
    Artifact(Digest, LoadError),
}

/// Why an image could not be loaded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct LoadError {
    /// Why, in a word.
    pub reason: FailureReason,
    message: String,
    /// What is of no use, as long as it does not change.
    of: Option<Unusable>,
}

#[derive(Debug, Clone, PartialEq)]
enum Unusable {
    File(Stamp),
    Artifact(Digest),
}

impl LoadError {
    fn new(reason: FailureReason, message: String) -> Self {
        Self { reason, message, of: None }
    }

    /// An error about an archive that is called `what`.
    fn archive(what: &str, error: &ArchiveError, of: Unusable) -> Self {
        let reason = reason::of_loading(error);
        let lasts = matches!(reason, FailureReason::InvalidArchive | FailureReason::NoMatchingPlatform);
        Self { reason, message: format!("{what}: {error}"), of: lasts.then_some(of) }
    }

    fn stopped() -> Self {
        Self::new(FailureReason::StoreError, "interrupted".to_owned())
    }
}

impl Loads {
    pub(super) fn new(folder: Option<PathBuf>, ledger: Arc<Ledger>) -> Self {
        Self {
            folder,
            ledger,
            files: BTreeMap::new(),
            origins: BTreeMap::new(),
            refused: BTreeMap::new(),
            is_clean: false,
        }
    }

    /// When files will have settled that are being copied here.
    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        self.files.values().filter_map(Seen::due)
    }

    fn is_settled(&self, file: &str) -> bool {
        self.files.get(file).is_some_and(|seen| seen.is_settled && matches!(seen.entry, Entry::File(_)))
    }

    /// Why there is nothing to load.
    fn absent(&self, file: &str, seen: &Seen) -> LoadError {
        let folder = self.folder.as_deref().unwrap_or(Path::new("")).display();
        let message = match (&seen.trouble, &seen.entry) {
            (Some(trouble), _) => trouble.clone(),
            (None, Entry::Other(what)) => {
                format!("{file} in the import folder {folder} is {what}; put the file itself there")
            }
            (None, _) => {
                format!("there is no {file} in the import folder {folder}: put it there, and it is loaded")
            }
        };
        LoadError::new(FailureReason::ArchiveNotFound, message)
    }
}

impl Loads {
    /// What is to be remembered of a try that failed. Says whether the image waits for its archive to change.
    pub(super) fn refused(&mut self, key: &ImageKey, error: &FetchError) -> bool {
        let FetchError::Load(error) = error else { return false };
        match &error.of {
            Some(Unusable::File(stamp)) => {
                self.refused.insert(key.clone(), Refused::Entry(Entry::File(*stamp)));
                true
            }
            Some(Unusable::Artifact(digest)) => {
                self.refused.insert(key.clone(), Refused::Artifact(digest.clone(), error.clone()));
                false
            }
            None => false,
        }
    }
}

impl Engine {
    /// Looks at the files that images are to be loaded from, and decides which of these images need that.
    pub(super) async fn look_at_imports(&mut self) {
        let sources: BTreeMap<ImageKey, Source> = self
            .fetching
            .iter()
            .filter(|(_, fetching)| fetching.source != Source::Registry)
            .map(|(key, fetching)| (key.clone(), fetching.source.clone()))
            .collect();
        let loads = &mut self.loads;
        loads.refused.retain(|key, _| sources.contains_key(key));
        let (ledger, folder) = (loads.ledger.clone(), loads.folder.clone());
        let keys = sources.keys().cloned().chain(self.desired.deferred.iter().cloned()).collect();
        let files: BTreeSet<String> = sources
            .values()
            .filter_map(|source| if let Source::File(file) = source { Some(file.clone()) } else { None })
            .collect();
        let clean = (!std::mem::replace(&mut loads.is_clean, true)).then(|| self.store.clone());
        let looked = spawn_blocking(move || {
            if let Some(error) = clean.and_then(|store| forget_killed_loads(&store).err()) {
                tracing::warn!(%error, "cannot remove what an interrupted load has left");
            }
            look(&ledger, folder.as_deref(), &files, &keys)
        })
        .await;
        // The runtime only drops blocking work when it shuts down, and then nobody waits for this.
        let Ok(look) = looked else { return std::future::pending().await };
        loads.origins = look.origins;
        let now = Instant::now();
        let before = std::mem::take(&mut loads.files);
        loads.files = look
            .files
            .into_iter()
            .map(|(file, found)| {
                let age = age(&found.entry);
                let seen = Seen::new(found.entry, found.trouble, before.get(&file), now, age);
                (file, seen)
            })
            .collect();
        for (key, source) in &sources {
            if let Source::File(file) = source {
                self.review(key, file);
            }
        }
    }

    /// Settles what is known without reading a file: that it is not there, that nothing has changed, that there is reason to
    /// try again.
    fn review(&mut self, key: &ImageKey, file: &str) {
        let (Some(image), Some(seen)) = (self.images.get_mut(key), self.loads.files.get(file)) else {
            return;
        };
        if image.pull.is_some() {
            return;
        }
        let is_here = self.observed.complete(key).is_some();
        let unchanged = match (&seen.entry, self.loads.origins.get(key)) {
            (Entry::File(now), Some(Origin::File { name, stamp })) => name == file && stamp == now,
            // Who has put it on the node may take the archive away.
            (Entry::Absent | Entry::Other(_), _) => true,
            (Entry::File(_), _) => false,
        };
        if is_here && unchanged {
            image.rechecked = true;
        }
        let entry = Refused::Entry(seen.entry);
        let is_known = self.loads.refused.get(key) == Some(&entry);
        if !is_known && self.loads.refused.remove(key).is_some() {
            image.failure = None;
            image.backoff.reset();
        }
        if !matches!(seen.entry, Entry::File(_)) && !is_here && (!is_known || image.failure.is_none()) {
            let error = self.loads.absent(file, seen);
            tracing::warn!(image = %key, reason = error.reason.as_str(), %error, "nothing to load");
            image.failure = Some(Failure::lasting(error.reason, error.message));
            self.loads.refused.insert(key.clone(), entry);
        }
    }

    /// Whether nothing speaks against having the image from where it is to come: its archive is there, and nobody reads it.
    pub(super) fn may_load(&self, key: &ImageKey) -> bool {
        let Some(source) = self.fetching.get(key).map(|fetching| &fetching.source) else { return true };
        match source {
            Source::Registry => return true,
            Source::File(file) if !self.loads.is_settled(file) => return false,
            Source::File(_) | Source::Artifact(_) => {}
        }
        let is_read =
            |other: &ImageKey| self.fetching.get(other).is_some_and(|other| other.source == *source);
        !self.images.iter().any(|(other, image)| image.pull.is_some() && is_read(other))
    }

    /// How the image is to be loaded; nothing if it is its registry's.
    pub(super) fn load(&self, key: &ImageKey, claim: Claim, admission: Arc<dyn Admission>) -> Option<Load> {
        let source = self.fetching.get(key).map(|fetching| &fetching.source)?;
        let from = match source {
            Source::Registry => return None,
            Source::File(file) => From::File { folder: self.loads.folder.clone()?, file: file.clone() },
            Source::Artifact(name) => From::Artifact(name.clone()),
        };
        let is_missing = |other: &ImageKey| {
            other != key && other.platform == key.platform && self.observed.complete(other).is_none()
        };
        let is_idle = |other: &ImageKey| {
            self.images.get(other).is_some_and(|image| image.pull.is_none()) && !self.tidying.contains(other)
        };
        let along = self
            .fetching
            .iter()
            .filter(|(other, fetching)| fetching.source == *source && is_missing(other) && is_idle(other))
            .map(|(other, _)| Pick { key: other.clone(), claim: self.claim_for(other) })
            .collect();
        let held = self.observed.complete(key).map(|found| (found.digest.clone(), found.size));
        Some(Load {
            store: self.store.clone(),
            from,
            only: Only { wanted: Pick { key: key.clone(), claim }, along },
            held: held.zip(self.loads.origins.get(key).cloned()),
            refused: match self.loads.refused.get(key) {
                Some(Refused::Artifact(digest, error)) => Some((digest.clone(), error.clone())),
                _ => None,
            },
            ledger: self.loads.ledger.clone(),
            admission,
        })
    }
}

/// What one look at the import folder gave.
struct Look {
    files: BTreeMap<String, Found>,
    origins: BTreeMap<ImageKey, Origin>,
}

struct Found {
    entry: Entry,
    trouble: Option<String>,
}

fn look(ledger: &Ledger, folder: Option<&Path>, files: &BTreeSet<String>, keys: &BTreeSet<ImageKey>) -> Look {
    if let Err(error) = ledger.keep_origins(keys) {
        tracing::warn!(%error, "cannot note in the store where images come from");
    }
    let origins = keys.iter().filter_map(|key| Some((key.clone(), ledger.origin(key)?))).collect();
    if files.is_empty() {
        return Look { files: BTreeMap::new(), origins };
    }
    let opened = match folder {
        Some(folder) => ArchiveFolder::open(folder).map_err(|error| match error {
            ArchiveError::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                format!("there is no import folder {}: make it, and put the archive there", folder.display())
            }
            error => error.to_string(),
        }),
        None => Err("no import folder was given (--import-dir)".to_owned()),
    };
    let find = |file: &String| match &opened {
        Err(trouble) => Found { entry: Entry::Absent, trouble: Some(trouble.clone()) },
        Ok(folder) => match folder.look(file) {
            Ok(entry) => Found { entry, trouble: None },
            Err(error) => Found { entry: Entry::Absent, trouble: Some(error.to_string()) },
        },
    };
    Look { files: files.iter().map(|file| (file.clone(), find(file))).collect(), origins }
}

/// How long ago a file changed, by the clock. Nothing if that is in the future.
fn age(entry: &Entry) -> Option<Duration> {
    let Entry::File(stamp) = entry else { return None };
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stamp.modified.0).ok()?);
    SystemTime::now().duration_since(changed).ok()
}

/// Where an archive is.
#[derive(Debug, Clone)]
enum From {
    File { folder: PathBuf, file: String },
    Artifact(ImageName),
}

/// One try to load an image, ready to go.
pub(super) struct Load {
    store: Store,
    from: From,
    only: Only,
    /// The image that is there, its size, and where it came from.
    held: Option<((Digest, u64), Origin)>,
    /// An artifact that is of no use, and why.
    refused: Option<(Digest, LoadError)>,
    ledger: Arc<Ledger>,
    admission: Arc<dyn Admission>,
}

impl Load {
    /// Loads the image. Dropped, it leaves an artifact's bytes for the next try.
    pub(super) async fn run(
        &self,
        puller: &Puller,
        logins: &Logins,
        progress: &Arc<Progress>,
    ) -> Result<Pulled, FetchError> {
        match &self.from {
            From::File { folder, file } => {
                self.load_file(folder.clone(), file.clone(), progress.clone()).await
            }
            From::Artifact(name) => self.load_artifact(name, puller, logins, progress).await,
        }
    }

    async fn load_file(
        &self,
        folder: PathBuf,
        file: String,
        progress: Arc<Progress>,
    ) -> Result<Pulled, FetchError> {
        let (store, only, ledger, admission) =
            (self.store.clone(), self.only.clone(), self.ledger.clone(), self.admission.clone());
        let work = move |stop: &(dyn Fn() -> bool + Sync)| {
            let what = format!("{file} in the import folder");
            let opened = ArchiveFolder::open(&folder).and_then(|folder| Ok((folder.read(&file)?, folder)));
            let ((bytes, stamp), folder) = opened.map_err(|error| {
                LoadError::new(
                    FailureReason::ArchiveNotFound,
                    format!("{error}; the agent must be able to read it"),
                )
            })?;
            admission
                .admit(&needs(&only.wanted.key, &file, stamp.size))
                .map_err(PullError::InsufficientDisk)?;
            progress.start(stamp.size);
            let counted = Counted { bytes, progress };
            match take(&store, Box::new(counted), only, stop) {
                Ok(loaded) => {
                    let origin = Origin::File { name: file, stamp };
                    Ok(conclude(&store, &ledger, &loaded, &origin)?)
                }
                Err(_) if folder.look(&file).ok() != Some(Entry::File(stamp)) => Err(FetchError::Unsettled),
                Err(error) => Err(LoadError::archive(&what, &error, Unusable::File(stamp)).into()),
            }
        };
        stoppable(work).await.unwrap_or_else(|_| Err(LoadError::stopped().into()))
    }

    async fn load_artifact(
        &self,
        name: &ImageName,
        puller: &Puller,
        logins: &Logins,
        progress: &Arc<Progress>,
    ) -> Result<Pulled, FetchError> {
        let digest = logins.with(name, || puller.artifact_digest(name)).await?;
        let origin = Origin::Artifact { name: name.to_string(), digest: digest.clone() };
        if let Some(((held, size), from)) = &self.held
            && *from == origin
        {
            progress.start(*size);
            progress.add(*size);
            return Ok(Pulled { digest: held.clone(), size: *size, up_to_date: true });
        }
        if let Some((refused, error)) = &self.refused
            && *refused == digest
        {
            return Err(error.clone().into());
        }
        let image = &self.only.wanted.key;
        let fetch = || puller.fetch_artifact(name, image, progress);
        let artifact = match logins.with(name, fetch).await {
            Ok(artifact) => artifact,
            Err(ArtifactError::Pull(error)) => return Err(error.into()),
            Err(error @ ArtifactError::NotOneFile { .. }) => {
                let of = Some(Unusable::Artifact(digest));
                let reason = FailureReason::InvalidArchive;
                return Err(LoadError { reason, message: error.to_string(), of }.into());
            }
        };
        let (store, only, ledger) = (self.store.clone(), self.only.clone(), self.ledger.clone());
        let what = format!("the artifact {}", name.familiar());
        let work = move |stop: &(dyn Fn() -> bool + Sync)| {
            let origin = Origin::Artifact { name: name_of(&origin), digest: artifact.digest.clone() };
            let of = Unusable::Artifact(artifact.digest.clone());
            let blob = artifact.open().map_err(PullError::from)?;
            let loaded = take(&store, Box::new(blob), only, stop);
            if matches!(loaded, Err(ArchiveError::Interrupted)) {
                return Err(LoadError::stopped().into());
            }
            // Of use or not: nobody needs the archive any more.
            if let Err(error) = artifact.discard() {
                tracing::warn!(%error, "cannot remove an archive that has been loaded");
            }
            match loaded {
                Ok(loaded) => Ok(conclude(&store, &ledger, &loaded, &origin)?),
                Err(error) => Err(LoadError::archive(&what, &error, of).into()),
            }
        };
        stoppable(work).await.unwrap_or_else(|_| Err(LoadError::stopped().into()))
    }
}

impl Refusable for ArtifactError {
    fn of_registry(&self) -> Option<&RegistryError> {
        if let Self::Pull(error) = self { error.of_registry() } else { None }
    }
}

fn name_of(origin: &Origin) -> String {
    match origin {
        Origin::Artifact { name, .. } | Origin::File { name, .. } => name.clone(),
    }
}

/// Takes the images out of an archive.
fn take(
    store: &Store,
    bytes: Box<dyn Read + Send>,
    only: Only,
    stop: larder_archive::Stop<'_>,
) -> Result<Vec<LoadedImage>, ArchiveError> {
    let options = LoadOptions { only: Some(only), ..LoadOptions::default() };
    load(store, Archive::Stream(bytes), &options, stop)
}

/// Notes where images have come from, and says what the first of them, which is the wanted one, is.
fn conclude(
    store: &Store,
    ledger: &Ledger,
    loaded: &[LoadedImage],
    origin: &Origin,
) -> Result<Pulled, PullError> {
    let keys: Vec<ImageKey> = loaded.iter().map(|image| image.key.clone()).collect();
    if let Err(error) = ledger.add_origin(&keys, origin) {
        // It is read once more after a restart, if it is to be followed.
        tracing::warn!(%error, "cannot note in the store where images come from");
    }
    for image in loaded.iter().skip(1) {
        tracing::info!(image = %image.key, digest = %image.target, "loaded along");
    }
    let key = keys.first().ok_or(PullError::Interrupted)?;
    let stored = store.image(key)?.ok_or_else(|| StoreError::NoImage { key: Box::new(key.clone()) })?;
    let size = store.image_size(&stored)?;
    Ok(Pulled { digest: stored.target, size, up_to_date: false })
}

/// What an archive will take of the disk, at most: an archive does not say.
fn needs(image: &ImageKey, file: &str, size: u64) -> Needs {
    let need = Need {
        digest: Digest::sha256(file.as_bytes()),
        size,
        media_type: MEDIA_TYPE.to_owned(),
        is_layer: true,
        presence: Presence::default(),
    };
    Needs { image: image.clone(), blobs: vec![need] }
}

/// Bytes on their way, counted.
struct Counted<R> {
    bytes: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        self.progress.receive(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> Entry {
        Entry::File(Stamp { size, modified: (0, 0), inode: 1 })
    }

    #[tokio::test]
    async fn a_file_has_settled_once_it_has_not_changed_for_a_moment() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let fresh = Some(Duration::ZERO);
        let first = Seen::new(file(10), None, None, now, fresh);
        assert!(!first.is_settled);
        assert_eq!(first.due(), Some(now + SETTLED));
        let grown = Seen::new(file(20), None, Some(&first), now + 3 * second, fresh);
        assert!(!grown.is_settled, "it has grown meanwhile");
        let still = Seen::new(file(20), None, Some(&grown), now + 4 * second, fresh);
        assert!(!still.is_settled);
        let done = Seen::new(file(20), None, Some(&still), now + 6 * second, None);
        assert!(done.is_settled && done.due().is_none());
        // Put there long ago: nothing to wait for. From the future: who knows.
        assert!(Seen::new(file(10), None, None, now, Some(5 * second)).is_settled);
        assert!(!Seen::new(file(10), None, None, now, None).is_settled);
        assert_eq!(Seen::new(Entry::Absent, None, None, now, None).due(), None);
    }
}
