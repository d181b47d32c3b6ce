//! What an engine is told.

use std::{collections::BTreeSet, time::Duration};

use larder_oci::{ImageKey, Platform};

use super::backoff::BackoffOptions;

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How long to wait after failures.
    pub backoff: BackoffOptions,
    /// How often the store and the runtime are checked for images that somebody else removed. The runtime tells of most
    /// changes by itself.
    pub check_interval: Duration,
    /// Leave images that the engine brought and that are no longer wanted where they are, its claim on them too.
    pub keep_unwanted: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            backoff: BackoffOptions::default(),
            check_interval: Duration::from_secs(30),
            keep_unwanted: false,
        }
    }
}

/// The images that the node is to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The generation of the object that says so; reported back once it has been taken up.
    pub generation: Option<i64>,
    /// The images, in the order in which they are reported.
    pub images: Vec<DesiredImage>,
    /// Images to keep without looking after them.
    pub released: BTreeSet<ImageKey>,
    /// Images that are wanted later: nothing is done about them, whether they are there or not.
    pub deferred: BTreeSet<ImageKey>,
}

impl Desired {
    /// The images that can be read, each once.
    pub(super) fn keys(&self) -> BTreeSet<ImageKey> {
        self.images.iter().filter_map(|image| image.key.clone().ok()).collect()
    }
}

/// One image that the node is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredImage {
    /// Which image; where it can't be read, why.
    pub key: Result<ImageKey, String>,
    /// The name as it was given.
    pub image: String,
    /// The platform as it was given.
    pub platform: Option<String>,
    /// Whether the tag is looked up again when the engine starts.
    pub always: bool,
}

impl DesiredImage {
    /// Reads a name and a platform, the host's where none is given.
    #[must_use]
    pub fn new(image: &str, platform: Option<&str>, always: bool) -> Self {
        let key = || -> Result<ImageKey, String> {
            let name = image.parse().map_err(|error: larder_oci::InvalidName| error.to_string())?;
            let platform = platform
                .map_or_else(|| Ok(Platform::host()), str::parse)
                .map_err(|error: larder_oci::InvalidPlatform| error.to_string())?;
            Ok(ImageKey { name, platform })
        };
        Self { key: key(), image: image.to_owned(), platform: platform.map(str::to_owned), always }
    }
}
