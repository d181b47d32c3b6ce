//! `larder prune`: removing images that nothing needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use larder_oci::{Digest, ImageKey};
use larder_store::{CollectOptions, Store};
use serde::Serialize;

use super::list::newest_first;
use crate::{
    Context, Failure, InUse, Status,
    args::Report,
    catalog::{Catalog, Record},
    filter::{Filter, Filters, Kept},
    human,
    listing::pretty,
    removal::{self, Gone},
};

/// Flags.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct Args {
    /// Remove all images that no container uses, not just those without a tag
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Remove only images that pass: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "NAME=VALUE")]
    pub filter: Vec<Filter>,
    /// Keep images whose names match; * and ? are wildcards
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    pub except: Vec<String>,
    /// With --all: keep the newest N images of every repository
    #[arg(long, value_name = "N", requires = "all")]
    pub keep_newest: Option<usize>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The form of the output.
    #[command(flatten)]
    pub report: Report,
}

const FILTERS: [&str; 3] = ["until", "label", "label!"];

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    images_deleted: Vec<Gone>,
    space_reclaimed: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Asks, unless told not to, and removes.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    if !args.force && !args.dry_run {
        if args.report.is_json() {
            return Err(Failure::bad_flag("--output json asks no questions: add --force or --dry-run"));
        }
        let what = if args.all {
            "all images without at least one container associated to them"
        } else {
            "all dangling images"
        };
        let question = format!("WARNING! This will remove {what}.\nAre you sure you want to continue?");
        if !context.confirm(&question).await? {
            // docker says nothing either, and does not call it a failure.
            return Ok(Status::SUCCESS);
        }
    }
    let (in_use, arguments) = (context.in_use.clone(), args.clone());
    let outcome = context.blocking(move |store| prune(store, &*in_use, &arguments)).await?;
    if args.report.is_json() {
        context.line(pretty(&outcome))?;
        return Ok(Status::SUCCESS);
    }
    for warning in &outcome.warnings {
        context.note(format_args!("WARNING: {warning}"));
    }
    if !outcome.images_deleted.is_empty() {
        context.line(if args.dry_run { "Images to delete:" } else { "Deleted Images:" })?;
        for gone in &outcome.images_deleted {
            let (verb, what) = match gone {
                Gone::Untagged(name) => ("untagged", name),
                Gone::Deleted(id) => ("deleted", id),
            };
            context.line(format_args!("{verb}: {what}"))?;
        }
        context.line("")?;
    }
    let total = if args.dry_run { "Total reclaimable space" } else { "Total reclaimed space" };
    context.line(format_args!("{total}: {}", human::total(outcome.space_reclaimed)))?;
    Ok(Status::SUCCESS)
}

fn prune(store: &Store, in_use: &dyn InUse, args: &Args) -> Result<Outcome, Failure> {
    let catalog = Catalog::read(store)?;
    let filters = Filters::new(&args.filter, &FILTERS, &catalog, Timestamp::now())?;
    let kept = Kept::new(&args.except)?;
    let idle = kept.checked_idle(&catalog, args.force || args.dry_run)?;
    let newest = args.keep_newest.map(|count| newest(&catalog, count)).unwrap_or_default();
    let mut warnings: Vec<String> =
        idle.iter().map(|pattern| format!("no image matches --except {pattern}")).collect();
    let mut going: Vec<&Record> = Vec::new();
    for record in &catalog.records {
        let may_go = (args.all || !catalog.is_tagged(&record.id))
            && filters.pass(&catalog, record)
            && !record.is_managed()
            && !kept.keeps(record)
            && !newest.contains(&(record.repository(), &record.id));
        if may_go {
            // What containers use is no error here, but the reason for asking.
            match in_use.users(store, &record.stored) {
                Ok(users) if users.is_empty() => going.push(record),
                Ok(_) => {}
                Err(why) => {
                    warnings.push(format!(
                        "{} stays: it is not known whether it is in use: {why}",
                        record.name()
                    ));
                }
            }
        }
    }
    if args.dry_run {
        let keys: BTreeSet<ImageKey> = going.iter().map(|record| record.stored.key.clone()).collect();
        let space_reclaimed = removal::reclaimable(&catalog, &keys);
        return Ok(Outcome { images_deleted: removal::report(&catalog, &going), space_reclaimed, warnings });
    }
    going.retain(|record| match in_use.withdraw(store, &record.stored) {
        Ok(users) => users.is_empty(),
        Err(why) => {
            warnings.push(format!("{} stays in the container runtime, and here: {why}", record.name()));
            false
        }
    });
    let removed = removal::take_names(store, &going, false)?;
    let collected = removal::collect(in_use, store, &collect_options(args))?;
    warnings.extend(collected.warnings);
    let images_deleted = removal::report(&catalog, &removed);
    Ok(Outcome { images_deleted, space_reclaimed: collected.bytes, warnings })
}

/// Everything that is not in use includes what interrupted pulls left for their next try.
fn collect_options(args: &Args) -> CollectOptions {
    let everything =
        args.all && args.filter.is_empty() && args.except.is_empty() && args.keep_newest.is_none();
    if everything { CollectOptions { dead_lease_age: Duration::ZERO } } else { CollectOptions::default() }
}

/// The newest images of each repository, by repository and ID.
fn newest(catalog: &Catalog, count: usize) -> BTreeSet<(&str, &Digest)> {
    let mut records: Vec<&Record> = catalog.records.iter().filter(|record| record.is_tagged()).collect();
    newest_first(&mut records);
    let mut repositories: BTreeMap<&str, Vec<&Digest>> = BTreeMap::new();
    for record in records {
        let ids = repositories.entry(record.repository()).or_default();
        if ids.len() < count && !ids.contains(&&record.id) {
            ids.push(&record.id);
        }
    }
    repositories.into_iter().flat_map(|(name, ids)| ids.into_iter().map(move |id| (name, id))).collect()
}
