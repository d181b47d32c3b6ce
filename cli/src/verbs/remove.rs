//! `larder rm`: taking names and images away.

use std::collections::BTreeSet;

use larder_oci::{ImageKey, Platform};
use larder_store::{CollectOptions, Store};

use crate::{
    Context, Failure, InUse, Status,
    args::Report,
    catalog::{Catalog, Found, Record},
    filter::Kept,
    human,
    listing::pretty,
    removal::{self, Gone},
};

/// Flags and arguments.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of docker's")]
#[derive(Debug, Default, Clone, clap::Args)]
pub struct Args {
    /// Names or IDs
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Remove images that an ImageCache or several repositories have
    #[arg(short, long)]
    pub force: bool,
    /// Accepted for docker's sake: there are no untagged parents here
    #[arg(long, hide = true)]
    pub no_prune: bool,
    /// Remove only the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    pub platform: Vec<Platform>,
    /// Remove all images, save those that --except names, that containers use or that an ImageCache keeps
    #[arg(long, conflicts_with = "images")]
    pub all: bool,
    /// With --all: keep images whose names match; * and ? are wildcards
    #[arg(long, requires = "all", value_name = "PATTERN", num_args = 1..)]
    pub except: Vec<String>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The form of the output.
    #[command(flatten)]
    pub report: Report,
}

/// Tries every argument, and fails if one did.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let (in_use, arguments) = (context.in_use.clone(), args.clone());
    let outcome = context
        .blocking(move |store| {
            if arguments.all {
                remove_all(store, &*in_use, &arguments)
            } else {
                remove_each(store, &*in_use, &arguments)
            }
        })
        .await?;
    for warning in &outcome.warnings {
        context.note(format_args!("WARNING: {warning}"));
    }
    if args.report.is_json() {
        context.line(pretty(&outcome.gone))?;
    } else {
        for gone in &outcome.gone {
            context.line(describe(gone, args.dry_run))?;
        }
    }
    if let Some(bytes) = outcome.reclaimable.filter(|_| !args.report.is_json()) {
        context.line(format_args!("Total reclaimable space: {}", human::total(bytes)))?;
    }
    let fatal = outcome.failures.iter().any(|failure| !failure.to_string().contains("No such image"));
    match Failure::join(outcome.failures) {
        // As docker has it: with --force, what is not there is as good as removed.
        Err(failure) if args.force && !fatal => context.note(failure),
        result => result?,
    }
    Ok(Status::SUCCESS)
}

/// A line of docker's, or what stands for it in a dry run.
#[must_use]
pub fn describe(gone: &Gone, dry_run: bool) -> String {
    match (gone, dry_run) {
        (Gone::Untagged(name), false) => format!("Untagged: {name}"),
        (Gone::Deleted(id), false) => format!("Deleted: {id}"),
        (Gone::Untagged(name), true) => format!("Would untag: {name}"),
        (Gone::Deleted(id), true) => format!("Would delete: {id}"),
    }
}

#[derive(Debug, Default)]
struct Outcome {
    gone: Vec<Gone>,
    failures: Vec<Failure>,
    warnings: Vec<String>,
    reclaimable: Option<u64>,
}

fn remove_each(store: &Store, in_use: &dyn InUse, args: &Args) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let mut catalog = Catalog::read(store)?;
    let mut going = BTreeSet::new();
    for text in &args.images {
        match select(store, &catalog, in_use, args, text) {
            Err(failure) => outcome.failures.push(failure),
            Ok(records) if args.dry_run => {
                outcome.gone.extend(removal::report(&catalog, &records));
                going.extend(records.iter().map(|record| record.stored.key.clone()));
                outcome.reclaimable = Some(removal::reclaimable(&catalog, &going));
            }
            Ok(records) => {
                let records = withdrawn(store, in_use, records, &mut outcome.failures);
                let removed = removal::take_names(store, &records, args.force)?;
                if removed.len() < records.len() {
                    outcome.failures.push(changed(text));
                }
                outcome.gone.extend(removal::report(&catalog, &removed));
                going.extend(removed.iter().map(|record| record.stored.key.clone()));
                // The next argument meets what is left.
                catalog.records.retain(|record| !going.contains(&record.stored.key));
            }
        }
    }
    if !args.dry_run && !outcome.gone.is_empty() {
        outcome.warnings = removal::collect(in_use, store, &CollectOptions::default())?.warnings;
    }
    Ok(outcome)
}

