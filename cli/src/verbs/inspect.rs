//! `larder inspect`: all that is known of images.

use std::collections::BTreeSet;

use larder_oci::{Platform, spec::Descriptor};
use larder_template::{IMAGE, Template};
use serde::Serialize;

use crate::{
    Context, Failure, Status,
    args::Report,
    catalog::{Catalog, Record},
    config::RunConfig,
    listing::pretty,
};

/// Flags and arguments.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    pub format: Option<String>,
    /// Show the image for this platform, where there are several
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// The form of the output; it is JSON in any case.
    #[command(flatten)]
    pub report: Report,
}

/// docker's document, in its order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    id: &'a str,
    repo_tags: Vec<&'a str>,
    repo_digests: BTreeSet<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    created: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    author: &'a str,
    config: &'a RunConfig,
    architecture: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    os: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    size: u64,
    #[serde(rename = "RootFS")]
    root_fs: RootFs<'a>,
    metadata: Metadata,
    descriptor: &'a Descriptor,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs<'a> {
    r#type: &'static str,
    layers: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: &'static str,
}

/// Go's zero time: when a tag was set is not recorded.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Prints what is found, and says what is not.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let catalog = context.blocking(Catalog::read).await?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for text in &args.images {
        let record = catalog.find(text).and_then(|found| found.one(args.platform.as_ref(), text));
        match record.map(|record| document(&catalog, record)) {
            Ok(document) => found.push(document),
            Err(failure) => failures.push(failure),
        }
    }
    match (template, args.format.as_deref()) {
        (Some(template), _) => {
            let mut text = String::new();
            for document in &found {
                let value = serde_json::to_value(document).map_err(Failure::new)?;
                match template.inspect(&value, &IMAGE) {
                    Ok(line) => {
                        text.push_str(&line);
                        text.push('\n');
                    }
                    Err(error) => failures.push(error.into()),
                }
            }
            // docker ends its output with a line break even if there is nothing else.
            context.print(if text.is_empty() { "\n" } else { &text })?;
        }
        (None, Some("json")) => context.line(serde_json::to_string(&found).map_err(Failure::new)?)?,
        (None, _) => context.line(pretty(&found))?,
    }
    Failure::join(failures)?;
    Ok(Status::SUCCESS)
}

fn document<'a>(catalog: &'a Catalog, record: &'a Record) -> Document<'a> {
    let config = &record.content.config;
    let platform = record.platform();
    let of_platform =
        |given: &str, own: &str| if given.is_empty() { own.to_owned() } else { given.to_owned() };
    let (os, architecture) =
        (of_platform(&config.os, platform.os()), of_platform(&config.architecture, platform.architecture()));
    let all = || catalog.with_id(&record.id);
    let mut tags: Vec<&str> =
        all().filter(|other| other.is_tagged()).map(|other| other.name().familiar()).collect();
    tags.dedup();
    Document {
        id: record.id.as_str(),
        repo_tags: tags,
        repo_digests: all().filter_map(Record::repo_digest).collect(),
        comment: last_comment(record),
        created: &config.created,
        author: &config.author,
        config: &config.config,
        architecture,
        variant: &config.variant,
        os,
        os_version: &config.os_version,
        size: record.content.size(),
        root_fs: RootFs { r#type: "layers", layers: &config.rootfs.diff_ids },
        metadata: Metadata { last_tag_time: NEVER },
        descriptor: record.stored.index.as_ref().unwrap_or(&record.stored.manifest),
    }
}

/// The configuration's own comment, or that of its last step, as docker has it.
fn last_comment(record: &Record) -> &str {
    let config = &record.content.config;
    let last = config.history.last().map_or("", |step| step.comment.as_str());
    if config.comment.is_empty() { last } else { &config.comment }
}
