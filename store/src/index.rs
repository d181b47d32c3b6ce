//! `index.json`: which images there are.
//!
//! One descriptor an image, that is, a name and a platform. It points at the platform's manifest and not at the
//! image index that the name may stand for: most tools give up on an index of which only one platform's manifest is
//! there. Descriptors that other tools wrote are kept as they are, to the byte.

use std::collections::{BTreeMap, HashMap};

use larder_oci::{Digest, ImageKey, spec::Descriptor};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    Claim, StoredImage,
    error::{Result, StoreError},
    layout::{Layout, read_bounded},
    lock::ExclusiveLock,
};

/// <https://github.com/opencontainers/image-spec/blob/main/annotations.md>; skopeo, umoci and oras find images by it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's import takes the image's name from it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The platform that the image was stored for: with the name, what tells images apart.
const PLATFORM: &str = "dev.larder.platform";
const INDEX_DIGEST: &str = "dev.larder.index.digest";
const INDEX_SIZE: &str = "dev.larder.index.size";
const INDEX_MEDIA_TYPE: &str = "dev.larder.index.mediaType";
const CLAIM: &str = "dev.larder.claim";
/// The agent has given the image this name beside its own.
const FURTHER: &str = "dev.larder.further";

/// The largest index that is read, in bytes: some ten thousand images.
const MAX_SIZE: u64 = 64 << 20;
const ADVICE: &str = "it lists the store's images, and until it is mended nothing is deleted; restore it from a \
    copy, or start without images by writing {\"schemaVersion\":2,\"manifests\":[]} into it and pull them again, \
    which fetches only blobs that are missing";

/// The parsed file.
pub(crate) struct Index {
    /// The fields beside `manifests`.
    fields: BTreeMap<String, Box<RawValue>>,
    /// The descriptors in their order.
    pub(crate) entries: Vec<Entry>,
}

/// One descriptor.
pub(crate) struct Entry {
    raw: Box<RawValue>,
    /// What it says, if it is one of ours.
    pub(crate) image: Option<StoredImage>,
}

impl Index {
    /// Reads the file. It is only ever replaced as a whole, so no lock is needed.
    pub(crate) fn read(layout: &Layout) -> Result<Self> {
        let path = layout.index();
        let corrupt = |why: String| StoreError::Corrupt { path: path.clone(), why, advice: ADVICE };
        let bytes = read_bounded(&path, MAX_SIZE)?.ok_or_else(|| corrupt("it does not exist".to_owned()))?;
        Self::parse(&bytes).map_err(corrupt)
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let text = |error: serde_json::Error| error.to_string();
        let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(bytes).map_err(text)?;
        if fields.get("schemaVersion").is_none_or(|version| version.get() != "2") {
            return Err("its schemaVersion is not 2".to_owned());
        }
        let manifests = fields.remove("manifests").ok_or("it has no manifests field")?;
        let raw: Option<Vec<Box<RawValue>>> = serde_json::from_str(manifests.get()).map_err(text)?;
        // Go programs write an empty list as null.
        let entries = raw.unwrap_or_default().into_iter().map(Entry::new).collect();
        Ok(Self { fields, entries })
    }

    /// Replaces the file, durably.
    pub(crate) fn write(&self, layout: &Layout, lock: &ExclusiveLock) -> Result<()> {
        let entries: Vec<&RawValue> = self.entries.iter().map(|entry| &*entry.raw).collect();
        let mut fields: BTreeMap<&str, Box<RawValue>> =
            self.fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let bytes = to_raw_value(&entries).and_then(|entries| {
            fields.insert("manifests", entries);
            serde_json::to_vec(&fields)
        });
        let bytes = bytes.map_err(|error| StoreError::io("serialise", &layout.index())(error.into()))?;
        layout.replace(lock, "index.json", &bytes)?;
        layout.keep_spare(lock, "index.json", bytes.len());
        Ok(())
    }

    /// Our images.
    pub(crate) fn images(self) -> impl Iterator<Item = StoredImage> {
        self.entries.into_iter().filter_map(|entry| entry.image)
    }

    /// Puts an image in the place of the one with the same key. False if nothing changes by that.
    pub(crate) fn put(&mut self, image: StoredImage) -> Result<bool> {
        let mut same = self.entries.iter().filter(|entry| entry.is(&image.key));
        if same.next().is_some_and(|entry| entry.image.as_ref() == Some(&image)) && same.next().is_none() {
            return Ok(false);
        }
        let raw = raw(&describe(&image, HashMap::new()))?;
        self.remove(&image.key);
        self.entries.push(Entry { raw, image: Some(image) });
        Ok(true)
    }

