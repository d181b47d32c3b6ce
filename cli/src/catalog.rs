//! What the store holds, as docker's users know it: images with an ID, names and a configuration.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use larder_oci::{Digest, Document, ImageName, Platform, manifest::MAX_MANIFEST_SIZE, spec::ImageManifest};
use larder_store::{Claim, Store, StoredImage};

use crate::{
    Failure,
    config::{ImageConfig, MAX_CONFIG_SIZE},
};

/// The configurations of images; what has another is an artifact.
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Everything in the store at one moment, in the order in which it was put there.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// One record a name and platform.
    pub records: Vec<Record>,
}

/// One name of an image for one platform. Images with several names have several records with the same ID.
#[derive(Debug, Clone)]
pub struct Record {
    /// What the store says of it.
    pub stored: StoredImage,
    /// The image's ID: its configuration's digest, as docker and the CRI have it; for artifacts, whose
    /// configurations are often all alike, the manifest's digest.
    pub id: Digest,
    /// What manifest and configuration say.
    pub content: Arc<Content>,
}

/// What an image's manifest and configuration say.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// The manifest, unless it cannot be read.
    pub manifest: Option<ImageManifest>,
    /// The configuration; empty if it cannot be read.
    pub config: ImageConfig,
    /// All blobs with their sizes in bytes: manifest, configuration, layers.
    pub blobs: BTreeMap<Digest, u64>,
    /// Why it cannot be read, if it cannot.
    pub problem: Option<String>,
}

impl Content {
    /// Bytes that it takes, each blob counted once.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blobs.values().fold(0, |sum, size| sum.saturating_add(*size))
    }

    /// When the image was made, if it says so.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.config.created.parse().ok()
    }
}

impl Record {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &ImageName {
        &self.stored.key.name
    }

    /// The platform that it was stored for.
    #[must_use]
    pub fn platform(&self) -> &Platform {
        &self.stored.key.platform
    }

    /// The repository as docker shows it; `<none>` if it has none.
    #[must_use]
    pub fn repository(&self) -> &str {
        if self.name().is_nameless() { "<none>" } else { self.name().familiar_repository() }
    }

    /// The tag as docker shows it; `<none>` if it has none.
    #[must_use]
    pub fn tag(&self) -> &str {
        if self.name().digest().is_some() { "<none>" } else { self.name().tag().unwrap_or("<none>") }
    }

    /// Whether the name is a tag, and not a digest or none.
    #[must_use]
    pub fn is_tagged(&self) -> bool {
        self.name().digest().is_none()
    }

    /// `repository@digest`, which a registry knows the image by; `None` for an image without a name.
    #[must_use]
    pub fn repo_digest(&self) -> Option<String> {
        let name = self.name();
        (!name.is_nameless()).then(|| format!("{}@{}", name.familiar_repository(), self.stored.target))
    }

    /// Whether the node's agent looks after it.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.stored.claim != Claim::None
    }
}

