//! Archives of wanted images in the export folder, kept as they are asked for.
//!
//! An archive is written when its image is ready and the file is missing, was made from another digest or under other names,
//! or is not as we left it. Of each file that was written the [`Ledger`] has a stamp, so that to look costs a `stat` a file.
//! One is written at a time, off the async threads and on few of the node's cores: the pods come first, and nobody waits.
//!
//! A file that is not asked for any more goes if it is still the one that we wrote; if its image was released, it stays.

mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use larder_archive::{ArchiveError, ArchiveFolder, Compression, Entry, Form, SaveImage, SaveOptions, Stamp};
use larder_crds::FailureReason;
use larder_oci::{Digest, ImageKey};
use larder_store::{Store, StoreError};
use tokio::{
    task::{JoinError, JoinSet, spawn_blocking},
    time::Instant,
};

use super::{
    Engine,
    backoff::Backoff,
    desired::{Desired, DesiredImage},
    image::Failure,
    ledger::{Archived, Ledger},
    report::{self, State},
    stop::StopOnDrop,
};
use crate::reason;
use wishes::{Fate, Others, Wish, Wishes};

/// Threads that compress.
const THREADS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// The export folder, and what goes on there.
pub(super) struct Archives {
    folder: Option<PathBuf>,
    ledger: Arc<Ledger>,
    /// What saves have left that were killed is gone.
    is_clean: bool,
    /// At most one.
    saves: JoinSet<(String, Result<(), SaveError>)>,
    under_way: Option<UnderWay>,
    failures: BTreeMap<String, Failed>,
    /// Why the folder could not be looked at, last time.
    trouble: Option<String>,
    /// How wanted archives stand, as of the last look. By image, then by file.
    standings: BTreeMap<ImageKey, BTreeMap<String, Standing>>,
}

/// How one archive stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// It is there.
    Kept,
    /// It is to be written, or is being written.
    Due,
    /// It could not be.
    Failed(Failure),
    /// Another image has its file.
    Taken { by: String },
}

/// An archive that could not be written, last time.
struct Failed {
    wish: Wish,
    backoff: Backoff,
    failure: Failure,
}

/// A save that goes on. Dropped, it ends at its next chance.
struct UnderWay {
    file: String,
    wish: Wish,
    _stop: StopOnDrop,
}

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cannot note in the store what was written: {0}")]
    Ledger(std::io::Error),
}

impl SaveError {
    fn reason(&self) -> FailureReason {
        match self {
            Self::Archive(error) => reason::of_saving(error),
            Self::Ledger(error) if error.kind() == std::io::ErrorKind::StorageFull => FailureReason::DiskFull,
            Self::Ledger(_) => FailureReason::StoreError,
        }
    }
}

/// What one look at the folder gave.
struct Look {
    archived: BTreeMap<String, Archived>,
    entries: BTreeMap<String, Entry>,
}

impl Archives {
    pub(super) fn new(folder: Option<PathBuf>, ledger: Arc<Ledger>) -> Self {
        Self {
            folder,
            ledger,
            is_clean: false,
            saves: JoinSet::new(),
            under_way: None,
            failures: BTreeMap::new(),
            trouble: None,
            standings: BTreeMap::new(),
        }
    }

    /// The end of the save that is under way; never where there is none.
    pub(super) async fn ended(&mut self) -> Result<SaveEnd, JoinError> {
        match self.saves.join_next().await {
            Some(ended) => ended.map(SaveEnd),
            None => std::future::pending().await,
        }
    }

