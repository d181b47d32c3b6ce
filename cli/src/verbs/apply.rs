//! `larder apply`: make this machine's store hold what an `ImageCache` names, with the agent's engine and no cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use larder_agent::engine::{BackoffOptions, Desired, DesiredImage, Engine, EngineOptions, Report, State};
use larder_crds::{FailureReason, ImageCache};
use larder_plan::{
    Union,
    validate::{self, ValidCache},
};
use larder_runtime::Choice;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{Context, Failure, Status, args};

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 8 << 20;
/// How often an image may fail for a reason that may pass.
const TRIES: usize = 3;
/// The longest pause between tries. Somebody waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Make this machine's store hold what an ImageCache names
///
/// Does what an agent does, without a cluster, and ends when every image is there or has failed. It takes the agent's
/// place: not for a store that an agent looks after.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file with ImageCaches, or - for stdin; may be given several times
    #[arg(long = "filename", short = 'f', value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Remove images that an earlier apply brought and that are no longer named
    #[arg(long)]
    pub prune: bool,
    /// The folder that archives are loaded from [default: /var/lib/larder-import for root, the current folder for others]
    #[arg(long, env = "LARDER_IMPORT_DIR", value_name = "FOLDER")]
    pub import_dir: Option<PathBuf>,
    /// The folder that archives are saved to [default: /var/lib/larder-export for root, the current folder for others]
    #[arg(long, env = "LARDER_EXPORT_DIR", value_name = "FOLDER")]
    pub export_dir: Option<PathBuf>,
    /// How to report.
    #[command(flatten)]
    pub report: args::Report,
}

/// A folder for archives: as the agent has it, whose place the command takes, or where a person is who has none.
fn archive_folder(given: Option<PathBuf>, agents: &str) -> PathBuf {
    given.unwrap_or_else(|| {
        if rustix::process::geteuid().is_root() { PathBuf::from(agents) } else { PathBuf::from(".") }
    })
}

/// One image, as `--output json` reports it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome<'a> {
    image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// Runs the engine until every image is ready or has failed for good.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let mut union = Union::default();
    for file in &args.files {
        let name = file.display().to_string();
        let text = read(file)?;
        add_caches(context, &name, &text, &mut union)?;
    }
    let store = context.blocking(|store| Ok(store.clone())).await?;
    let options = EngineOptions {
        backoff: BackoffOptions { max: LONGEST_PAUSE, ..BackoffOptions::default() },
        import_dir: Some(archive_folder(args.import_dir, "/var/lib/larder-import")),
        export_dir: Some(archive_folder(args.export_dir, "/var/lib/larder-export")),
        keep_unwanted: !args.prune,
        ..EngineOptions::default()
    };
    let runtime = context.node.connect_options(&store).await?;
    let mut engine = Engine::new(store, context.registry()?, options);
    if runtime.choice != Choice::None {
        engine = engine.with_runtime(runtime);
    }
    let desired = desired(&union);
    let (_sender, desired) = watch::channel(Some(desired));
    let (reporter, reports) = watch::channel(Report::default());
    let report = tokio::select! {
        report = settle(context, reports, args.report.is_json()) => report?,
        () = engine.run(desired, reporter) => return Err(Failure::new("interrupted")),
    };
    conclude(context, &report, args.report.is_json())
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format_args!("cannot read {}: {error}", file.display()));
    let mut source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut text = String::new();
    source.by_ref().take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(Failure::new(format_args!("{} is larger than {} MiB", file.display(), MAX_FILE >> 20)));
    }
    Ok(text)
}

/// What each document must say before the rest of it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    api_version: Option<String>,
    kind: Option<String>,
}

/// What the engine is to do.
fn desired(union: &Union) -> Desired {
    let mut images: Vec<_> = union
        .images()
        .iter()
        .map(|wanted| DesiredImage { image: wanted.spelled.clone(), ..DesiredImage::from(&wanted.entry) })
        .collect();
    // With this machine's platform and without any: it is one image.
    let mut seen = BTreeSet::new();
    images.retain(|image| image.key.as_ref().map_or(true, |key| seen.insert(key.clone())));
    Desired {
        generation: Some(1),
        images,
        disk_reserve: union.disk_reserve(),
        max_downloads: union.max_concurrent_downloads(),
        ..Desired::default()
    }
}

/// Adds what a file's `ImageCache`s ask for.
fn add_caches(context: &Context, file: &str, text: &str, union: &mut Union) -> Result<(), Failure> {
    let mut caches = 0;
    for document in documents(text) {
        let bad = |why: &dyn std::fmt::Display| Failure::new(format_args!("{file}: {why}"));
        let kind: Option<Kind> = serde_saphyr::from_str(document).map_err(|error| bad(&error))?;
        let Some(kind) = kind else { continue };
        let (version, kind) = (kind.api_version.unwrap_or_default(), kind.kind.unwrap_or_default());
        if (version.as_str(), kind.as_str()) != ("larder.dev/v1alpha1", "ImageCache") {
            return Err(bad(&format_args!(
                "expected an ImageCache of larder.dev/v1alpha1, found kind {kind:?} of {version:?}"
            )));
        }
        let cache: ImageCache = serde_saphyr::from_str(document).map_err(|error| bad(&error))?;
        let name = cache.metadata.name.as_deref().unwrap_or("(no name)");
        let valid = ValidCache::new(&cache.spec)
            .map_err(|problems| bad(&format_args!("ImageCache {name}: {}", validate::describe(&problems))))?;
        if valid.has_selector() {
            context.note(format_args!(
                "{file}: ImageCache {name}: its nodeSelector is passed over: there are no nodes here"
            ));
        }
        if !cache.spec.pull_secrets.is_empty() {
            context.note(format_args!(
                "{file}: ImageCache {name}: its pullSecrets are passed over: log in with `larder login`"
            ));
        }
        union.add(&valid);
        caches += 1;
    }
    if caches == 0 {
        return Err(Failure::new(format_args!("{file} holds no ImageCache")));
    }
    Ok(())
}

