//! `larder tag`: a further name for an image.

use larder_oci::{ImageKey, ImageName};

use crate::{Context, Failure, Status, catalog::Catalog};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a name or an ID
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    pub source: String,
    /// The name it is to have as well
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    pub target: String,
}

/// Gives the image the name, for all platforms it is there for. Says nothing.
pub async fn run(context: &Context, args: Args) -> Result<Status, Failure> {
    let name = target(&args.target)?;
    context
        .blocking(move |store| {
            let catalog = Catalog::read(store)?;
            let found = catalog.find(&args.source)?;
            let mut keys: Vec<ImageKey> = Vec::new();
            // An ID may stand under several names: one a platform is enough.
            for record in found.records() {
                if keys.iter().all(|key| key.platform != *record.platform()) {
                    keys.push(record.stored.key.clone());
                }
            }
            store.tag(&keys, &name)?;
            Ok(Status::SUCCESS)
        })
        .await
}

/// A name that may be given.
fn target(text: &str) -> Result<ImageName, Failure> {
    let name: ImageName = text.parse().map_err(|error| {
        Failure::new(format_args!("Error parsing reference: {text:?} is not a valid repository/tag: {error}"))
    })?;
    if name.digest().is_some() {
        return Err(Failure::new("refusing to create a tag with a digest reference"));
    }
    if name.is_nameless() {
        return Err(Failure::new(format_args!("the repository {} is reserved", name.familiar_repository())));
    }
    Ok(name)
}