/// Takes records from the container runtime. Gives those that may leave the store too.
fn withdrawn<'a>(
    store: &Store,
    in_use: &dyn InUse,
    mut records: Vec<&'a Record>,
    failures: &mut Vec<Failure>,
) -> Vec<&'a Record> {
    records.retain(|record| {
        let outcome = removal::withdraw(in_use, store, record);
        outcome.map_err(|failure| failures.push(failure)).is_ok()
    });
    records
}

fn changed(text: &str) -> Failure {
    Failure::response(format_args!("{text} changed while it was to be removed; try again"))
}

/// The records that an argument takes away.
fn select<'a>(
    store: &Store,
    catalog: &'a Catalog,
    in_use: &dyn InUse,
    args: &Args,
    text: &str,
) -> Result<Vec<&'a Record>, Failure> {
    let found = catalog.find(text)?;
    let wanted = |record: &&Record| args.platform.is_empty() || args.platform.contains(record.platform());
    let records: Vec<&Record> = found.records().iter().copied().filter(wanted).collect();
    let Some(first) = records.first() else {
        let platforms: Vec<String> = args.platform.iter().map(ToString::to_string).collect();
        return Err(Failure::response(format_args!(
            "image with reference {text} was found but does not provide the specified platform ({})",
            platforms.join(", ")
        )));
    };
    if !args.force && !matches!(found, Found::Name(_)) {
        let names: BTreeSet<&str> = records
            .iter()
            .filter(|record| record.is_tagged())
            .map(|record| match found {
                Found::Pinned(_) => record.tag(),
                _ => record.repository(),
            })
            .collect();
        if names.len() > 1 {
            let what = if matches!(found, Found::Pinned(_)) { "tags" } else { "repositories" };
            return Err(removal::conflict(format_args!(
                "unable to delete {} (must be forced) - image is referenced in multiple {what}",
                first.id.short()
            )));
        }
    }
    let keys: BTreeSet<ImageKey> = records.iter().map(|record| record.stored.key.clone()).collect();
    for record in &records {
        removal::check_claim(record, args.force)?;
        if removal::is_last(catalog, &record.id, &keys) {
            removal::check_use(in_use, store, record)?;
        }
    }
    Ok(records)
}

fn remove_all(store: &Store, in_use: &dyn InUse, args: &Args) -> Result<Outcome, Failure> {
    let catalog = Catalog::read(store)?;
    let kept = Kept::new(&args.except)?;
    let idle = kept.checked_idle(&catalog, args.force || args.dry_run)?;
    let mut outcome = Outcome::default();
    outcome.warnings.extend(idle.iter().map(|pattern| format!("no image matches --except {pattern}")));
    let mut going: Vec<&Record> = Vec::new();
    for record in &catalog.records {
        let wanted = args.platform.is_empty() || args.platform.contains(record.platform());
        // Images that an ImageCache keeps are not a person's to clear away, by force or without.
        if !wanted || record.is_managed() || kept.keeps(record) {
            continue;
        }
        match removal::check_use(in_use, store, record) {
            Ok(()) => going.push(record),
            Err(failure) => outcome.failures.push(failure),
        }
    }
    if args.dry_run {
        let keys = going.iter().map(|record| record.stored.key.clone()).collect();
        outcome.reclaimable = Some(removal::reclaimable(&catalog, &keys));
        outcome.gone = removal::report(&catalog, &going);
        return Ok(outcome);
    }
    let going = withdrawn(store, in_use, going, &mut outcome.failures);
    let removed = removal::take_names(store, &going, false)?;
    outcome.gone = removal::report(&catalog, &removed);
    outcome.warnings.extend(removal::collect(in_use, store, &CollectOptions::default())?.warnings);
    Ok(outcome)
}
