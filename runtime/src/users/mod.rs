//! Which containers were made from an image: what is known of them, and the comparison, which is pure.

mod containerd;
mod cri;

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::Digest;

use crate::{Image, Listed, Pod, User, listed::Traces};

pub(crate) use containerd::on_containerd;
pub(crate) use cri::over_cri;

/// The labels that kubelet puts on containers
/// (<https://github.com/kubernetes/kubernetes/blob/v1.35.4/staging/src/k8s.io/kubelet/pkg/types/labels.go>).
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// One look at all containers of a runtime, running or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Containers {
    containers: Vec<Container>,
}

/// A container, and what tells of the image that it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) user: User,
    /// Digests that the image goes by: its configuration's, its manifest's, its index's.
    pub(crate) digests: BTreeSet<Digest>,
    /// The chain ID of the unpacked layers that its own file system lies on
    /// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#layer-chainid>). Known where the digests may be
    /// those of another image by now, and decides then.
    pub(crate) chain: Option<Digest>,
}

impl Containers {
    pub(crate) fn new(containers: Vec<Container>) -> Self {
        Self { containers }
    }

    /// The containers that were made from an image, each once, in the order of their pods and names.
    #[must_use]
    pub fn made_from(&self, image: &Image) -> Vec<User> {
        let mut digests = BTreeSet::from([image.target.clone()]);
        digests.extend(
            [&image.manifest, &image.config].into_iter().filter_map(|d| Digest::try_from(d.digest()).ok()),
        );
        let chain = chain_id(&image.diff_ids);
        let users: BTreeSet<&User> = self
            .containers
            .iter()
            .filter(|container| match (&container.chain, &chain) {
                (Some(theirs), Some(ours)) => theirs == ours,
                _ => !container.digests.is_disjoint(&digests),
            })
            .map(|container| &container.user)
            .collect();
        users.into_iter().cloned().collect()
    }
}

impl Containers {
    /// The containers that were made from an image that the runtime lists, each once, in the order of their pods and names.
    #[must_use]
    pub fn using(&self, image: &Listed) -> Vec<User> {
        let Traces { digests, chains } = &image.traces;
        let is_of = |container: &&Container| match &container.chain {
            Some(chain) if !chains.is_empty() => chains.contains(chain),
            _ => !container.digests.is_disjoint(digests),
        };
        let users: BTreeSet<&User> =
            self.containers.iter().filter(is_of).map(|container| &container.user).collect();
        users.into_iter().cloned().collect()
    }
}

/// Who a container is, from its labels.
fn user(id: &str, labels: &BTreeMap<String, String>, name: Option<&str>, running: bool) -> User {
    let label = |key| labels.get(key).filter(|value| !value.is_empty()).cloned();
    let pod = label(POD_NAME)
        .map(|name| Pod { namespace: label(POD_NAMESPACE).unwrap_or_else(|| "default".to_owned()), name });
    let name = label(CONTAINER_NAME).or_else(|| name.map(str::to_owned)).filter(|name| !name.is_empty());
    let container = name.filter(|_| pod.is_some()).unwrap_or_else(|| id.to_owned());
    User { pod, container, id: id.to_owned(), running }
}

/// The digest in an ID as a runtime writes it: `sha256:…`, the bare digits (CRI-O), or `repository@sha256:…`. `None` for a
/// name, which may stand for another image by now.
pub(crate) fn digest_of(reference: &str) -> Option<Digest> {
    let digest = reference.rsplit_once('@').map_or(reference, |(_, digest)| digest);
    let bare = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if bare { format!("sha256:{digest}").parse().ok() } else { digest.parse().ok() }
}

/// The chain ID of all layers together. `None` where there are none.
fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let mut diff_ids = diff_ids.iter();
    let first = diff_ids.next()?.clone();
    Some(diff_ids.fold(first, |chain, diff_id| Digest::sha256(format!("{chain} {diff_id}").as_bytes())))
}

#[cfg(test)]
mod tests;
