//! `larder pull`: images from a registry into the store.

use std::sync::Arc;

use larder_oci::{ImageKey, ImageName, Platform};
use larder_pull::{Observer, Progress, PullError, PullOptions, Pulled, Puller};
use larder_registry::RegistryError;
use larder_store::Claim;
use serde::Serialize;

use super::deliver::Delivery;
use crate::{Context, Failure, Status, args::Report, display::Layers};

/// Download images from a registry
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The images: NAME[:TAG|@DIGEST]
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Download all tagged images in the repository
    #[arg(long, short)]
    pub all_tags: bool,
    /// Suppress verbose output
    #[arg(long, short)]
    pub quiet: bool,
    /// The platform to pull, such as linux/arm64, if the image has several
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,
    /// Pull the image for every platform that it has
    #[arg(long, conflicts_with = "platform")]
    pub all_platforms: bool,
    /// How often to try again when the registry cannot be reached, breaks off or asks to wait
    #[arg(long, value_name = "N", default_value_t = larder_pull::RETRIES)]
    pub retry: usize,
    /// Give it to the node's container runtime too, as larder deliver does
    #[arg(long)]
    pub deliver: bool,
    /// How to report.
    #[command(flatten)]
    pub report: Report,
}

/// One image that was pulled, as `--output json` reports it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    name: String,
    platform: String,
    digest: String,
    size: u64,
    up_to_date: bool,
}

/// Pulls every image, also when one of them fails.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    // A runtime that is not there is better known before all the work than after it.
    let delivery = if args.deliver { Some(Delivery::new(context, false).await?) } else { None };
    let registry = context.registry()?;
    let store = context.blocking(|store| Ok(store.clone())).await?;
    let options = PullOptions { by_hand: true, retries: args.retry };
    let puller = Puller::new(store, registry.clone()).with_options(options);
    let job = Job { context, args: &args, puller, delivery };
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for text in &args.names {
        let names = match names(text, &args, &registry).await {
            Ok(names) => names,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        if !args.all_tags && !has_tag_or_digest(text) {
            job.say("Using default tag: latest")?;
        }
        for name in names {
            match job.pull(&name).await {
                Ok(images) => outcomes.extend(images),
                Err(failure) => failures.push(failure),
            }
        }
    }
    if args.report.is_json() {
        let json = serde_json::to_string_pretty(&outcomes).map_err(Failure::new)?;
        context.line(json)?;
    }
    Failure::join(failures)?;
    Ok(Status::SUCCESS)
}

/// What an argument stands for: a name, or all tags of a repository.
async fn names(
    text: &str,
    args: &Args,
    registry: &larder_registry::Registry,
) -> Result<Vec<ImageName>, Failure> {
    let name: ImageName = text.parse()?;
    if !args.all_tags {
        return Ok(vec![name]);
    }
    if has_tag_or_digest(text) {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let tags = registry.tags(&name).await.map_err(|error| explain(&name, &error.into()))?;
    let repository = format!("{}/{}", name.registry(), name.repository());
    if tags.is_empty() {
        return Err(Failure::response(format_args!("{} has no tags", name.familiar_repository())));
    }
    tags.iter().map(|tag| Ok(format!("{repository}:{tag}").parse()?)).collect()
}

/// Whether a name says which image of the repository is meant.
pub(crate) fn has_tag_or_digest(text: &str) -> bool {
    text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// What all names of one command share.
struct Job<'a> {
    context: &'a Context,
    args: &'a Args,
    puller: Puller,
    delivery: Option<Delivery>,
}

impl Job<'_> {
    /// Says something that is neither result nor error.
    fn say(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        if self.args.quiet || self.args.report.is_json() { Ok(()) } else { self.context.line(text) }
    }

    async fn pull(&self, name: &ImageName) -> Result<Vec<Outcome>, Failure> {
        self.say(format_args!("{}: Pulling from {}", name.manifest_reference(), name.repository()))?;
        let pulled = if self.args.all_platforms {
            let layers = self.layers();
            let progress = |key: &ImageKey| {
                let _ = self.say(format_args!("Platform: {}", key.platform));
                progress(layers.clone())
            };
            let pulled = self.puller.pull_all_platforms(name, |_| Claim::None, progress).await;
            close(layers.as_ref());
            pulled.map_err(|error| explain(name, &error))?
        } else {
            let platform = self.args.platform.clone().unwrap_or_else(Platform::host);
            let key = ImageKey { name: name.clone(), platform };
            let layers = self.layers();
            let pulled = self.puller.pull(&key, Claim::None, &progress(layers.clone())).await;
            close(layers.as_ref());
            vec![(key, pulled.map_err(|error| explain(name, &error))?)]
        };
        self.conclude(name, &pulled)?;
        if let Some(delivery) = &self.delivery {
            let quiet = self.args.quiet || self.args.report.is_json();
            delivery.give_all(self.context, pulled.iter().map(|(key, _)| key), quiet).await?;
        }
        Ok(pulled.into_iter().map(|(key, pulled)| outcome(&key, &pulled)).collect())
    }

    fn layers(&self) -> Option<Arc<Layers>> {
        let shown = !self.args.quiet && !self.args.report.is_json();
        shown.then(|| Arc::new(Layers::new(self.context)))
    }

    /// docker's closing lines.
    fn conclude(&self, name: &ImageName, pulled: &[(ImageKey, Pulled)]) -> Result<(), Failure> {
        let Some((_, first)) = pulled.first() else { return Ok(()) };
        self.say(format_args!("Digest: {}", first.digest))?;
        let status = if pulled.iter().all(|(_, pulled)| pulled.up_to_date) {
            "Image is up to date for"
        } else {
            "Downloaded newer image for"
        };
        self.say(format_args!("Status: {status} {}", name.familiar()))?;
        if self.args.report.is_json() { Ok(()) } else { self.context.line(name) }
    }
}

fn progress(layers: Option<Arc<Layers>>) -> Arc<Progress> {
    let observer = layers.map(|layers| layers as Arc<dyn Observer>);
    Arc::new(observer.map_or_else(Progress::default, Progress::observed))
}

fn close(layers: Option<&Arc<Layers>>) {
    if let Some(layers) = layers {
        layers.close();
    }
}

fn outcome(key: &ImageKey, pulled: &Pulled) -> Outcome {
    Outcome {
        name: key.name.to_string(),
        platform: key.platform.to_string(),
        digest: pulled.digest.to_string(),
        size: pulled.size,
        up_to_date: pulled.up_to_date,
    }
}

/// docker's words where it has some, and what was really said after them.
fn explain(name: &ImageName, error: &PullError) -> Failure {
    match error {
        PullError::Registry(RegistryError::Unauthorized { detail, .. }) => Failure::response(format_args!(
            "pull access denied for {}, repository does not exist or may require 'larder login'{detail}",
            name.familiar_repository()
        )),
        PullError::Registry(RegistryError::NotFound { what, detail }) => Failure::response(format_args!(
            "manifest for {} not found: {what} is not in the registry{detail}",
            name.familiar()
        )),
        other => Failure::response(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        for (text, has) in [
            ("ubuntu", false),
            ("ubuntu:18.04", true),
            ("localhost:5000/a", false),
            ("localhost:5000/a:b", true),
            ("a@sha256:00", true),
        ] {
            assert_eq!(has_tag_or_digest(text), has, "{text}");
        }
    }
}
