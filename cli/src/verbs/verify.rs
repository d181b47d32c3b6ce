//! `larder verify`: hashing everything again, and mending what is damaged by fetching it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use larder_oci::{Digest, ImageKey};
use larder_pull::{Progress, PullOptions, Puller, RETRIES};
use larder_store::{BlobState, Claim, Store, StoreError};
use serde::Serialize;

use crate::{
    Context, Failure, Status,
    args::Report,
    catalog::{Catalog, Record},
    human,
    listing::pretty,
};

/// Flags.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only report: delete and fetch nothing
    #[arg(long)]
    pub no_mend: bool,
    /// The form of the output.
    #[command(flatten)]
    pub report: Report,
}

/// What was found and done.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    /// Blobs that were read.
    checked: usize,
    /// Their bytes.
    bytes: u64,
    /// Blobs that are not what they should be.
    found: Vec<Finding>,
    /// Images that were mended.
    mended: Vec<String>,
    /// Images that could not be, and why.
    failed: Vec<Failed>,
}

/// A blob that is not what it should be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Finding {
    #[serde(serialize_with = "as_text")]
    digest: Digest,
    state: State,
    /// The images that need it; none for a blob that nothing needs.
    images: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Damaged,
    Missing,
    /// The system cannot read it.
    Unreadable,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed {
    image: String,
    why: String,
}

fn as_text<S: serde::Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(digest.as_str())
}

/// Checks everything, mends, and fails if something is left that is not right.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let interrupted = context.clone();
    let (catalog, mut outcome) = context.blocking(move |store| check(store, &interrupted)).await?;
    if !args.report.is_json() {
        for finding in &outcome.found {
            let images = match finding.images.as_slice() {
                [] => "no image needs it".to_owned(),
                images => images.join(", "),
            };
            let state = match finding.state {
                State::Damaged => "damaged",
                State::Missing => "missing",
                State::Unreadable => "unreadable",
            };
            context.line(format_args!("{}: {state} ({images})", finding.digest))?;
        }
    }
    if !args.no_mend && !outcome.found.is_empty() {
        mend(context, &catalog, &mut outcome).await?;
    }
    if args.report.is_json() {
        context.line(pretty(&outcome))?;
    } else {
        for name in &outcome.mended {
            context.line(format_args!("Mended: {name}"))?;
        }
        context.line(summary(&outcome))?;
    }
    for Failed { image, why } in &outcome.failed {
        context.note(format_args!("Error: cannot mend {image}: {why}"));
    }
    let whole = if args.no_mend { outcome.found.is_empty() } else { outcome.failed.is_empty() };
    Ok(if whole { Status::SUCCESS } else { Status::FAILURE })
}

fn summary(outcome: &Outcome) -> String {
    let count = |state| outcome.found.iter().filter(|finding| finding.state == state).count();
    let checked = format!("Checked {} blobs, {}", outcome.checked, human::total(outcome.bytes));
    let (damaged, missing) = (count(State::Damaged) + count(State::Unreadable), count(State::Missing));
    if damaged + missing == 0 {
        format!("{checked}: all as they should be")
    } else {
        format!("{checked}: {damaged} damaged, {missing} missing")
    }
}

/// Reads every blob: those that images need, and those that merely lie there.
fn check(store: &Store, context: &Context) -> Result<(Catalog, Outcome), Failure> {
    let catalog = Catalog::read(store)?;
    let mut users: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    let inventory = store.inventory()?;
    for digest in inventory.blobs.into_keys().chain(inventory.handed_over.into_keys()) {
        users.insert(digest, BTreeSet::new());
    }
    for record in &catalog.records {
        for digest in needed(record) {
            users.entry(digest).or_default().insert(shown(record));
        }
    }
    let digests: Vec<&Digest> = users.keys().collect();
    let states = states(store, context, &digests)?;
    let mut outcome = Outcome { checked: digests.len(), ..Outcome::default() };
    for ((digest, images), (state, size)) in users.iter().zip(states) {
        outcome.bytes += size;
        let state = match state {
            Some(BlobState::Intact) => continue,
            // It was collected while we looked.
            Some(BlobState::Absent) if images.is_empty() => continue,
            Some(BlobState::Absent) => State::Missing,
            Some(BlobState::Damaged) => State::Damaged,
            None => State::Unreadable,
        };
        outcome.found.push(Finding {
            digest: digest.clone(),
            state,
            images: images.iter().cloned().collect(),
        });
    }
    Ok((catalog, outcome))
}

/// What a record cannot do without. Where its manifest cannot be read, the rest is not known.
fn needed(record: &Record) -> BTreeSet<Digest> {
    let stored = &record.stored;
    let own = [stored.manifest_digest.clone(), stored.target.clone()];
    record.content.blobs.keys().cloned().chain(own).collect()
}

