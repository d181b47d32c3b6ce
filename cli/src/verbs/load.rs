//! `larder load`: images out of an archive.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal},
    path::PathBuf,
};

use larder_archive::{LoadOptions, LoadedImage, Source};
use larder_oci::Platform;
use serde_json::json;

use super::deliver::Delivery;
use crate::{Context, Failure, Status, args::Report};

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read from a tar archive file or a folder in OCI image-layout form, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Suppress the load output
    #[arg(short, long)]
    pub quiet: bool,
    /// Only the image for this platform, where there are several [default: all that are in the archive]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Give the images to the node's container runtime too, as larder deliver does
    #[arg(long)]
    pub deliver: bool,
    /// The form of the output.
    #[command(flatten)]
    pub report: Report,
}

/// Loads the images and says which they are.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    // A runtime that is not there is better known before all the work than after it.
    let delivery = if args.deliver { Some(Delivery::new(context, false).await?) } else { None };
    let source = match args.input {
        Some(path) => Source::Path(path),
        None if io::stdin().is_terminal() => {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        None => Source::Stream(Box::new(io::stdin())),
    };
    let options = LoadOptions { platform: args.platform, only: None };
    let shared = context.clone();
    let loaded = context
        .blocking(move |store| {
            Ok(larder_archive::load(store, source, &options, &|| shared.is_interrupted())?)
        })
        .await?;
    if args.report.is_json() {
        let report: Vec<_> = loaded.iter().map(describe).collect();
        context.line(serde_json::Value::from(report))?;
        return deliver(context, delivery, &loaded, true).await;
    }
    let mut said = BTreeSet::new();
    for image in &loaded {
        if let (Some(replaced), false) = (&image.replaced, args.quiet) {
            context.line(format_args!(
                "The image {} already exists, leaving the old one as {}",
                image.key.name.familiar(),
                replaced.now.key.name.familiar()
            ))?;
        }
        let line = if image.key.name.is_nameless() {
            format!("Loaded image ID: {}", image.id)
        } else {
            format!("Loaded image: {}", image.key.name.familiar())
        };
        // One line for all platforms of a name.
        if said.insert(line.clone()) {
            context.line(line)?;
        }
    }
    deliver(context, delivery, &loaded, args.quiet).await
}

/// Gives what was loaded to the runtime, if that was asked for.
async fn deliver(
    context: &Context,
    delivery: Option<Delivery>,
    loaded: &[LoadedImage],
    quiet: bool,
) -> Result<Status, Failure> {
    if let Some(delivery) = delivery {
        delivery.give_all(context, loaded.iter().map(|image| &image.key), quiet).await?;
    }
    Ok(Status::SUCCESS)
}

fn describe(image: &LoadedImage) -> serde_json::Value {
    let name = (!image.key.name.is_nameless()).then(|| image.key.name.familiar());
    json!({
        "Name": name,
        "ID": image.id.as_str(),
        "Digest": image.target.as_str(),
        "Platform": image.key.platform.to_string(),
        "Replaced": image.replaced.as_ref().map(|replaced| replaced.now.key.name.familiar()),
    })
}