/// The documents of a YAML stream.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let end = current
            .match_indices("---")
            .find(|(at, _)| {
                let starts_line = *at == 0 || current[..*at].ends_with('\n');
                starts_line && current[at + 3..].chars().next().is_none_or(char::is_whitespace)
            })
            .map(|(at, _)| at);
        let (document, next) = match end {
            Some(at) => (&current[..at], Some(&current[at + 3..])),
            None => (current, None),
        };
        rest = next;
        Some(document)
    })
    .filter(|document| {
        document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    })
}

/// Prints what happens until nothing more will.
async fn settle(
    context: &Context,
    mut reports: watch::Receiver<Report>,
    quiet: bool,
) -> Result<Report, Failure> {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut failed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    loop {
        let report = reports.borrow_and_update().clone();
        if report.generation.is_some() {
            for image in &report.images {
                let label = label(&image.image, image.platform.as_deref());
                let text = describe(&image.state);
                if !quiet && last.get(&label) != Some(&text) {
                    context.line(format_args!("{label}: {text}"))?;
                    last.insert(label.clone(), text);
                }
                if let State::Failed { retry_time, .. } = &image.state {
                    failed.entry(label).or_default().insert(format!("{retry_time:?}"));
                }
            }
            let settled = |image: &larder_agent::engine::ImageReport| match &image.state {
                // Those in use are images that are not named; they stay.
                State::Ready { .. } | State::InUse { .. } => true,
                State::Failed { reason, retry_time, .. } => {
                    let times = failed.get(&label(&image.image, image.platform.as_deref()));
                    retry_time.is_none()
                        || !may_pass(*reason)
                        || times.is_some_and(|times| times.len() >= TRIES)
                }
                State::Pending | State::Pulling { .. } | State::Delivering { .. } | State::Saving { .. } => {
                    false
                }
            };
            if report.images.iter().all(settled) {
                return Ok(report);
            }
        }
        reports.changed().await.map_err(|_| Failure::new("interrupted"))?;
    }
}

/// Whether the next try may do better by itself.
fn may_pass(reason: FailureReason) -> bool {
    matches!(
        reason,
        FailureReason::RegistryUnreachable
            | FailureReason::TooManyRequests
            | FailureReason::RegistryError
            // What came is kept, and other images that are fetched meanwhile come to an end.
            | FailureReason::PullTimeout
            | FailureReason::InsufficientDisk
    )
}

fn label(image: &str, platform: Option<&str>) -> String {
    platform.map_or_else(|| image.to_owned(), |platform| format!("{image} ({platform})"))
}

fn describe(state: &State) -> String {
    match state {
        State::Pending => "waiting".to_owned(),
        State::Pulling { total: 0, .. } => "resolving".to_owned(),
        // Tenths: a line a second and image is more than anybody reads.
        State::Pulling { present, total } => format!("pulling, {} %", present * 10 / total * 10),
        State::Saving { .. } => "saving".to_owned(),
        State::Delivering { .. } => "giving it to the container runtime".to_owned(),
        State::InUse { message } => message.clone(),
        State::Ready { digest, size } => format!("ready, {digest}, {size} bytes"),
        State::Failed { reason, message, .. } => format!("{}: {message}", reason.as_str()),
    }
}

fn conclude(context: &Context, report: &Report, json: bool) -> Result<Status, Failure> {
    let outcomes: Vec<Outcome<'_>> = report.images.iter().map(outcome).collect();
    let failed = outcomes.iter().filter(|outcome| !outcome.ready).count();
    if json {
        context.line(serde_json::to_string_pretty(&outcomes).map_err(Failure::new)?)?;
    }
    if failed > 0 {
        let text = format!("{failed} of {} images could not be had", outcomes.len());
        return Err(Failure::response(text));
    }
    if !json {
        context.line(format_args!("All {} images are ready", outcomes.len()))?;
    }
    Ok(Status::SUCCESS)
}

fn outcome(image: &larder_agent::engine::ImageReport) -> Outcome<'_> {
    let (mut digest_text, mut bytes, mut why) = (None, None, None);
    match &image.state {
        State::Ready { digest, size } => (digest_text, bytes) = (Some(digest.to_string()), Some(*size)),
        State::Failed { reason, message, .. } => why = Some((reason.as_str(), message.as_str())),
        State::Pending
        | State::Pulling { .. }
        | State::Delivering { .. }
        | State::Saving { .. }
        | State::InUse { .. } => {}
    }
    Outcome {
        image: &image.image,
        platform: image.platform.as_deref(),
        ready: digest_text.is_some(),
        digest: digest_text,
        size: bytes,
        reason: why.map(|(reason, _)| reason),
        message: why.map(|(_, message)| message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_several_documents() {
        for (text, count) in [
            ("a: 1\n", 1),
            ("---\na: 1\n---\nb: 2\n", 2),
            ("# nothing\n---\n---\na: 1", 1),
            ("a: '---'\nb: ---x\n", 1),
            ("", 0),
        ] {
            assert_eq!(documents(text).count(), count, "{text}");
        }
    }
}
