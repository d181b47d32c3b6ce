//! The annotations by which a layout says what its images are called: those of the layer store's `index.json`, so
//! that an archive unpacked is a store and a store packed is an archive.

/// <https://github.com/opencontainers/image-spec/blob/main/annotations.md>; skopeo, umoci and oras find images by it.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd, and docker on it, take the image's name from it.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The platform that the image was stored for.
pub(crate) const PLATFORM: &str = "dev.larder.platform";
/// The image index that the name stood for.
pub(crate) const INDEX_DIGEST: &str = "dev.larder.index.digest";
/// Its size in bytes.
pub(crate) const INDEX_SIZE: &str = "dev.larder.index.size";
/// Its media type.
pub(crate) const INDEX_MEDIA_TYPE: &str = "dev.larder.index.mediaType";
