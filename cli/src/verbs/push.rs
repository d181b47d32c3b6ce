//! `larder push`: images from the store to a registry.

use std::{collections::BTreeMap, sync::Arc};

use larder_oci::{Digest, ImageName, Platform};
use larder_pull::{PushError, PushEvent, PushObserver, Pushed, Pusher};
use larder_registry::RegistryError;
use larder_store::StoredImage;
use serde::Serialize;

use super::pull::has_tag_or_digest;
use crate::{Context, Failure, Status, args::Report, display::Layers};

/// Upload an image to a registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: NAME[:TAG]
    pub name: String,
    /// Push all tags of the repository
    #[arg(long, short)]
    pub all_tags: bool,
    /// Suppress verbose output
    #[arg(long, short)]
    pub quiet: bool,
    /// Push the image of this platform alone
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,
    /// How to report.
    #[command(flatten)]
    pub report: Report,
}

/// One name that was pushed, as `--output json` reports it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    name: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_of: Option<String>,
}

/// Pushes a name, or all tags of its repository.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let name: ImageName = args.name.parse()?;
    if name.digest().is_some() {
        return Err(Failure::response("cannot push a digest reference"));
    }
    if args.all_tags && has_tag_or_digest(&args.name) {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let quiet = args.quiet || args.report.is_json();
    let say = |text: std::fmt::Arguments<'_>| if quiet { Ok(()) } else { context.line(text) };
    if !args.all_tags && !has_tag_or_digest(&args.name) {
        say(format_args!("Using default tag: latest"))?;
    }
    let (wanted, all_tags) = (name.clone(), args.all_tags);
    let tagged = context.blocking(move |store| select(&store.images()?, &wanted, all_tags)).await?;
    say(format_args!("The push refers to repository [{}/{}]", name.registry(), name.repository()))?;
    let store = context.blocking(|store| Ok(store.clone())).await?;
    let job = Job { context, args: &args, pusher: Pusher::new(store, context.registry()?) };
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for (name, images) in tagged {
        match job.push(&name, images).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(failure) => failures.push(failure),
        }
    }
    if args.report.is_json() {
        context.line(serde_json::to_string_pretty(&outcomes).map_err(Failure::new)?)?;
    }
    Failure::join(failures)?;
    Ok(Status::SUCCESS)
}

/// What all names of one command share.
struct Job<'a> {
    context: &'a Context,
    args: &'a Args,
    pusher: Pusher,
}

impl Job<'_> {
    async fn push(&self, name: &ImageName, images: Vec<StoredImage>) -> Result<Outcome, Failure> {
        let images = one_platform(name, images, self.args.platform.as_ref())?;
        let quiet = self.args.quiet || self.args.report.is_json();
        let layers = (!quiet).then(|| Arc::new(Layers::new(self.context)));
        let observer: Arc<dyn PushObserver> = match &layers {
            Some(layers) => layers.clone(),
            None => Arc::new(Nobody),
        };
        let result = self.pusher.push(name, &images, &observer).await;
        if let Some(layers) = layers {
            layers.close();
        }
        let pushed = result.map_err(|error| explain(name, &error))?;
        if !quiet {
            let tag = name.tag().unwrap_or("latest");
            self.context.line(format_args!("{tag}: digest: {} size: {}", pushed.digest, pushed.size))?;
        } else if !self.args.report.is_json() {
            self.context.line(name)?;
        }
        tell_partial(self.context, name, &pushed);
        Ok(Outcome {
            name: name.to_string(),
            digest: pushed.digest.to_string(),
            size: pushed.size,
            partial_of: pushed.partial.map(|partial| partial.list.to_string()),
        })
    }
}

/// The images to push, by name.
fn select(
    images: &[StoredImage],
    name: &ImageName,
    all_tags: bool,
) -> Result<BTreeMap<ImageName, Vec<StoredImage>>, Failure> {
    let mut tagged: BTreeMap<ImageName, Vec<StoredImage>> = BTreeMap::new();
    for image in images {
        let other = &image.key.name;
        let same_repository = other.registry() == name.registry() && other.repository() == name.repository();
        let meant = if all_tags {
            same_repository && other.tag().is_some() && other.digest().is_none()
        } else {
            other == name
        };
        if meant {
            tagged.entry(other.clone()).or_default().push(image.clone());
        }
    }
    if tagged.is_empty() {
        let name = if all_tags { name.familiar_repository() } else { name.familiar() };
        let what = if all_tags {
            "An image does not exist locally in the repository"
        } else {
            "An image does not exist locally with the tag"
        };
        return Err(Failure::response(format_args!("{what}: {name}")));
    }
    Ok(tagged)
}

/// Keeps one platform's image, pushed as a single image then, if one is asked for.
fn one_platform(
    name: &ImageName,
    images: Vec<StoredImage>,
    platform: Option<&Platform>,
) -> Result<Vec<StoredImage>, Failure> {
    let Some(platform) = platform else { return Ok(images) };
    let found = images.into_iter().find(|image| image.key.platform == *platform);
    let mut image = found.ok_or_else(|| {
        Failure::response(format_args!(
            "image with reference {} was found but does not provide the specified platform ({platform})",
            name.familiar()
        ))
    })?;
    image.index = None;
    image.target = image.manifest_digest.clone();
    Ok(vec![image])
}

/// docker's note, for a list that went without some of its images.
fn tell_partial(context: &Context, name: &ImageName, pushed: &Pushed) {
    let Some(partial) = &pushed.partial else { return };
    context.note(format_args!(
        "Note: {} is a list of {} images, of which the store has {}; only what is there was pushed \
         (pull with --all-platforms to have all of them):\n  {} -> {}",
        name.familiar(),
        partial.total,
        partial.present,
        partial.list,
        pushed.digest
    ));
}

/// docker's words where it has some.
fn explain(name: &ImageName, error: &PushError) -> Failure {
    match error {
        PushError::Registry(RegistryError::Unauthorized { detail, .. }) => Failure::response(format_args!(
            "push access denied for {}, repository does not exist or may require authorization: \
             authorization failed{detail}; try 'larder login'",
            name.familiar_repository()
        )),
        other => Failure::response(other),
    }
}

/// Watches nothing.
struct Nobody;

impl PushObserver for Nobody {
    fn event(&self, _: &Digest, _: u64, _: PushEvent) {}
}