    /// Takes an image out. False if it is not there.
    pub(crate) fn remove(&mut self, key: &ImageKey) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !entry.is(key));
        self.entries.len() < before
    }

    /// Changes the claim on an image; what others may have added to its descriptor stays. False if nothing changes.
    pub(crate) fn set_claim(&mut self, key: &ImageKey, claim: Claim) -> Result<bool> {
        let mut changed = false;
        for entry in self.entries.iter_mut().filter(|entry| entry.is(key)) {
            let Some(image) = entry.image.as_mut().filter(|image| image.claim != claim) else { continue };
            image.claim = claim;
            let annotations = entry.descriptor().and_then(|descriptor| descriptor.annotations().clone());
            if let Some(image) = &entry.image {
                entry.raw = raw(&describe(image, annotations.unwrap_or_default()))?;
                changed = true;
            }
        }
        Ok(changed)
    }
}

impl Entry {
    fn new(raw: Box<RawValue>) -> Self {
        let mut entry = Self { raw, image: None };
        entry.image = entry.descriptor().as_ref().and_then(understand);
        entry
    }

    /// The descriptor, if it is one.
    pub(crate) fn descriptor(&self) -> Option<Descriptor> {
        serde_json::from_str(self.raw.get()).ok()
    }

    /// The JSON text as it stands in the file.
    pub(crate) fn text(&self) -> &str {
        self.raw.get()
    }

    fn is(&self, key: &ImageKey) -> bool {
        self.image.as_ref().is_some_and(|image| image.key == *key)
    }
}

fn raw(descriptor: &Descriptor) -> Result<Box<RawValue>> {
    // By way of a value, whose maps are sorted: the same image is always the same text.
    serde_json::to_value(descriptor)
        .and_then(|value| to_raw_value(&value))
        .map_err(|error| StoreError::io("describe", std::path::Path::new("index.json"))(error.into()))
}

/// What a descriptor of ours says; `None` for one that lacks any of our annotations.
fn understand(descriptor: &Descriptor) -> Option<StoredImage> {
    let annotations = descriptor.annotations().as_ref()?;
    let key = ImageKey {
        name: annotations.get(REF_NAME)?.parse().ok()?,
        platform: annotations.get(PLATFORM)?.parse().ok()?,
    };
    let index = match annotations.get(INDEX_DIGEST) {
        None => None,
        Some(digest) => {
            let digest: larder_oci::spec::Digest = digest.parse().ok()?;
            let size = annotations.get(INDEX_SIZE)?.parse().ok()?;
            Some(Descriptor::new(annotations.get(INDEX_MEDIA_TYPE)?.as_str().into(), size, digest))
        }
    };
    let claim = annotations.get(CLAIM).map_or(Claim::None, |text| Claim::from_annotation(text));
    let image = StoredImage::new(key, descriptor, index.as_ref(), claim).ok()?;
    Some(StoredImage { further: annotations.contains_key(FURTHER), ..image })
}

/// The descriptor of an image, with `annotations` beside ours.
fn describe(image: &StoredImage, mut annotations: HashMap<String, String>) -> Descriptor {
    annotations.insert(REF_NAME.to_owned(), image.key.name.to_string());
    annotations.insert(CONTAINERD_NAME.to_owned(), image.key.name.to_string());
    annotations.insert(PLATFORM.to_owned(), image.key.platform.to_string());
    if let Some(index) = &image.index {
        annotations.insert(INDEX_DIGEST.to_owned(), index.digest().to_string());
        annotations.insert(INDEX_SIZE.to_owned(), index.size().to_string());
        annotations.insert(INDEX_MEDIA_TYPE.to_owned(), index.media_type().to_string());
    }
    match image.claim.annotation() {
        Some(claim) => annotations.insert(CLAIM.to_owned(), claim.to_owned()),
        None => annotations.remove(CLAIM),
    };
    if image.further {
        annotations.insert(FURTHER.to_owned(), "true".to_owned());
    } else {
        annotations.remove(FURTHER);
    }
    let mut descriptor = image.manifest.clone();
    descriptor.set_annotations(Some(annotations));
    descriptor
}

/// Every digest that is written out in a text, wherever it stands.
pub(crate) fn digests_in(text: &[u8]) -> Vec<Digest> {
    let mut digests = Vec::new();
    for (start, length) in (0..text.len()).filter_map(|start| match text.get(start..start + 7)? {
        b"sha256:" => Some((start, 7 + 64)),
        b"sha512:" => Some((start, 7 + 128)),
        _ => None,
    }) {
        let candidate = text.get(start..start + length).and_then(|bytes| std::str::from_utf8(bytes).ok());
        digests.extend(candidate.and_then(|text| text.parse::<Digest>().ok()));
    }
    digests
}