/// What a user's text stands for.
#[derive(Debug, Clone)]
pub enum Found<'a> {
    /// A name with a tag: its records, one a platform.
    Name(Vec<&'a Record>),
    /// A repository and a digest: all records of that repository with the digest.
    Pinned(Vec<&'a Record>),
    /// An ID or the beginning of one: all records of one image.
    Id(Vec<&'a Record>),
}

impl<'a> Found<'a> {
    /// The records.
    #[must_use]
    pub fn records(&self) -> &[&'a Record] {
        match self {
            Self::Name(records) | Self::Pinned(records) | Self::Id(records) => records,
        }
    }

    /// The record for a platform: the one asked for, else this machine's, else the first.
    pub fn one(&self, platform: Option<&Platform>, what: &str) -> Result<&'a Record, Failure> {
        let records = self.records();
        let with = |wanted: &Platform| {
            let exact = records.iter().find(|record| record.platform() == wanted);
            exact.or_else(|| records.iter().find(|record| wanted.runs(record.platform()))).copied()
        };
        match platform {
            Some(wanted) => with(wanted).ok_or_else(|| {
                Failure::response(format_args!(
                    "image with reference {what} was found but does not provide the specified platform ({wanted})"
                ))
            }),
            None => with(&Platform::host())
                .or_else(|| records.first().copied())
                .ok_or_else(|| Failure::no_such_image(what)),
        }
    }
}

impl Catalog {
    /// Reads everything.
    pub fn read(store: &Store) -> Result<Self, Failure> {
        let mut known: HashMap<Digest, (Digest, Arc<Content>)> = HashMap::new();
        let mut records = Vec::new();
        for stored in store.images()? {
            let (id, content) =
                known.entry(stored.manifest_digest.clone()).or_insert_with(|| read(store, &stored)).clone();
            records.push(Record { stored, id, content });
        }
        Ok(Self { records })
    }

    /// Finds what a text stands for, as docker does: a whole ID, else a name, else the beginning of an ID.
    pub fn find(&self, text: &str) -> Result<Found<'_>, Failure> {
        let bare = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let whole = if bare { format!("sha256:{text}") } else { text.to_owned() };
        if let Ok(digest) = whole.parse::<Digest>() {
            return self.with_digest(&digest).map(Found::Id).ok_or_else(|| Failure::no_such_image(text));
        }
        let name = text.parse::<ImageName>();
        if let Ok(name) = &name {
            let records = self.with_name(name);
            if !records.is_empty() {
                let pinned = name.digest().is_some();
                return Ok(if pinned { Found::Pinned(records) } else { Found::Name(records) });
            }
        }
        if let Some(records) = self.with_prefix(text)? {
            return Ok(Found::Id(records));
        }
        match name {
            Ok(name) if name.is_nameless() => Err(Failure::no_such_image(text)),
            Ok(name) => Err(Failure::no_such_image(name.familiar())),
            Err(error) => Err(Failure::new(error)),
        }
    }

    /// All records of an image.
    pub fn with_id<'a>(&'a self, id: &'a Digest) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |record| record.id == *id)
    }

    /// Whether any name of the image is a tag.
    #[must_use]
    pub fn is_tagged(&self, id: &Digest) -> bool {
        self.with_id(id).any(Record::is_tagged)
    }

    /// IDs, and beside them, as docker's containerd store has it, the digests that registries know images by.
    fn with_digest(&self, digest: &Digest) -> Option<Vec<&Record>> {
        let matches = |record: &&Record| {
            record.id == *digest
                || record.stored.target == *digest
                || record.stored.manifest_digest == *digest
        };
        let found = self.records.iter().filter(|record| record.id == *digest).collect::<Vec<_>>();
        let found = if found.is_empty() { self.records.iter().filter(matches).collect() } else { found };
        (!found.is_empty()).then_some(found)
    }

    fn with_name(&self, name: &ImageName) -> Vec<&Record> {
        match name.digest() {
            None => self.records.iter().filter(|record| record.name() == name).collect(),
            Some(digest) => self
                .records
                .iter()
                .filter(|record| {
                    let other = record.name();
                    let same = (other.registry(), other.repository()) == (name.registry(), name.repository());
                    same && (record.stored.target == *digest || record.stored.manifest_digest == *digest)
                })
                .collect(),
        }
    }

    fn with_prefix(&self, text: &str) -> Result<Option<Vec<&Record>>, Failure> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty() || !prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let ids: BTreeSet<&Digest> = self
            .records
            .iter()
            .map(|record| &record.id)
            .filter(|id| id.algorithm_name() == "sha256" && id.hex().starts_with(prefix))
            .collect();
        let mut ids = ids.into_iter();
        match (ids.next(), ids.next()) {
            (None, _) => Ok(None),
            (Some(id), None) => Ok(Some(self.with_id(id).collect())),
            _ => Err(Failure::response(format_args!(
                "Multiple IDs found with provided prefix: {prefix}; write more of it"
            ))),
        }
    }
}

fn read(store: &Store, stored: &StoredImage) -> (Digest, Arc<Content>) {
    match try_read(store, stored) {
        Ok((id, content)) => (id, Arc::new(content)),
        Err(problem) => {
            let content = Content { problem: Some(problem), ..Content::default() };
            (stored.manifest_digest.clone(), Arc::new(content))
        }
    }
}

fn try_read(store: &Store, stored: &StoredImage) -> Result<(Digest, Content), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let bytes = store.read_blob(&stored.manifest_digest, MAX_MANIFEST_SIZE).map_err(|error| text(&error))?;
    let document = Document::parse(Some(stored.manifest.media_type().as_ref()), &bytes);
    let Document::Manifest(manifest) = document.map_err(|error| text(&error))? else {
        return Err("it is an index where a manifest is expected".to_owned());
    };
    let config_digest = Digest::try_from(manifest.config().digest()).map_err(|error| text(&error))?;
    let mut blobs = BTreeMap::from([(stored.manifest_digest.clone(), stored.manifest.size())]);
    for descriptor in std::iter::once(manifest.config()).chain(manifest.layers()) {
        blobs.insert(Digest::try_from(descriptor.digest()).map_err(|error| text(&error))?, descriptor.size());
    }
    let is_image = IMAGE_CONFIGS.contains(&manifest.config().media_type().as_ref());
    let id = if is_image { config_digest.clone() } else { stored.manifest_digest.clone() };
    let mut content = Content { manifest: Some(*manifest), blobs, ..Content::default() };
    if is_image {
        match store.read_blob(&config_digest, MAX_CONFIG_SIZE) {
            Ok(bytes) => content.config = ImageConfig::parse(&bytes),
            Err(error) => content.problem = Some(text(&error)),
        }
    }
    Ok((id, content))
}
