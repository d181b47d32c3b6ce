//! `larder df`: what takes the space.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::{Digest, Platform};
use larder_store::Inventory;
use larder_template::align;
use serde::Serialize;

use super::list::{Shared, newest_first};
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
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// The form of the output.
    #[command(flatten)]
    pub report: Report,
}

/// What takes the space, in bytes.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    images: Vec<ImageUsage>,
    /// Blobs that images need, each once.
    in_images: Space,
    /// Those of them that several images share.
    shared: Space,
    /// Layers of images that are in the container runtime, and take their space there.
    in_runtime: Space,
    /// Other blobs: of indexes, or left for the next collection.
    other: Space,
    /// Blobs in the making.
    unfinished: Space,
    total: Space,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Space {
    count: u64,
    bytes: u64,
}

impl Space {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageUsage {
    id: String,
    names: Vec<String>,
    platform: String,
    bytes: u64,
    shared_bytes: u64,
    own_bytes: u64,
}

/// Prints a line an image, and totals.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let usage = context
        .blocking(|store| {
            let catalog = Catalog::read(store)?;
            Ok(usage(&catalog, &store.inventory()?))
        })
        .await?;
    if args.report.is_json() {
        context.line(pretty(&usage))?;
    } else {
        context.print(text(&usage, args.no_trunc))?;
    }
    Ok(Status::SUCCESS)
}

fn usage(catalog: &Catalog, inventory: &Inventory) -> Usage {
    let shared = Shared::of(catalog);
    let mut records: Vec<&Record> = catalog.records.iter().collect();
    newest_first(&mut records);
    let mut seen = BTreeSet::new();
    records.retain(|record| seen.insert((&record.stored.manifest_digest, record.platform())));
    // The largest first: it is space that is being looked for.
    records.sort_by_key(|record| std::cmp::Reverse(record.content.size()));
    let images = records.iter().map(|record| image(catalog, record, shared.bytes(record))).collect();

    let mut users: BTreeMap<&Digest, u64> = BTreeMap::new();
    let mut manifests = BTreeSet::new();
    for record in catalog.records.iter().filter(|record| manifests.insert(&record.stored.manifest_digest)) {
        for digest in record.content.blobs.keys() {
            *users.entry(digest).or_default() += 1;
        }
    }
    let (mut in_images, mut common, mut other, mut total) = <(Space, Space, Space, Space)>::default();
    for (digest, bytes) in &inventory.blobs {
        total.add(*bytes);
        match users.get(digest) {
            None => other.add(*bytes),
            Some(count) => {
                in_images.add(*bytes);
                if *count > 1 {
                    common.add(*bytes);
                }
            }
        }
    }
    let mut in_runtime = Space::default();
    inventory.handed_over.values().for_each(|bytes| in_runtime.add(*bytes));
    let unfinished = Space { count: inventory.partials, bytes: inventory.partial_bytes };
    total.count += unfinished.count;
    total.bytes += unfinished.bytes;
    Usage { images, in_images, shared: common, in_runtime, other, unfinished, total }
}

fn image(catalog: &Catalog, record: &Record, shared: u64) -> ImageUsage {
    let same = |other: &&Record| {
        other.stored.manifest_digest == record.stored.manifest_digest && other.platform() == record.platform()
    };
    let name = |record: &Record| match record.name() {
        name if name.is_nameless() => "<none>".to_owned(),
        name => name.familiar().to_owned(),
    };
    let bytes = record.content.size();
    ImageUsage {
        id: record.id.to_string(),
        names: catalog.records.iter().filter(same).map(name).collect(),
        platform: record.platform().to_string(),
        bytes,
        shared_bytes: shared,
        own_bytes: bytes.saturating_sub(shared),
    }
}

fn text(usage: &Usage, whole: bool) -> String {
    let foreign = usage.images.iter().any(|image| image.platform != Platform::host().to_string());
    let mut images = "IMAGE\tIMAGE ID\tSIZE\tSHARED\tOWN".to_owned();
    images.push_str(if foreign { "\tPLATFORM\n" } else { "\n" });
    for image in &usage.images {
        let [size, shared, own] = [image.bytes, image.shared_bytes, image.own_bytes].map(human::size);
        let short = image.id.parse::<Digest>().map(|id| id.short().to_owned()).unwrap_or_default();
        let id = if whole { &image.id } else { &short };
        for (number, name) in image.names.iter().enumerate() {
            // Several names take the space once.
            let sizes = if number == 0 { format!("{size}\t{shared}\t{own}") } else { "\t\t".to_owned() };
            let platform = if foreign { format!("\t{}", image.platform) } else { String::new() };
            images.extend([shortened(name, whole).as_str(), "\t", id, "\t", &sizes, &platform, "\n"]);
        }
    }
    let mut totals = "TYPE\tCOUNT\tSIZE\n".to_owned();
    let mut rows = vec![
        ("Blobs of images", usage.in_images),
        ("  of them shared", usage.shared),
        ("Other blobs", usage.other),
        ("Unfinished blobs", usage.unfinished),
        ("Total", usage.total),
    ];
    if usage.in_runtime.count > 0 {
        rows.push(("In the container runtime", usage.in_runtime));
    }
    for (label, space) in rows {
        totals.extend([label, "\t", &space.count.to_string(), "\t", &human::total(space.bytes), "\n"]);
    }
    format!("{}\n{}", align(&images), align(&totals))
}

/// `repository@sha256:` and twelve digits are enough for a table.
fn shortened(name: &str, whole: bool) -> String {
    match name.split_once("@sha256:") {
        Some((repository, hex)) if !whole => format!("{repository}@sha256:{}", hex.get(..12).unwrap_or(hex)),
        _ => name.to_owned(),
    }
}
