//! `larder images`: what is in the store.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use larder_oci::{Digest, Platform};
use serde_json::{Value, json};

use crate::{
    Context, Failure, Status,
    args::Report,
    catalog::{Catalog, Record},
    filter::{Filter, Filters},
    human,
    listing::{self, Columns},
};

/// Flags and arguments.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of docker's")]
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Show only images of this repository, or this name and tag; * and ? are wildcards
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
    /// Show all images; kept for docker's sake, since none are hidden
    #[arg(short, long)]
    pub all: bool,
    /// Show digests
    #[arg(long)]
    pub digests: bool,
    /// Filter output based on conditions provided: dangling=true, label=KEY[=VALUE], before=IMAGE, since=IMAGE,
    /// reference=PATTERN, until=TIME
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub filter: Vec<Filter>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    pub format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// The form of the output.
    #[command(flatten)]
    pub report: Report,
}

const FILTERS: [&str; 8] = ["dangling", "label", "label!", "before", "since", "after", "reference", "until"];

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Platform", "PLATFORM"),
    ("Bytes", "BYTES"),
    ("Managed", "MANAGED"),
];

const CREATED: &str = "{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}";

/// Lists images, the newest first.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let catalog = context.blocking(Catalog::read).await?;
    let now = Timestamp::now();
    let mut filters = Filters::new(&args.filter, &FILTERS, &catalog, now)?;
    if let Some(reference) = &args.reference {
        filters.add_reference(reference)?;
    }
    let mut shown: Vec<&Record> =
        catalog.records.iter().filter(|record| filters.pass(&catalog, record)).collect();
    newest_first(&mut shown);
    for record in &shown {
        if let Some(problem) = &record.content.problem {
            context.note(format_args!("WARNING: {}: {problem}", record.stored.key));
        }
    }
    if args.quiet && args.format.is_none() && !args.report.is_json() {
        let mut seen = BTreeSet::new();
        for record in shown.iter().filter(|record| seen.insert(&record.id)) {
            context.line(id(record, args.no_trunc))?;
        }
        return Ok(Status::SUCCESS);
    }
    let foreign = shown.iter().any(|record| *record.platform() != Platform::host());
    let shared = Shared::of(&catalog);
    let rows: Vec<Value> = shown.iter().map(|record| row(record, &args, &shared, now)).collect();
    let table = table(args.digests, foreign);
    let mut format = args.format.clone();
    if let Some(format) = &mut format
        && format.starts_with("table ")
        && args.digests
        && !format.contains("{{.Digest}}")
    {
        format.push_str("\t{{.Digest}}");
    }
    listing::print(
        context,
        Columns { headers: HEADERS, table: &table },
        format.as_deref(),
        args.report,
        &rows,
    )?;
    Ok(Status::SUCCESS)
}

/// docker's columns; the platform after them where it is not the same for all.
fn table(digests: bool, foreign: bool) -> String {
    let digest = if digests { "{{.Digest}}\t" } else { "" };
    let platform = if foreign { "\t{{.Platform}}" } else { "" };
    format!("{{{{.Repository}}}}\t{{{{.Tag}}}}\t{digest}{{{{.ID}}}}\t{CREATED}\t{{{{.Size}}}}{platform}")
}

/// The newest first; of those made at the same time, the one that came last.
pub fn newest_first(records: &mut [&Record]) {
    records.reverse();
    records.sort_by_key(|record| std::cmp::Reverse(record.content.created()));
}

/// The ID as it is shown.
#[must_use]
pub fn id(record: &Record, whole: bool) -> &str {
    if whole { record.id.as_str() } else { record.id.short() }
}

fn row(record: &Record, args: &Args, shared: &Shared, now: Timestamp) -> Value {
    let created = record.content.created();
    let size = record.content.size();
    let shared = shared.bytes(record);
    let has_digest = !record.name().is_nameless();
    json!({
        "ID": id(record, args.no_trunc),
        "Repository": record.repository(),
        "Tag": record.tag(),
        "Digest": if has_digest { record.stored.target.as_str() } else { "<none>" },
        "CreatedSince": created.map(|created| human::since(created, now)).unwrap_or_default(),
        "CreatedAt": created.map(human::time).unwrap_or_default(),
        "Size": human::size(size),
        "Containers": "N/A",
        "VirtualSize": human::size(size),
        "SharedSize": human::total(shared),
        "UniqueSize": human::total(size.saturating_sub(shared)),
        "Platform": record.platform().to_string(),
        "Bytes": size,
        "Managed": record.is_managed(),
    })
}

/// Which blobs several images have in common.
#[derive(Debug, Default)]
pub struct Shared {
    users: BTreeMap<Digest, u64>,
}

impl Shared {
    /// Counts the users of each blob; several names of one image are one user.
    #[must_use]
    pub fn of(catalog: &Catalog) -> Self {
        let mut users = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for record in catalog.records.iter().filter(|record| seen.insert(&record.stored.manifest_digest)) {
            for digest in record.content.blobs.keys() {
                *users.entry(digest.clone()).or_default() += 1;
            }
        }
        Self { users }
    }

    /// The bytes of an image that others need too.
    #[must_use]
    pub fn bytes(&self, record: &Record) -> u64 {
        let blobs = record.content.blobs.iter();
        blobs
            .filter(|(digest, _)| self.users.get(digest).is_some_and(|users| *users > 1))
            .map(|(_, size)| size)
            .sum()
    }
}
