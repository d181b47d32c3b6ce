//! What is there for all pulls: registries with images of all size classes.

use std::path::PathBuf;
use std::time::Duration;

use larder_oci::Platform;
use larder_tests::certificates::Authority;
use larder_tests::registry::TokenOptions;
use larder_tests::{Blob, Image, Layer, Registry, RegistryOptions};

/// Who may read from the registry with a token server. The password must never be seen.
pub const USER: &str = "reader";
/// Its password.
pub const PASSWORD: &str = "open-sesame-3141";
/// How long its tokens hold; they say that they hold longer.
const TOKENS_HOLD: Duration = Duration::from_secs(2);

/// An image in the registries.
pub struct Subject {
    /// What a rule sees of it: `subject-<title>`.
    pub repository: String,
    /// The image that a pull is to bring: of an index, the one for this machine.
    pub image: Image,
    /// The index that it is in.
    pub index: Option<Image>,
}

impl Subject {
    /// What the tag stands for.
    pub fn target(&self) -> &Image {
        self.index.as_ref().unwrap_or(&self.image)
    }

    /// Configuration and layers.
    pub fn blobs(&self) -> &[Blob] {
        &self.image.blobs
    }
}

/// All of it. Dropping it ends the registries.
pub struct World {
    /// The program that is tried.
    pub larder: PathBuf,
    /// Without logins.
    pub open: Registry,
    /// With a token server.
    pub closed: Registry,
    /// Signs the certificates of hosts that speak TLS.
    pub authority: Authority,
    /// Images with small blobs, of which many are pulled.
    pub small: Vec<Subject>,
    /// One whose layer is large enough to be fetched in parts.
    pub large: Subject,
}

impl World {
    /// Starts the registries and pushes the images.
    pub fn new(larder: PathBuf) -> anyhow::Result<Self> {
        let open = Registry::start(RegistryOptions::default())?;
        let closed = Registry::start(RegistryOptions {
            login: Some((USER.to_owned(), PASSWORD.to_owned())),
            tokens: Some(TokenOptions { holds: TOKENS_HOLD, says: Duration::from_secs(300) }),
            ..RegistryOptions::default()
        })?;
        let small = vec![
            subject("tiny", &[1, 300, 2000], 1, false)?,
            subject("small", &[5_000, 60_000, 200_000], 10, false)?,
            subject("medium", &[1_000_000, 6_000_000, 30_000], 20, false)?,
            subject("index", &[40_000, 500_000], 30, true)?,
        ];
        let large = subject("large", &[70 << 20, 10_000], 40, false)?;
        for subject in small.iter().chain([&large]) {
            for registry in [&open, &closed] {
                registry.push(subject.target(), &subject.repository, "v1")?;
            }
        }
        Ok(Self { larder, open, closed, authority: Authority::new("larder-tests faults")?, small, large })
    }
}

fn subject(title: &str, sizes: &[usize], seed: u64, indexed: bool) -> anyhow::Result<Subject> {
    let image = |platform: &str, seed: u64| -> anyhow::Result<Image> {
        let mut builder = Image::builder().platform(platform).label("title", title);
        for (size, seed) in sizes.iter().zip(seed..) {
            builder = builder.layer(&Layer::random(seed, *size)?);
        }
        Ok(builder.build()?)
    };
    let own = image(&Platform::host().to_string(), seed)?;
    let index =
        if indexed { Some(Image::index(&[image("linux/s390x", seed + 5)?, own.clone()])?) } else { None };
    Ok(Subject { repository: format!("subject-{title}"), image: own, index })
}
