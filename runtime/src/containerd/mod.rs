//! containerd, through its own API.
//!
//! What Larder does here is what containerd's own client and its CRI plugin do when kubelet pulls an image, with the layer
//! store in the place of the registry: the same content with the same labels, the same snapshots, the same names. Sources
//! followed: <https://github.com/containerd/containerd/tree/v2.2.1/client>,
//! <https://github.com/containerd/containerd/tree/v2.2.1/internal/cri>, and the same of version 1.7.
//!
//! **Architecture Invariant:** nothing is relied upon before a lease keeps it: first the lease, then the look.

mod annex;
mod client;
mod content;
mod deliver;
mod events;
mod ingest;
mod leases;
mod list;
mod observe;
mod outgoing;
mod records;
mod unpack;
mod withdraw;

use std::sync::Arc;

use larder_oci::{ImageKey, Platform};
use tokio::sync::OnceCell;

use self::{annex::ContentStore, client::Client, events::Events, unpack::Locks};
use crate::{Containers, Description, RuntimeError, api::cri::ImageFsInfoRequest, cri::Cri, users};

/// How containerd calls itself in `/`-separated paths of its snapshotters.
const SNAPSHOTTERS: &str = "io.containerd.snapshotter.v1.";
/// What the CRI plugin uses where it is not told otherwise, and what `ctr` does.
const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// A containerd.
#[derive(Debug)]
pub(crate) struct Containerd {
    client: Client,
    /// Its CRI plugin.
    cri: Cri,
    snapshotter: OnceCell<String>,
    /// Layers that this process is unpacking.
    unpacking: Locks,
    events: Events,
    /// What images are, that were listed before.
    known: list::Known,
}

impl Containerd {
    /// The containerd whose CRI plugin this is. Connects with the first call.
    pub(crate) fn new(cri: Cri) -> Self {
        let client = Client::new(cri.endpoint(), cri.channel());
        let events = Events::new(client.clone());
        Self {
            client,
            cri,
            snapshotter: OnceCell::new(),
            unpacking: Locks::default(),
            events,
            known: list::Known::default(),
        }
    }

    /// Its name and version.
    pub(crate) async fn describe(&self) -> Result<Description, RuntimeError> {
        let mut client = self.client.version();
        let found = self.client.call("say its version", client.version(())).await?;
        Ok(Description { name: "containerd".to_owned(), version: found.version, interface: "containerd" })
    }

    /// Its content store, for the layer store to read handed-over layers from.
    pub(crate) fn annex(&self) -> Arc<dyn larder_store::Annex> {
        Arc::new(ContentStore::new(self.client.clone()))
    }

    /// Whether it is given images for this platform: those that this machine runs.
    pub(crate) fn takes(key: &ImageKey) -> bool {
        !key.name.is_nameless() && Platform::host().runs(&key.platform)
    }

    /// All containers.
    pub(crate) async fn containers(&self) -> Result<Containers, RuntimeError> {
        users::on_containerd(&self.cri).await
    }

    /// Waits until something happened that may matter.
    pub(crate) async fn changed(&self) {
        self.events.changed().await;
    }

    /// The snapshotter that kubelet's containers use. The CRI plugin tells by the folder whose free space it reports.
    async fn snapshotter(&self) -> Result<&str, RuntimeError> {
        let find = || async {
            let mut client = self.client.cri_images();
            let asked = client.image_fs_info(ImageFsInfoRequest::default());
            let systems = match self.client.call("say where images are unpacked", asked).await {
                Ok(answer) => answer.image_filesystems,
                // Without the CRI plugin there is nobody whose habit to follow.
                Err(RuntimeError::Unsupported(_)) => Vec::new(),
                Err(error) => return Err(error),
            };
            let mounts = systems.into_iter().filter_map(|system| system.fs_id).map(|id| id.mountpoint);
            Ok(snapshotter_of(mounts).unwrap_or_else(|| DEFAULT_SNAPSHOTTER.to_owned()))
        };
        Ok(self.snapshotter.get_or_try_init(find).await?.as_str())
    }
}

/// The first is the default one's (`internal/cri/server/images/imagefs_info.go`).
fn snapshotter_of(mut mounts: impl Iterator<Item = String>) -> Option<String> {
    let first = mounts.next()?;
    let (_, name) = first.rsplit_once(SNAPSHOTTERS)?;
    let name = name.split('/').next().filter(|name| !name.is_empty())?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshotter_is_told_by_its_folder() {
        let of = |mounts: &[&str]| snapshotter_of(mounts.iter().map(|&mount| mount.to_owned()));
        let overlayfs = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs";
        assert_eq!(of(&[overlayfs, "/x/io.containerd.snapshotter.v1.zfs"]).as_deref(), Some("overlayfs"));
        assert_eq!(of(&["/x/io.containerd.snapshotter.v1.stargz/"]).as_deref(), Some("stargz"));
        assert_eq!(of(&["/var/lib/soci"]), None);
        assert_eq!(of(&[]), None);
    }
}
