//! Archives of wanted images in the export folder, kept as they are asked for.
//!
//! An archive is written when its image is ready and the file is missing, was made from another digest or under other names,
//! or is not as we left it. Of each file that was written the [`Ledger`] has a stamp, so that to look costs a `stat` a file.
//! One is written at a time, off the async threads and on few of the node's cores: the pods come first, and nobody waits.
//!
//! A file that is not asked for any more goes if it is still the one that we wrote; if its image was released, it stays.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use larder_archive::{ArchiveError, ArchiveFolder, Compression, Entry, Form, SaveImage, SaveOptions, Stamp};
use larder_crds::FailureReason;
use larder_oci::{Digest, ImageKey, ImageName};
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

/// An archive that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    key: ImageKey,
    /// Beside the image's own.
    further: Vec<ImageName>,
    /// The digest that it is to hold; `None` while the image is not ready.
    digest: Option<Digest>,
}

impl Wish {
    fn names(&self) -> BTreeSet<String> {
        std::iter::once(&self.key.name).chain(&self.further).map(ToString::to_string).collect()
    }

    /// Whether the file is what this asks for: what we wrote then, and not touched since.
    fn is_met(&self, digest: &Digest, archived: Option<&Archived>, entry: Option<&Entry>) -> bool {
        archived.is_some_and(|archived| {
            archived.is_of(&self.key)
                && archived.digest == *digest
                && archived.names == self.names()
                && entry == Some(&Entry::File(archived.stamp))
        })
    }
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

/// Which files are asked for, and what keeps an image from having one: by its key and file, the image that has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    files: BTreeMap<String, Wish>,
    taken: Vec<(ImageKey, String, String)>,
}

impl Wishes {
    /// The first image in order has a file. `ready` gives the digest of an image that is.
    fn of(images: &[DesiredImage], ready: impl Fn(&ImageKey) -> Option<Digest>) -> Self {
        let mut wishes = Self::default();
        for image in images {
            let Ok(key) = &image.key else { continue };
            for file in &image.archives {
                match wishes.files.entry(file.clone()) {
                    btree_map::Entry::Vacant(place) => {
                        let (further, digest) = (image.tags.clone(), ready(key));
                        place.insert(Wish { key: key.clone(), further, digest });
                    }
                    btree_map::Entry::Occupied(place) if place.get().key != *key => {
                        let by = place.get().key.name.familiar().to_owned();
                        wishes.taken.push((key.clone(), file.clone(), by));
                    }
                    btree_map::Entry::Occupied(_) => {}
                }
            }
        }
        wishes
    }
}

/// What is to become of a file that nobody asks for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Goes,
    /// It is not ours any more.
    IsLeft,
    Stays,
}

/// Images that are not wanted now.
struct Others {
    released: BTreeSet<ImageKey>,
    deferred: BTreeSet<ImageKey>,
    /// All of them stay as they are.
    keep: bool,
}

impl Others {
    fn fate(&self, archived: &Archived) -> Fate {
        let among = |keys: &BTreeSet<ImageKey>| keys.iter().any(|key| archived.is_of(key));
        if among(&self.released) {
            Fate::IsLeft
        } else if self.keep || among(&self.deferred) {
            Fate::Stays
        } else {
            Fate::Goes
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

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, files: &[&str], tags: &[&str]) -> DesiredImage {
        DesiredImage {
            archives: files.iter().map(|&file| file.to_owned()).collect(),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            ..DesiredImage::new(name, None, false)
        }
    }

    fn key(name: &str) -> ImageKey {
        DesiredImage::new(name, None, false).key.unwrap()
    }

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn stamp(inode: u64) -> Stamp {
        Stamp { size: 10, modified: (20, 30), inode }
    }

    fn archived(name: &str, tags: &[&str]) -> Archived {
        let wish = Wishes::of(&[image(name, &["x.tar"], tags)], |_| None).files.remove("x.tar").unwrap();
        Archived {
            image: wish.key.name.to_string(),
            platform: wish.key.platform.to_string(),
            digest: digest(name),
            names: wish.names(),
            stamp: stamp(1),
        }
    }

    #[test]
    fn a_file_is_the_first_images_that_asks_for_it() {
        let images = [
            image("a", &["a.tar", "both.tar"], &["a:old"]),
            image("b", &["b.tar", "both.tar"], &[]),
            image("a:latest", &["a.tar"], &[]),
        ];
        let wishes = Wishes::of(&images, |wanted| (*wanted == key("a")).then(|| digest("a")));
        assert_eq!(wishes.files.keys().collect::<Vec<_>>(), ["a.tar", "b.tar", "both.tar"]);
        assert_eq!(wishes.files["both.tar"].key, key("a"));
        assert_eq!(wishes.files["a.tar"].digest, Some(digest("a")));
        assert_eq!(wishes.files["b.tar"].digest, None);
        assert_eq!(wishes.taken, [(key("b"), "both.tar".to_owned(), "a:latest".to_owned())]);
        let names: Vec<String> = wishes.files["a.tar"].names().into_iter().collect();
        assert_eq!(names, ["docker.io/library/a:latest", "docker.io/library/a:old"]);
    }

    #[test]
    fn a_file_is_written_again_for_another_digest_other_names_or_when_it_was_touched() {
        let wish = |name, tags: &[&str]| {
            Wishes::of(&[image(name, &["x.tar"], tags)], |_| None).files["x.tar"].clone()
        };
        let there = Some(Entry::File(stamp(1)));
        let known = archived("a", &["a:old"]);
        let is_met = |wish: &Wish, digest: &Digest, entry: &Option<Entry>| {
            wish.is_met(digest, Some(&known), entry.as_ref())
        };
        let same = wish("a", &["a:old"]);
        assert!(is_met(&same, &digest("a"), &there));
        assert!(!is_met(&same, &digest("moved"), &there));
        assert!(!is_met(&wish("a", &[]), &digest("a"), &there), "a name less");
        assert!(!is_met(&wish("b", &["a:old"]), &digest("a"), &there), "another image");
        for touched in
            [Some(Entry::File(stamp(2))), Some(Entry::Absent), Some(Entry::Other("a folder")), None]
        {
            assert!(!is_met(&same, &digest("a"), &touched), "{touched:?}");
        }
        assert!(!same.is_met(&digest("a"), None, there.as_ref()), "nobody knows who wrote it");
    }

    #[test]
    fn what_nobody_asks_for_goes_unless_its_image_was_released_or_waits() {
        let others = |released: &[&str], deferred: &[&str], keep| Others {
            released: released.iter().map(|name| key(name)).collect(),
            deferred: deferred.iter().map(|name| key(name)).collect(),
            keep,
        };
        let known = archived("a", &[]);
        assert_eq!(others(&["b"], &["c"], false).fate(&known), Fate::Goes);
        assert_eq!(others(&["a"], &[], false).fate(&known), Fate::IsLeft);
        assert_eq!(others(&[], &["a"], false).fate(&known), Fate::Stays);
        assert_eq!(others(&[], &[], true).fate(&known), Fate::Stays);
    }
}
