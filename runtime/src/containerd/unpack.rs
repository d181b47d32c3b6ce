//! Unpacking layers into the node's snapshotter, as containerd's own client does
//! (<https://github.com/containerd/containerd/blob/v2.2.1/core/unpack/unpacker.go>).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use larder_oci::{Digest, spec::Descriptor};
use larder_store::StoreError;
use tokio::sync::OwnedMutexGuard;

use super::{
    client::{Answer, Client, leased, request},
    leases::{self, Temporary},
};
use crate::{
    Image, Layers, RuntimeError,
    api::{
        diff::{ApplyRequest, ApplyResponse},
        snapshots::{
            CommitSnapshotRequest, Kind, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
        },
        types::{self, Mount},
    },
};

/// The label by which a snapshotter learns what a snapshot will be, in case it has that already.
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Annotations of layers that snapshotters want to see.
const INHERITED: &str = "containerd.io/snapshot/";
/// The label of a blob that tells its digest when unpacked.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// How often an unpacked layer that goes at once is made anew.
const ATTEMPTS: u32 = 3;

/// What is being unpacked.
pub(super) struct Unpacking<'a> {
    pub(super) image: &'a Image,
    pub(super) snapshotter: &'a str,
    /// The image's lease.
    pub(super) lease: &'a str,
    /// Which layers containerd has.
    pub(super) content: Layers,
}

/// The chain ID of each layer, the lowest first
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#layer-chainid>).
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

/// Whether containerd can unpack a layer of this media type
/// (<https://github.com/containerd/containerd/blob/v2.2.1/core/images/mediatypes.go>).
pub(super) fn is_layer(media_type: &str) -> bool {
    let (base, suffix) = media_type.split_once('+').unwrap_or((media_type, ""));
    if let Some(kind) = base.strip_prefix("application/vnd.docker.image.rootfs.") {
        let kind = kind.strip_prefix("foreign.").unwrap_or(kind);
        return suffix.is_empty() && matches!(kind, "diff.tar" | "diff.tar.gzip" | "diff.tar.zstd");
    }
    let kind = base.strip_prefix("application/vnd.oci.image.layer.");
    matches!(kind, Some("v1.tar" | "nondistributable.v1.tar")) && matches!(suffix, "" | "gzip" | "zstd")
}

impl Client {
    /// Unpacks an image's layers, each as soon as containerd has it. `locks` keeps two deliveries of this process from
    /// unpacking the same layer twice.
    pub(super) async fn unpack(&self, unpacking: &Unpacking<'_>, locks: &Locks) -> Result<(), RuntimeError> {
        let chain = chain_ids(&unpacking.image.diff_ids);
        let Some(top) = chain.last() else { return Ok(()) };
        let Unpacking { snapshotter, lease, .. } = *unpacking;
        for _ in 0..ATTEMPTS {
            if self.keep_snapshot(lease, snapshotter, top).await? {
                return Ok(());
            }
            // What is half done is not to outlive this, as the image's lease does.
            let temporary = Temporary::new(self).await?;
            let done = self.unpack_layers(unpacking, &chain, temporary.id(), locks).await;
            let kept = match done {
                Ok(()) => self.keep_snapshot(lease, snapshotter, top).await,
                // Nobody would hear that the temporary lease ends.
                Err(error @ RuntimeError::Unreachable { .. }) => return Err(error),
                Err(error) => Err(error),
            };
            let ended = temporary.end().await;
            if kept? {
                return ended;
            }
        }
        let what = format!("unpack image {}", unpacking.image.key.name);
        Err(RuntimeError::Refused {
            what,
            cause: "its unpacked layers go as soon as they are there".to_owned(),
        })
    }

    async fn unpack_layers(
        &self,
        unpacking: &Unpacking<'_>,
        chain: &[Digest],
        lease: &str,
        locks: &Locks,
    ) -> Result<(), RuntimeError> {
        let Unpacking { image, snapshotter, .. } = *unpacking;
        let mut first = chain.len();
        while first > 0 && !self.keep_snapshot(lease, snapshotter, &chain[first - 1]).await? {
            first -= 1;
        }
        for (number, layer) in image.layers.iter().enumerate().skip(first) {
            let digest = Digest::try_from(layer.digest()).map_err(StoreError::from)?;
            if !unpacking.content.wait_for(&digest).await {
                return Err(RuntimeError::Interrupted);
            }
            let _alone = locks.lock(&chain[number]).await;
            let layer = Layer {
                descriptor: layer,
                snapshotter,
                parent: number.checked_sub(1).map(|below| &chain[below]),
                diff_id: &image.diff_ids[number],
                chain_id: &chain[number],
                lease,
            };
            self.unpack_layer(&layer).await?;
        }
        Ok(())
    }

    async fn unpack_layer(&self, layer: &Layer<'_>) -> Result<(), RuntimeError> {
        for _ in 0..ATTEMPTS {
            if self.keep_snapshot(layer.lease, layer.snapshotter, layer.chain_id).await? {
                return Ok(());
            }
            let key = format!("extract-larder-{:016x} {}", fastrand::u64(..), layer.chain_id);
            let Some(mounts) = self.prepare(layer, &key).await? else { continue };
            let done = self.apply_and_commit(layer, &key, mounts).await;
            if !matches!(done, Ok(true) | Err(RuntimeError::Unreachable { .. })) {
                let message = RemoveSnapshotRequest { snapshotter: layer.snapshotter.to_owned(), key };
                // Where this fails as well, the temporary lease's end takes it.
                self.attempt("clean up", self.snapshots().remove(request(message))).await.ok();
            }
            if done? {
                return Ok(());
            }
        }
        let cause = "somebody else seems to unpack it, and it never comes".to_owned();
        Err(RuntimeError::Refused { what: layer.what(), cause })
    }

