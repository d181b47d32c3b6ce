//! `larder history`: how an image was made.

use jiff::Timestamp;
use larder_oci::Platform;
use serde_json::{Value, json};

use crate::{
    Context, Failure, Status,
    args::Report,
    catalog::{Catalog, Record},
    config::Step,
    human,
    listing::{self, Columns},
};

/// Flags and arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name or an ID
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub human: bool,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    pub format: Option<String>,
    /// Show the image for this platform, where there are several
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// The form of the output.
    #[command(flatten)]
    pub report: Report,
}

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// What docker shows for steps whose images were never stored.
const MISSING: &str = "<missing>";
const WIDTH: usize = 45;
/// Ages before the year 2000 are those of reproducible builds, and say nothing.
const YEAR_2000: i64 = 946_684_800;

/// Prints the steps, the last one first.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let catalog = context.blocking(Catalog::read).await?;
    let record = catalog.find(&args.image)?.one(args.platform.as_ref(), &args.image)?;
    let rows = rows(record, &args, Timestamp::now());
    if args.quiet && args.format.is_none() && !args.report.is_json() {
        for row in &rows {
            context.line(row["ID"].as_str().unwrap_or_default())?;
        }
        return Ok(Status::SUCCESS);
    }
    let created = if args.human { "{{.CreatedSince}}" } else { "{{.CreatedAt}}" };
    let table = format!("{{{{.ID}}}}\t{created}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
    listing::print(
        context,
        Columns { headers: HEADERS, table: &table },
        args.format.as_deref(),
        args.report,
        &rows,
    )?;
    Ok(Status::SUCCESS)
}

fn rows(record: &Record, args: &Args, now: Timestamp) -> Vec<Value> {
    let layers =
        record.content.manifest.as_ref().map(|manifest| manifest.layers().as_slice()).unwrap_or_default();
    let mut sizes = layers.iter().map(larder_oci::spec::Descriptor::size);
    let steps = &record.content.config.history;
    let mut rows: Vec<Value> = steps
        .iter()
        .map(|step| {
            let size = if step.empty_layer { 0 } else { sizes.next().unwrap_or_default() };
            row(step, size, args, now)
        })
        .collect();
    // Layers that no step accounts for: some tools write no history.
    rows.extend(sizes.map(|size| row(&Step::default(), size, args, now)));
    rows.reverse();
    if let Some(top) = rows.first_mut() {
        let id = if args.no_trunc { record.id.as_str() } else { record.id.short() };
        top["ID"] = id.into();
    }
    rows
}

fn row(step: &Step, size: u64, args: &Args, now: Timestamp) -> Value {
    let created: Option<Timestamp> = step.created.parse().ok();
    let at = created.map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default();
    let since = match created {
        Some(_) if !args.human => at.clone(),
        Some(time) if time.as_second() > YEAR_2000 => human::since(time, now),
        _ => String::new(),
    };
    let by = step.created_by.replace('\t', " ");
    json!({
        "ID": MISSING,
        "CreatedSince": since,
        "CreatedAt": at,
        "CreatedBy": if args.no_trunc { by } else { shortened(&by, WIDTH) },
        "Size": if args.human { human::size(size) } else { size.to_string() },
        "Comment": step.comment,
    })
}

/// At most `width` characters, the last of them an ellipsis if any are left out.
fn shortened(text: &str, width: usize) -> String {
    // A step may be a whole script; a table has one line a row.
    let text = text.replace(['\n', '\r'], " ");
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_steps_are_cut_at_characters() {
        assert_eq!(shortened("RUN x", 45), "RUN x");
        let cut = shortened(&"ä".repeat(60), 45);
        assert_eq!((cut.chars().count(), cut.chars().last()), (45, Some('…')));
        assert_eq!(shortened(&"a".repeat(45), 45).len(), 45);
    }
}