    /// When to try again what failed.
    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        self.failures.values().map(|failed| failed.failure.due)
    }

    /// Ends what is under way, and waits for its end.
    pub(super) async fn shutdown(&mut self) {
        self.under_way = None;
        self.saves.shutdown().await;
    }

    /// How an image stands that is ready, its archives considered.
    fn state(&self, image: &DesiredImage, digest: Digest, size: u64) -> State {
        let (Ok(key), false) = (&image.key, image.archives.is_empty()) else {
            return State::Ready { digest, size };
        };
        let standings = self.standings.get(key);
        let mut all_kept = true;
        for file in &image.archives {
            let standing = standings.and_then(|standings| standings.get(file)).unwrap_or(&Standing::Due);
            match standing {
                Standing::Kept => {}
                Standing::Due => all_kept = false,
                Standing::Failed(failure) => return report::of_failure(failure),
                Standing::Taken { by } => {
                    let message = format!(
                        "the image is here, but not its archive: {file} is {by}'s file; name another in save.file"
                    );
                    return State::Failed { reason: FailureReason::NameConflict, message, retry_time: None };
                }
            }
        }
        if all_kept { State::Ready { digest, size } } else { State::Saving { digest, size } }
    }

    /// Looks at the folder, and takes away what nobody asks for any more.
    async fn look(
        &mut self,
        folder: &Path,
        wishes: &Wishes,
        desired: &Desired,
        keep_unwanted: bool,
    ) -> Result<Look, SaveError> {
        let clean = !std::mem::replace(&mut self.is_clean, true);
        let (ledger, folder) = (self.ledger.clone(), folder.to_owned());
        let wanted: BTreeSet<String> = wishes.files.keys().cloned().collect();
        let others = Others {
            released: desired.released.clone(),
            deferred: desired.deferred.clone(),
            keep: keep_unwanted,
        };
        let looked = spawn_blocking(move || look(&ledger, &folder, &wanted, &others, clean)).await;
        // The runtime only drops blocking work when it shuts down, and then nobody waits for this.
        match looked {
            Ok(look) => look,
            Err(_) => std::future::pending().await,
        }
    }

    /// Settles how each wish stands, and gives the first that is to be met now.
    fn settle(&mut self, wishes: &Wishes, look: &Look) -> Option<(String, Wish, Digest)> {
        self.standings.clear();
        self.trouble = None;
        self.failures.retain(|file, failed| wishes.files.get(file) == Some(&failed.wish));
        for (key, file, by) in &wishes.taken {
            let standing = Standing::Taken { by: by.clone() };
            self.standings.entry(key.clone()).or_default().insert(file.clone(), standing);
        }
        let mut next = None;
        for (file, wish) in &wishes.files {
            let is_met =
                |digest: &Digest| wish.is_met(digest, look.archived.get(file), look.entries.get(file));
            let failure = self.failures.get(file).map(|failed| &failed.failure);
            let standing = match (&wish.digest, failure) {
                (Some(digest), _) if is_met(digest) => Standing::Kept,
                (Some(digest), None) => {
                    next.get_or_insert_with(|| (file.clone(), wish.clone(), digest.clone()));
                    Standing::Due
                }
                (Some(digest), Some(failure)) => {
                    if failure.due <= Instant::now() {
                        next.get_or_insert_with(|| (file.clone(), wish.clone(), digest.clone()));
                    }
                    Standing::Failed(failure.clone())
                }
                (None, _) => Standing::Due,
            };
            if standing == Standing::Kept {
                self.failures.remove(file);
            }
            self.standings.entry(wish.key.clone()).or_default().insert(file.clone(), standing);
        }
        next
    }

    /// Starts to write an archive, unless one is being written.
    fn start(&mut self, store: Store, folder: PathBuf, (file, wish, _): (String, Wish, Digest)) {
        if !self.saves.is_empty() {
            return;
        }
        let stop = StopOnDrop::default();
        let (ledger, stopped) = (self.ledger.clone(), stop.asked());
        let (name, job) = (file.clone(), wish.clone());
        self.saves.spawn_blocking(move || {
            tracing::info!(image = %job.key, file = name, "saving an archive");
            let result = save(&store, &folder, &name, &job, &ledger, &stopped);
            (name, result)
        });
        self.under_way = Some(UnderWay { file, wish, _stop: stop });
    }
}

/// How a save ended.
pub(super) struct SaveEnd((String, Result<(), SaveError>));

impl Engine {
    /// How an image stands, its archives considered, where it stands so without them.
    pub(super) fn with_archives(&self, image: &DesiredImage, state: State) -> State {
        match state {
            State::Ready { digest, size } => self.archives.state(image, digest, size),
            other => other,
        }
    }

    /// Brings the export folder nearer to what is asked for.
    pub(super) async fn tend_archives(&mut self) {
        let wishes = {
            let now = Instant::now();
            let ready =
                |key: &ImageKey| match self.with_further_names(key, report::state(self, key, now), now) {
                    State::Ready { digest, .. } => Some(digest),
                    _ => None,
                };
            Wishes::of(&self.desired.images, ready)
        };
        let archives = &mut self.archives;
        // What is no longer wanted like this, is not finished.
        archives.under_way.take_if(|save| {
            let still = wishes.files.get(&save.file);
            still.is_none_or(|wish| wish.digest.is_some() && *wish != save.wish)
        });
        let Some(folder) = archives.folder.clone() else { return archives.refuse(&wishes) };
        match archives.look(&folder, &wishes, &self.desired, self.options.keep_unwanted).await {
            Ok(look) => {
                if let Some(next) = archives.settle(&wishes, &look) {
                    archives.start(self.store.clone(), folder, next);
                }
            }
            Err(error) => archives.fail_all(&wishes, &error),
        }
    }

    /// Takes note of how a save ended.
    pub(super) fn record_save(&mut self, ended: Result<SaveEnd, JoinError>) {
        let under_way = self.archives.under_way.take();
        let Ok(SaveEnd((file, result))) = ended else { return };
        match result {
            Ok(()) => {
                tracing::info!(file, "saved");
                self.archives.failures.remove(&file);
            }
            Err(SaveError::Archive(ArchiveError::Interrupted)) => {}
            // It was not wanted any more.
            Err(_) if under_way.is_none() => {}
            Err(error) => {
                let Some(UnderWay { wish, .. }) = under_way else { return };
                let backoff = Backoff::new(&self.options.backoff);
                self.archives.failed(file, wish, &error, backoff);
            }
        }
    }
}

