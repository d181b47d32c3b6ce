//! Taking an image from containerd, and leaving it there.

use std::collections::BTreeSet;

use larder_oci::{
    Digest, ImageKey,
    manifest::{Document, MAX_MANIFEST_SIZE},
    spec::{Descriptor, MediaType},
};

use super::{
    Containerd,
    client::Answer,
    leases,
    records::{is_marked, names, target},
};
use crate::{Image, RuntimeError, User, Withdrawal, api::images::Image as Record, image::diff_ids};

/// The label of an index that names the manifest which is there.
const MANIFEST: &str = "containerd.io/gc.ref.content.m.0";

impl Containerd {
    /// Takes an image from containerd: see [`crate::Runtime::withdraw`].
    pub(crate) async fn withdraw(
        &self,
        key: &ImageKey,
        image: Option<&Image>,
    ) -> Result<Withdrawal, RuntimeError> {
        let records = self.client.records().await?;
        let marked: Vec<&Record> = records.iter().filter(|record| is_marked(record, key)).collect();
        let users = self.users_of(&marked, key, image).await?;
        if !users.is_empty() {
            return Ok(Withdrawal::InUse(users));
        }
        let gone = self.client.unrecord(&records, &marked, key, image.map(|image| &image.target)).await?;
        // Returns when the space is free.
        self.client.end_lease(&leases::of_image(key), true).await?;
        Ok(if gone { Withdrawal::Gone } else { Withdrawal::Left })
    }

    /// Leaves an image to containerd: see [`crate::Runtime::release`].
    pub(crate) async fn release(&self, key: &ImageKey) -> Result<(), RuntimeError> {
        let records = self.client.records().await?;
        self.client.leave(records.iter().filter(|record| is_marked(record, key)), key).await?;
        self.client.end_lease(&leases::of_image(key), false).await
    }

    /// Once an image is delivered: takes away what the same name stood for before. What a container uses is left to kubelet,
    /// which takes it when its time has come.
    pub(super) async fn leave_former(&self, image: &Image, config: &Digest) -> Result<(), RuntimeError> {
        let key = &image.key;
        let names = names(key, &image.target, config);
        let records = self.client.records().await?;
        let former = |record: &&Record| is_marked(record, key) && !names.contains(&record.name);
        let former: Vec<&Record> = records.iter().filter(former).collect();
        if former.is_empty() {
            return Ok(());
        }
        if self.users_of(&former, key, None).await?.is_empty() {
            self.client.unrecord(&records, &former, key, None).await.map(drop)
        } else {
            self.client.leave(former.into_iter(), key).await
        }
    }

    /// The containers that were made from what records stand for, or from an image.
    async fn users_of(
        &self,
        records: &[&Record],
        key: &ImageKey,
        image: Option<&Image>,
    ) -> Result<Vec<User>, RuntimeError> {
        let mut images: Vec<Image> = image.cloned().into_iter().collect();
        for target in records.iter().filter_map(|record| target(record)) {
            if !images.iter().any(|image| image.target == target) {
                images.extend(self.recall(key, target).await?);
            }
        }
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let containers = self.containers().await?;
        let users: BTreeSet<User> = images.iter().flat_map(|image| containers.made_from(image)).collect();
        Ok(users.into_iter().collect())
    }

    /// What containerd itself knows of an image. `None` if there is nothing that a container could have been made from.
    async fn recall(&self, key: &ImageKey, target: Digest) -> Result<Option<Image>, RuntimeError> {
        let Some(info) = self.client.blob(&target).await? else { return Ok(None) };
        let manifest = info.labels.get(MANIFEST).and_then(|digest| digest.parse().ok());
        let manifest = manifest.unwrap_or_else(|| target.clone());
        self.recall_manifest(key, target, &manifest).await
    }

    async fn recall_manifest(
        &self,
        key: &ImageKey,
        target: Digest,
        digest: &Digest,
    ) -> Result<Option<Image>, RuntimeError> {
        let Some(bytes) = self.read_document(digest).await? else { return Ok(None) };
        let Ok(Document::Manifest(document)) = Document::parse(None, &bytes) else { return Ok(None) };
        let config = document.config().clone();
        let Ok(config_digest) = Digest::try_from(config.digest()) else { return Ok(None) };
        let Ok(spec_digest) = digest.as_str().parse::<larder_oci::spec::Digest>() else { return Ok(None) };
        let media_type = document.media_type().clone().unwrap_or(MediaType::ImageManifest);
        let diff_ids = diff_ids(&self.read_document(&config_digest).await?.unwrap_or_default());
        let manifest = Descriptor::new(media_type, bytes.len() as u64, spec_digest);
        let (key, layers) = (key.clone(), document.layers().clone());
        let (pin, further) = (None, false);
        Ok(Some(Image { key, target, index: None, manifest, config, layers, diff_ids, pin, further }))
    }

    pub(super) async fn read_document(&self, digest: &Digest) -> Result<Option<bytes::Bytes>, RuntimeError> {
        let limit = usize::try_from(MAX_MANIFEST_SIZE).unwrap_or(usize::MAX);
        match self.client.read_blob(digest, 0, limit).await? {
            Answer::Done(bytes) if digest.matches(&bytes) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    }
}
