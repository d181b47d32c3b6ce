//! Manifests and indexes, parsed from bytes that nobody vouches for.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;

use crate::{Digest, InvalidDigest};

/// The largest manifest or index that is read, in bytes. The distribution specification asks registries to accept
/// 4 MiB, and clients not to send more
/// (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests>).
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// `application/vnd.docker.distribution.manifest.v2+json`
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// `application/vnd.docker.distribution.manifest.list.v2+json`
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// `application/vnd.oci.image.manifest.v1+json`
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What to put into `Accept` when asking a registry for a manifest.
pub const ACCEPTED: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// A parsed manifest or index. The bytes it came from stay the truth: its digest is theirs.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// One image: a configuration and layers.
    Manifest(Box<ImageManifest>),
    /// Images for several platforms.
    Index(Box<ImageIndex>),
}

/// Why bytes are not a usable manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than [`MAX_MANIFEST_SIZE`].
    #[error("the manifest is larger than 4 MiB, the most that registries and clients exchange")]
    TooLarge,
    /// Not JSON, or not of a manifest's shape.
    #[error("the manifest is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Docker's first format, which docker itself no longer pulls.
    #[error(
        "the image is in Docker's obsolete schema 1 format; push it again with a current docker or skopeo"
    )]
    Schema1,
    /// A kind of document that is neither a manifest nor an index.
    #[error("unsupported media type {0:?}: it is neither an image manifest nor an image index")]
    UnsupportedMediaType(String),
    /// The document's own media type is not that of its content, or it looks like both kinds
    /// (<https://github.com/opencontainers/image-spec/security/advisories/GHSA-77vh-xpmg-72qh>).
    #[error("the manifest is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// A descriptor with a digest that can't be used.
    #[error("the manifest names a blob by an {0}")]
    Digest(#[from] InvalidDigest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses a manifest or an index.
    ///
    /// `content_type` is what the registry or the descriptor says; the document's own `mediaType` wins, as the
    /// specification has it, and where both are absent the content decides.
    ///
    /// # Errors
    /// [`ManifestError`]: in one sentence, what is wrong with it.
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MAX_MANIFEST_SIZE {
            return Err(ManifestError::TooLarge);
        }
        let probe: Probe = serde_json::from_slice(bytes)?;
        if probe.schema_version == Some(1) || probe.fs_layers.is_some() {
            return Err(ManifestError::Schema1);
        }
        let looks_like_image = probe.config.is_some() || probe.layers.is_some();
        if looks_like_image && probe.manifests.is_some() {
            return Err(ManifestError::Ambiguous("it has both layers and manifests"));
        }
        // Registries add parameters and answer with generic types; only a known type decides anything.
        let content_type = content_type.and_then(|text| text.split(';').next()).map(str::trim);
        let known = content_type.filter(|text| ACCEPTED.contains(text));
        let document = match probe.media_type.as_deref().or(known) {
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => Self::manifest(bytes)?,
            Some(OCI_INDEX | DOCKER_LIST) => Self::index(bytes)?,
            Some(other) => {
                return Err(ManifestError::UnsupportedMediaType(other.chars().take(100).collect()));
            }
            None if looks_like_image => Self::manifest(bytes)?,
            None if probe.manifests.is_some() => Self::index(bytes)?,
            None => {
                let text = content_type.unwrap_or("(none)").chars().take(100).collect();
                return Err(ManifestError::UnsupportedMediaType(text));
            }
        };
        for descriptor in document.descriptors() {
            Digest::try_from(descriptor.digest())?;
        }
        Ok(document)
    }

    fn manifest(bytes: &[u8]) -> Result<Self, ManifestError> {
        Ok(Self::Manifest(Box::new(serde_json::from_slice(bytes)?)))
    }

    fn index(bytes: &[u8]) -> Result<Self, ManifestError> {
        Ok(Self::Index(Box::new(serde_json::from_slice(bytes)?)))
    }

    /// All descriptors in the document: configuration and layers, or the manifests of an index.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, list) = match self {
            Self::Manifest(manifest) => (Some(manifest.config()), manifest.layers()),
            Self::Index(index) => (None, index.manifests()),
        };
        config.into_iter().chain(list)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn manifest(media_type: Option<&str>) -> serde_json::Value {
        let blob = |kind| serde_json::json!({"mediaType": kind, "digest": A, "size": 3});
        let mut value = serde_json::json!({
            "schemaVersion": 2,
            "config": blob("application/vnd.oci.image.config.v1+json"),
            "layers": [blob("application/vnd.oci.image.layer.v1.tar+gzip")],
        });
        if let Some(media_type) = media_type {
            value["mediaType"] = media_type.into();
        }
        value
    }

    fn parse(content_type: Option<&str>, value: &serde_json::Value) -> Result<Document, ManifestError> {
        Document::parse(content_type, value.to_string().as_bytes())
    }

    #[test]
    fn the_documents_own_type_wins_then_the_headers_then_the_content() {
        for (own, header) in [
            (Some(OCI_MANIFEST), Some(OCI_INDEX)),
            (Some(DOCKER_MANIFEST), None),
            (None, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")),
            (None, Some("application/json")),
            (None, None),
        ] {
            let document = parse(header, &manifest(own)).unwrap();
            assert_eq!(document.descriptors().count(), 2, "{own:?} {header:?}");
            assert!(matches!(document, Document::Manifest(_)));
        }
        let index = serde_json::json!({"schemaVersion": 2, "manifests": []});
        assert!(matches!(parse(None, &index).unwrap(), Document::Index(_)));
    }

    #[test]
    fn each_kind_of_bad_manifest_has_its_own_error() {
        let schema1 = serde_json::json!({"schemaVersion": 1, "fsLayers": [], "name": "x"});
        assert!(matches!(parse(None, &schema1), Err(ManifestError::Schema1)));
        let mut both = manifest(None);
        both["manifests"] = serde_json::json!([]);
        assert!(matches!(parse(None, &both), Err(ManifestError::Ambiguous(_))));
        let other = manifest(Some("application/pdf"));
        assert!(matches!(parse(None, &other), Err(ManifestError::UnsupportedMediaType(_))));
        let mut digest = manifest(None);
        digest["layers"][0]["digest"] = "sha256:../../etc/passwd".into();
        assert!(parse(None, &digest).is_err());
        assert!(matches!(Document::parse(None, b"<html>"), Err(ManifestError::Malformed(_))));
        assert!(matches!(Document::parse(None, b"{}"), Err(ManifestError::UnsupportedMediaType(_))));
        let large = vec![b' '; usize::try_from(MAX_MANIFEST_SIZE).unwrap() + 1];
        assert!(matches!(Document::parse(None, &large), Err(ManifestError::TooLarge)));
        let deep = "[".repeat(1 << 20);
        assert!(matches!(Document::parse(None, deep.as_bytes()), Err(ManifestError::Malformed(_))));
        let negative = serde_json::json!({"schemaVersion": 2, "layers": [], "config":
            {"mediaType": "a/b", "digest": A, "size": -1}});
        assert!(matches!(parse(None, &negative), Err(ManifestError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Document::parse(None, &bytes);
        }
    }
}