fn shown(record: &Record) -> String {
    let name = record.name();
    if name.is_nameless() { record.id.to_string() } else { name.familiar().to_owned() }
}

/// The state and size of each blob, in their order; `None` for what the system cannot read. Uses all processors.
fn states(
    store: &Store,
    context: &Context,
    digests: &[&Digest],
) -> Result<Vec<(Option<BlobState>, u64)>, Failure> {
    let next = AtomicUsize::new(0);
    let states = Mutex::new(vec![(None, 0); digests.len()]);
    let runtime = tokio::runtime::Handle::try_current().ok();
    let work = || {
        // Layers that a container runtime has are read through its API.
        let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
        while let Some((place, digest)) = {
            let place = next.fetch_add(1, Ordering::Relaxed);
            digests.get(place).filter(|_| !context.is_interrupted()).map(|digest| (place, digest))
        } {
            let size = store.blob_size(digest).ok().flatten().unwrap_or_default();
            let state = match store.check_blob(digest) {
                Ok(state) => Some(state),
                Err(error) => {
                    context.note(format_args!("WARNING: {error}"));
                    None
                }
            };
            if let Some(entry) = states.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
                *entry = (state, size);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(8) {
            scope.spawn(work);
        }
    });
    if context.is_interrupted() {
        return Err(Failure::new("interrupted"));
    }
    Ok(states.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Deletes what is damaged, and pulls by digest the images that lack something.
async fn mend(context: &Context, catalog: &Catalog, outcome: &mut Outcome) -> Result<(), Failure> {
    let damaged: Vec<Digest> = outcome.found.iter().map(|finding| finding.digest.clone()).collect();
    let (store, elsewhere) = context
        .blocking(move |store| {
            let handed_over = store.handed_over()?;
            let mut elsewhere = BTreeMap::new();
            for digest in damaged {
                match store.discard_damaged(&digest) {
                    Ok(BlobState::Absent) => store.lost([&digest])?,
                    // What is wrong in the container runtime no pull mends.
                    Err(error) if handed_over.contains_key(&digest) => {
                        elsewhere.insert(digest, error.to_string());
                    }
                    // What cannot even be read stays: that is a case for a person, and the pull will say so.
                    Ok(_) | Err(StoreError::Io { .. } | StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok((store.clone(), elsewhere))
        })
        .await?;
    let puller =
        Puller::new(store, context.registry()?).with_options(PullOptions { by_hand: true, retries: RETRIES });
    let broken: BTreeSet<&Digest> = outcome.found.iter().map(|finding| &finding.digest).collect();
    let mut images: BTreeMap<(&Digest, &Digest), Vec<&Record>> = BTreeMap::new();
    for record in &catalog.records {
        if needed(record).iter().any(|digest| broken.contains(digest)) {
            images.entry((&record.stored.manifest_digest, &record.stored.target)).or_default().push(record);
        }
    }
    for records in images.values() {
        let name = records.iter().map(|record| shown(record)).collect::<Vec<_>>().join(", ");
        let stuck = records
            .iter()
            .flat_map(|record| needed(record))
            .find_map(|digest| elsewhere.get(&digest).cloned());
        if let Some(why) = stuck {
            outcome.failed.push(Failed { image: name, why });
            continue;
        }
        match fetch(context, &puller, records).await {
            Ok(()) => outcome.mended.push(name),
            Err(why) => outcome.failed.push(Failed { image: name, why }),
        }
    }
    Ok(())
}

/// Pulls an image by its digest, by whichever of its names has it.
async fn fetch(context: &Context, puller: &Puller, records: &[&Record]) -> Result<(), String> {
    let mut why = "it has no name that a registry knows; load or build it again".to_owned();
    for record in records.iter().filter(|record| !record.name().is_nameless()) {
        let name = record.name().untagged(&record.stored.target);
        let key = ImageKey { name, platform: record.platform().clone() };
        let probe = key.clone();
        let present = context.blocking(move |store| Ok(store.image(&probe)?.is_some())).await;
        let present = present.map_err(|failure| failure.to_string())?;
        let claim = Claim::None;
        match puller.pull(&key, claim, &Arc::new(Progress::default())).await {
            Ok(_) if present => return Ok(()),
            Ok(_) => {
                // The pull named the image by its digest, and it has a name already.
                let drop_name =
                    move |store: &Store| Ok(store.remove_all(&[key], |image| image.claim == claim)?);
                return context.blocking(drop_name).await.map(drop).map_err(|failure| failure.to_string());
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}
