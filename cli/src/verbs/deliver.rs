//! `larder deliver`: giving images of the store to the node's container runtime, so that pods can use them.

use larder_oci::ImageKey;
use larder_runtime::{Image, Layers, Owner, Runtime};
use larder_store::{Claim, Store};
use serde::Serialize;

use crate::{
    Context, Failure, Status,
    args::Report,
    catalog::{Catalog, Found, Record},
    listing::pretty,
};

/// Flags and arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or IDs of images in the store
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Have kubelet's garbage collection leave them alone
    #[arg(long)]
    pub pin: bool,
    /// Say nothing
    #[arg(short, long)]
    pub quiet: bool,
    /// The form of the output.
    #[command(flatten)]
    pub report: Report,
}

/// One image that the runtime has now, as `--output json` reports it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Delivered {
    name: String,
    #[serde(rename = "ID")]
    id: String,
    digest: String,
    platform: String,
    runtime: String,
    pinned: bool,
}

/// Tries every argument, and fails if one did.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let delivery = Delivery::new(context, args.pin).await?;
    let catalog = context.blocking(Catalog::read).await?;
    let (mut delivered, mut failures) = (Vec::new(), Vec::new());
    for text in &args.images {
        match select(&catalog, &delivery.runtime, text) {
            Ok(records) => {
                for record in records {
                    match delivery.give(context, &record.stored.key).await {
                        Ok(one) => {
                            if !args.quiet && !args.report.is_json() {
                                context
                                    .line(format_args!("Delivered image: {}", record.name().familiar()))?;
                            }
                            delivered.push(one);
                        }
                        Err(failure) => failures.push(failure),
                    }
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    if args.report.is_json() {
        context.line(pretty(&delivered))?;
    }
    Failure::join(failures)?;
    Ok(Status::SUCCESS)
}

/// The records that an argument stands for and that this node's runtime has a use for.
fn select<'a>(catalog: &'a Catalog, runtime: &Runtime, text: &str) -> Result<Vec<&'a Record>, Failure> {
    let found = catalog.find(text)?;
    if found.records().iter().all(|record| record.name().is_nameless()) {
        return Err(Failure::response(format_args!(
            "image {text} has no name that a pod could use: give it one with larder tag"
        )));
    }
    let fitting: Vec<&Record> = match &found {
        Found::Name(records) | Found::Pinned(records) | Found::Id(records) => {
            records.iter().copied().filter(|record| runtime.takes(&record.stored.key)).collect()
        }
    };
    if fitting.is_empty() {
        return Err(Failure::response(format_args!(
            "image with reference {text} was found but is not for this node's platform ({})",
            larder_oci::Platform::host()
        )));
    }
    Ok(fitting)
}

/// What all images of one command share.
pub(crate) struct Delivery {
    pub(crate) runtime: Runtime,
    /// The runtime's name and version, as reports have it.
    description: String,
    interface: &'static str,
    pin: bool,
}

impl Delivery {
    /// Finds the runtime.
    ///
    /// # Errors
    /// If there is none, or if it does not answer.
    pub(crate) async fn new(context: &Context, pin: bool) -> Result<Self, Failure> {
        let runtime = context.node.required().await?;
        let (description, interface) = match runtime.describe().await? {
            Some(found) => (format!("{} {}", found.name, found.version), found.interface),
            None => (String::new(), "none"),
        };
        if pin && interface == "cri" {
            context.note(
                "WARNING: images cannot be pinned through CRI: kubelet's garbage collection may take them",
            );
        }
        Ok(Self { runtime, description, interface, pin })
    }

    /// Gives an image that the store names to the runtime. What an `ImageCache` keeps stays the agent's.
    async fn give(&self, context: &Context, key: &ImageKey) -> Result<Delivered, Failure> {
        let wanted = key.clone();
        let (store, image, claim) = context.blocking(move |store| read(store, &wanted)).await?;
        let owner = match claim {
            Claim::None => Owner::Person { pin: self.pin },
            Claim::Delete | Claim::Retain => Owner::Agent { pin: true },
        };
        self.runtime.deliver(&store, &image, owner, Layers::all_there()).await.map_err(|error| {
            Failure::response(format_args!("cannot deliver {}: {error}", key.name.familiar()))
        })?;
        Ok(Delivered {
            name: key.name.to_string(),
            id: image.config.digest().to_string(),
            digest: image.target.to_string(),
            platform: key.platform.to_string(),
            runtime: self.description.clone(),
            pinned: self.interface != "cri" && owner.pins(),
        })
    }

    /// Gives images to the runtime that were just put into the store, those for other platforms excepted. Says which, unless
    /// told not to, and fails if one failed.
    pub(crate) async fn give_all<'a>(
        &self,
        context: &Context,
        keys: impl IntoIterator<Item = &'a ImageKey>,
        quiet: bool,
    ) -> Result<(), Failure> {
        let mut failures = Vec::new();
        for key in keys.into_iter().filter(|key| self.runtime.takes(key)) {
            match self.give(context, key).await {
                Ok(_) if quiet => {}
                Ok(_) => context.line(format_args!("Delivered image: {}", key.name.familiar()))?,
                Err(failure) => failures.push(failure),
            }
        }
        Failure::join(failures)
    }
}

fn read(store: &Store, key: &ImageKey) -> Result<(Store, Image, Claim), Failure> {
    let stored = store.image(key)?.ok_or_else(|| Failure::no_such_image(key.name.familiar()))?;
    let image = Image::read(store, &stored)?;
    Ok((store.clone(), image, stored.claim))
}