    /// `None`: somebody else has unpacked it.
    async fn prepare(&self, layer: &Layer<'_>, key: &str) -> Result<Option<Vec<Mount>>, RuntimeError> {
        let message = PrepareSnapshotRequest {
            snapshotter: layer.snapshotter.to_owned(),
            key: key.to_owned(),
            parent: layer.parent.map(ToString::to_string).unwrap_or_default(),
            labels: layer.labels(),
        };
        match self.attempt(&layer.what(), self.snapshots().prepare(leased(layer.lease, message))).await? {
            Answer::Done(prepared) => Ok(Some(prepared.mounts)),
            Answer::AlreadyExists => Ok(None),
            Answer::NotFound => {
                let cause = "what lies below it is not there any more".to_owned();
                Err(RuntimeError::Refused { what: layer.what(), cause })
            }
        }
    }

    /// False: somebody else was faster.
    async fn apply_and_commit(
        &self,
        layer: &Layer<'_>,
        key: &str,
        mounts: Vec<Mount>,
    ) -> Result<bool, RuntimeError> {
        let what = layer.what();
        let message = ApplyRequest { diff: Some(descriptor(layer.descriptor)), mounts, sync_fs: false };
        let applied = self.work(self.diff().apply(leased(layer.lease, message))).await;
        let ApplyResponse { applied } = applied.map_err(|status| self.failed(&what, &status))?.into_inner();
        let digest = applied.map(|applied| applied.digest).unwrap_or_default();
        if digest != layer.diff_id.as_str() {
            let cause = format!(
                "unpacked it is {digest}, and the image's configuration says {}: the image is broken and must be built anew",
                layer.diff_id
            );
            return Err(RuntimeError::Refused { what, cause });
        }
        let message = CommitSnapshotRequest {
            snapshotter: layer.snapshotter.to_owned(),
            name: layer.chain_id.to_string(),
            key: key.to_owned(),
            labels: layer.labels(),
        };
        let committed = self.work(self.snapshots().commit(leased(layer.lease, message))).await;
        match committed.map_or_else(|status| self.planned(&what, &status), |_| Ok(Answer::Done(())))? {
            Answer::Done(()) => {}
            Answer::AlreadyExists => return Ok(false),
            Answer::NotFound => {
                return Err(RuntimeError::Refused { what, cause: "its snapshot went meanwhile".to_owned() });
            }
        }
        let labels = BTreeMap::from([(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())]);
        let blob = Digest::try_from(layer.descriptor.digest()).map_err(StoreError::from)?;
        self.label_blob(&blob, labels).await?;
        Ok(true)
    }

    /// Whether there is an unpacked layer; if so, the lease keeps it.
    pub(super) async fn keep_snapshot(
        &self,
        lease: &str,
        snapshotter: &str,
        chain_id: &Digest,
    ) -> Result<bool, RuntimeError> {
        if !self.has_snapshot(snapshotter, chain_id).await? {
            return Ok(false);
        }
        self.add_to_lease(lease, leases::snapshot(snapshotter, chain_id.as_str())).await?;
        // Only from now on it can't go any more.
        self.has_snapshot(snapshotter, chain_id).await
    }

    async fn has_snapshot(&self, snapshotter: &str, chain_id: &Digest) -> Result<bool, RuntimeError> {
        let message = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: chain_id.to_string() };
        let what = format!("look up unpacked layer {chain_id}");
        match self.attempt(&what, self.snapshots().stat(request(message))).await? {
            Answer::Done(found) => Ok(found.info.is_some_and(|info| info.kind() == Kind::Committed)),
            Answer::NotFound | Answer::AlreadyExists => Ok(false),
        }
    }
}

/// A layer being unpacked.
struct Layer<'a> {
    descriptor: &'a Descriptor,
    snapshotter: &'a str,
    parent: Option<&'a Digest>,
    diff_id: &'a Digest,
    chain_id: &'a Digest,
    /// A temporary one.
    lease: &'a str,
}

impl Layer<'_> {
    fn what(&self) -> String {
        format!("unpack layer {}", self.descriptor.digest())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let annotations = self.descriptor.annotations().iter().flatten();
        let inherited = annotations.filter(|(key, _)| key.starts_with(INHERITED));
        let mut labels: BTreeMap<_, _> = inherited.map(|(key, value)| (key.clone(), value.clone())).collect();
        labels.insert(SNAPSHOT_REF.to_owned(), self.chain_id.to_string());
        labels
    }
}

/// A descriptor as containerd's API has it.
pub(super) fn descriptor(descriptor: &Descriptor) -> types::Descriptor {
    let annotations = descriptor.annotations().iter().flatten();
    types::Descriptor {
        media_type: descriptor.media_type().to_string(),
        digest: descriptor.digest().to_string(),
        size: i64::try_from(descriptor.size()).unwrap_or(i64::MAX),
        annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}

/// Locks by name, for things that are better not done twice at the same time.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    pub(super) async fn lock(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let lock = locks.get(digest).and_then(Weak::upgrade).unwrap_or_default();
            locks.insert(digest.clone(), Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let ids: Vec<Digest> = [b"a", b"b"].map(|text| Digest::sha256(text)).into();
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(chain[1], Digest::sha256(format!("{} {}", ids[0], ids[1]).as_bytes()));
        assert_eq!(chain_ids(&[]), []);
    }

    #[test]
    fn what_containerd_can_unpack() {
        for good in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
        ] {
            assert!(is_layer(good), "{good}");
        }
        for bad in [
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.oci.image.layer.v1.squashfs",
            "application/octet-stream",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
            "",
        ] {
            assert!(!is_layer(bad), "{bad}");
        }
    }
}
