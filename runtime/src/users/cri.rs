//! Containers as CRI lists them.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::Digest;

use super::{Container, Containers, digest_of, user};
use crate::{
    RuntimeError,
    api::cri::{self, ContainerState},
    cri::Cri,
};

/// Asks for all containers, and for the images, since on CRI-O a container names its image by an ID that need not be the
/// configuration's digest.
pub(crate) async fn over_cri(cri: &Cri) -> Result<Containers, RuntimeError> {
    let containers = cri.list_containers().await?;
    let aliases = aliases(&cri.list_images().await?);
    Ok(Containers::new(containers.iter().map(|found| container(found, &aliases)).collect()))
}

/// The digests that each image goes by, by its ID.
pub(super) fn aliases(images: &[cri::Image]) -> BTreeMap<String, BTreeSet<Digest>> {
    let digests = |image: &cri::Image| image.repo_digests.iter().filter_map(|name| digest_of(name)).collect();
    images.iter().map(|image| (image.id.clone(), digests(image))).collect()
}

pub(super) fn container(found: &cri::Container, aliases: &BTreeMap<String, BTreeSet<Digest>>) -> Container {
    let named = found.image.as_ref().map(|spec| spec.image.as_str()).unwrap_or_default();
    let references = [found.image_id.as_str(), found.image_ref.as_str(), named];
    let mut digests: BTreeSet<Digest> = references.into_iter().filter_map(digest_of).collect();
    digests.extend(references.iter().filter_map(|id| aliases.get(*id)).flatten().cloned());
    let name = found.metadata.as_ref().map(|metadata| metadata.name.as_str());
    let running = found.state() == ContainerState::ContainerRunning;
    Container { user: user(&found.id, &found.labels, name, running), digests, chain: None }
}