impl Archives {
    fn failed(&mut self, file: String, wish: Wish, error: &SaveError, backoff: Backoff) {
        let mut backoff = self.failures.remove(&file).map_or(backoff, |failed| failed.backoff);
        let delay = backoff.next_delay(None);
        tracing::warn!(file, reason = error.reason().as_str(), %error, ?delay, "an archive was not saved");
        let failure = Failure::new(error.reason(), not_saved(&file, error), delay);
        self.failures.insert(file, Failed { wish, backoff, failure });
    }

    /// Nothing can be looked at: the same is wrong with all of them, until the next look.
    fn fail_all(&mut self, wishes: &Wishes, error: &SaveError) {
        self.standings.clear();
        let trouble = Some(error.to_string()).filter(|_| !wishes.files.is_empty());
        if self.trouble != trouble && trouble.is_some() {
            tracing::warn!(%error, "cannot keep archives in the export folder");
        }
        self.trouble = trouble;
        for (file, wish) in &wishes.files {
            let message = not_saved(file, error);
            let failure = Failure::lasting(error.reason(), message);
            let standings = self.standings.entry(wish.key.clone()).or_default();
            standings.insert(file.clone(), Standing::Failed(failure));
        }
    }

    fn refuse(&mut self, wishes: &Wishes) {
        self.standings.clear();
        for (file, wish) in &wishes.files {
            let message = not_saved(file, &"no export folder was given (--export-dir)");
            let failure = Failure::lasting(FailureReason::StoreError, message);
            let standings = self.standings.entry(wish.key.clone()).or_default();
            standings.insert(file.clone(), Standing::Failed(failure));
        }
    }
}

fn not_saved(file: &str, error: &dyn std::fmt::Display) -> String {
    format!("the image is here, but not its archive {file}: {error}")
}

/// Looks at the files that are asked for, and takes away those that we wrote and that are not.
fn look(
    ledger: &Ledger,
    folder: &Path,
    wanted: &BTreeSet<String>,
    others: &Others,
    clean: bool,
) -> Result<Look, SaveError> {
    let mut archived = ledger.archives(folder);
    let unwanted = |file: &String| !wanted.contains(file);
    let mut forget: BTreeSet<String> = BTreeSet::new();
    let left =
        archived.iter().filter(|(file, archived)| unwanted(file) && others.fate(archived) == Fate::IsLeft);
    forget.extend(left.map(|(file, _)| file.clone()));
    let going =
        archived.iter().filter(|(file, archived)| unwanted(file) && others.fate(archived) == Fate::Goes);
    let going: Vec<_> = going.map(|(file, archived)| (file.clone(), archived.stamp)).collect();
    let mut entries = BTreeMap::new();
    // Nobody misses a folder that is not needed.
    let is_needed = !wanted.is_empty() || !going.is_empty();
    if is_needed || clean {
        match ArchiveFolder::open(folder) {
            Ok(exports) => {
                if clean && let Err(error) = exports.clean() {
                    tracing::warn!(%error, "cannot clean up in the export folder");
                }
                forget.extend(
                    going
                        .iter()
                        .filter(|(file, stamp)| remove(&exports, file, stamp))
                        .map(|(file, _)| file.clone()),
                );
                for file in wanted {
                    entries.insert(file.clone(), exports.look(file)?);
                }
            }
            Err(error) if wanted.is_empty() => tracing::debug!(%error, "no export folder"),
            Err(error) => return Err(error.into()),
        }
    }
    if !forget.is_empty() {
        ledger.forget_archives(folder, &forget).map_err(SaveError::Ledger)?;
        archived.retain(|file, _| !forget.contains(file));
    }
    Ok(Look { archived, entries })
}

/// Removes an archive that nobody asks for any more. False: it has to be tried again.
fn remove(exports: &ArchiveFolder, file: &str, stamp: &Stamp) -> bool {
    match exports.remove(file, stamp) {
        Ok(true) => tracing::info!(file, "removed from the export folder"),
        Ok(false) => {
            tracing::info!(file, "not removed from the export folder: it is not the one that we wrote");
        }
        Err(error) => {
            tracing::warn!(%error, "cannot remove an archive that nobody asks for any more");
            return false;
        }
    }
    true
}

/// Writes one archive, and notes it.
fn save(
    store: &Store,
    folder: &Path,
    file: &str,
    wish: &Wish,
    ledger: &Ledger,
    stop: larder_archive::Stop<'_>,
) -> Result<(), SaveError> {
    let gone = || StoreError::NoImage { key: Box::new(wish.key.clone()) };
    let stored = store.image(&wish.key).map_err(ArchiveError::from)?;
    let stored = stored.ok_or_else(gone).map_err(ArchiveError::from)?;
    let digest = stored.target.clone();
    let names = std::iter::once(wish.key.name.clone()).chain(wish.further.clone()).collect();
    let options = SaveOptions {
        form: Form::Both,
        compression: Compression::of_path(Path::new(file)),
        threads: Some(THREADS),
    };
    let image = SaveImage { image: stored, names };
    let stamp = ArchiveFolder::open(folder)?.save(store, &[image], options, file, stop)?;
    let archived = Archived {
        image: wish.key.name.to_string(),
        platform: wish.key.platform.to_string(),
        digest,
        names: wish.names(),
        stamp,
    };
    ledger.add_archive(folder, file, archived).map_err(SaveError::Ledger)
}
