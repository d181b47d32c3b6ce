//! Giving an image to containerd.

use std::{collections::BTreeSet, time::Duration};

use futures::{TryStreamExt, stream::FuturesUnordered};
use larder_oci::{Digest, ImageKey, spec::Descriptor};
use larder_store::{Store, StoreError};
use tokio::sync::Semaphore;

use super::{
    Containerd,
    content::{Blob, SOURCE},
    leases,
    records::{self, names},
    unpack::{Unpacking, chain_ids, is_layer},
};
use crate::{
    Arrivals, Image, Layers, Owner, RuntimeError,
    api::{
        cri::{ImageSpec, ImageStatusRequest},
        leases::Resource,
    },
    image::IMAGE_CONFIGS,
};

/// Layers that are written at the same time: one while the other's last bytes are being synced.
const WRITERS: usize = 2;
/// How long the CRI plugin may take to notice an image, and how often it is asked.
const NOTICED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(20));

impl Containerd {
    /// Gives an image to containerd: see [`crate::Runtime::deliver`].
    ///
    /// An artifact, which has nothing that could be unpacked, is of no use to kubelet, and its names would only make the CRI
    /// plugin complain: it stays in the layer store.
    pub(crate) async fn deliver(
        &self,
        store: &Store,
        image: &Image,
        owner: Owner,
        layers: Layers,
    ) -> Result<(), RuntimeError> {
        if !is_usable(image)? {
            return Ok(());
        }
        let snapshotter = self.snapshotter().await?;
        let lease = self.client.lease_image(&image.key, owner).await?;
        for blob in documents(image)? {
            self.client.put_labelled(store, &blob, &lease).await?;
        }
        let (there, content) = Layers::arriving();
        let unpacking = Unpacking { image, snapshotter, lease: &lease, content };
        tokio::try_join!(
            self.take_layers(store, image, &layers, &lease, there),
            self.client.unpack(&unpacking, &self.unpacking),
        )?;
        self.point_at_snapshot(image, snapshotter).await?;
        let target = Digest::try_from(image.config.digest()).map_err(StoreError::from)?;
        for name in names(&image.key, &image.target, &target) {
            let stands_for = image.index.as_ref().unwrap_or(&image.manifest);
            self.client.record(&name, stands_for, &image.key, owner).await?;
        }
        self.wait_for_kubelet_to_see(image, owner).await?;
        self.leave_former(image, &target).await?;
        self.client.settle_lease(&lease, &leased(image, snapshotter)?).await
    }

    /// Writes the layers as they arrive. Each that containerd has is no longer needed in the layer store.
    async fn take_layers(
        &self,
        store: &Store,
        image: &Image,
        layers: &Layers,
        lease: &str,
        there: Arrivals,
    ) -> Result<(), RuntimeError> {
        let writers = Semaphore::new(WRITERS);
        let mut seen = BTreeSet::new();
        let tasks = FuturesUnordered::new();
        for layer in &image.layers {
            let mut blob = Blob::new(layer)?;
            blob.labels.extend(source_of(image));
            if seen.insert(blob.digest.clone()) {
                tasks.push(self.take_layer(store, blob, layers, lease, &there, &writers));
            }
        }
        tasks.try_collect::<()>().await?;
        there.all();
        Ok(())
    }

    async fn take_layer(
        &self,
        store: &Store,
        blob: Blob,
        layers: &Layers,
        lease: &str,
        there: &Arrivals,
        writers: &Semaphore,
    ) -> Result<(), RuntimeError> {
        if self.client.blob(&blob.digest).await?.is_none() && !layers.wait_for(&blob.digest).await {
            return Err(RuntimeError::Interrupted);
        }
        // It is never closed.
        let writer = writers.acquire().await.ok();
        self.client.put_blob(store, &blob, lease).await?;
        drop(writer);
        there.layer(&blob.digest);
        // One that was here already may still be on its way to the store.
        if !layers.wait_for(&blob.digest).await {
            return Err(RuntimeError::Interrupted);
        }
        self.hand_over(store, blob.digest).await
    }

    async fn hand_over(&self, store: &Store, digest: Digest) -> Result<(), RuntimeError> {
        let known = store.clone();
        let id = blocking(move || known.id().cloned()).await?;
        self.client.lease_blob(&id, &digest).await?;
        let store = store.clone();
        blocking(move || store.hand_over([&digest])).await.map(drop)
    }

    /// The configuration keeps the unpacked layers, and the names keep the configuration: that is how containerd's collector
    /// knows.
    async fn point_at_snapshot(&self, image: &Image, snapshotter: &str) -> Result<(), RuntimeError> {
        let Some(top) = chain_ids(&image.diff_ids).pop() else { return Ok(()) };
        let config = Digest::try_from(image.config.digest()).map_err(StoreError::from)?;
        let label = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
        let found = self.client.blob(&config).await?.unwrap_or_default();
        if found.labels.get(&label).is_some_and(|found| found == top.as_str()) {
            return Ok(());
        }
        self.client.label_blob(&config, [(label, top.to_string())].into()).await
    }

    /// The CRI plugin learns of names by events. Only when it has is the image of use to kubelet.
    async fn wait_for_kubelet_to_see(&self, image: &Image, owner: Owner) -> Result<(), RuntimeError> {
        let name = records::by_tag(&image.key)
            .unwrap_or_else(|| image.key.name.untagged(&image.target).as_str().to_owned());
        let what = format!("show image {name} to kubelet");
        let seen = async {
            loop {
                let spec = ImageSpec { image: name.clone(), ..ImageSpec::default() };
                let message = ImageStatusRequest { image: Some(spec), verbose: false };
                let mut client = self.client.cri_images();
                let found = match self.client.call(&what, client.image_status(message)).await {
                    Ok(answer) => answer.image,
                    // Nobody is there to notice anything.
                    Err(RuntimeError::Unsupported(_)) => return Ok(()),
                    Err(error) => return Err(error),
                };
                let same = |id: &str| id == image.config.digest().to_string();
                if found.is_some_and(|found| same(&found.id) && (found.pinned || !owner.pins())) {
                    return Ok(());
                }
                tokio::time::sleep(NOTICED.1).await;
            }
        };
        tokio::time::timeout(NOTICED.0, seen).await.unwrap_or_else(|_| {
            let cause = format!("its CRI plugin has not noticed it within {} s", NOTICED.0.as_secs());
            Err(RuntimeError::Refused { what, cause })
        })
    }
}

/// Runs the store's work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RuntimeError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| RuntimeError::Unsupported(format!("handing a layer over failed: {error}")))??)
}

/// What an image's lease is to keep.
fn leased(image: &Image, snapshotter: &str) -> Result<Vec<Resource>, RuntimeError> {
    let documents = [&image.manifest, &image.config].into_iter().chain(&image.index);
    let digests = documents.chain(&image.layers).map(|descriptor| Digest::try_from(descriptor.digest()));
    let blobs = digests.map(|digest| digest.map(|digest| leases::blob(&digest)));
    let mut leased = blobs.collect::<Result<Vec<_>, _>>().map_err(StoreError::from)?;
    let top = chain_ids(&image.diff_ids).pop();
    leased.extend(top.map(|top| leases::snapshot(snapshotter, top.as_str())));
    Ok(leased)
}

/// Whether containerd can make containers from it. An image that says that it can be run, and can't, is an error.
pub(super) fn is_usable(image: &Image) -> Result<bool, RuntimeError> {
    let media_type = image.config.media_type().to_string();
    if !image.is_runnable() {
        let (layers, unpacked) = (image.layers.len(), image.diff_ids.len());
        if unpacked > 0 && IMAGE_CONFIGS.contains(&media_type.as_str()) {
            return Err(RuntimeError::Unsupported(format!(
                "image {} is broken and must be built anew: its manifest has {layers} layers, and its configuration {unpacked}",
                image.key.name
            )));
        }
        return Ok(false);
    }
    if !IMAGE_CONFIGS.contains(&media_type.as_str()) {
        return Ok(false);
    }
    match image.layers.iter().find(|layer| !is_layer(layer.media_type().as_ref())) {
        None => Ok(true),
        Some(layer) => Err(RuntimeError::Unsupported(format!(
            "image {} has a layer of the type {}, which containerd can't unpack: build it with layers that are tar, gzip or zstd",
            image.key.name,
            layer.media_type()
        ))),
    }
}

/// Index, manifest and configuration, with the labels that tell containerd's collector what they need, as its client writes
/// them (<https://github.com/containerd/containerd/blob/v2.2.1/core/images/handlers.go>). Of an index, only the platform's
/// manifest is there.
fn documents(image: &Image) -> Result<Vec<Blob>, RuntimeError> {
    let reference = |to: &str, descriptor: &Descriptor| {
        (format!("containerd.io/gc.ref.content.{to}"), descriptor.digest().to_string())
    };
    let mut config = Blob::new(&image.config)?;
    config.labels.extend(source_of(image));
    let mut manifest = Blob::new(&image.manifest)?;
    manifest.labels.extend(source_of(image));
    manifest.labels.extend([reference("config", &image.config)]);
    let layers = image.layers.iter().enumerate();
    manifest.labels.extend(layers.map(|(number, layer)| reference(&format!("l.{number}"), layer)));
    let mut documents = vec![config, manifest];
    if let Some(index) = &image.index {
        let mut index = Blob::new(index)?;
        index.labels.extend(source_of(image));
        index.labels.extend([reference("m.0", &image.manifest)]);
        documents.push(index);
    }
    Ok(documents)
}

/// The label that tells where an image's blobs can be had. No registry has them under a further name.
fn source_of(image: &Image) -> Option<(String, String)> {
    if image.further { None } else { source(&image.key) }
}

/// The label that tells where a blob can be had, so that a push to the same registry need not send it.
pub(super) fn source(key: &ImageKey) -> Option<(String, String)> {
    let name = &key.name;
    let host = name.registry().rsplit_once(':').map_or(name.registry(), |(host, _)| host);
    let (label, value) = (format!("{SOURCE}.{host}"), name.repository());
    // containerd's limit for the two together.
    (label.len() + value.len() < 4096).then(|| (label, value.to_owned()))
}
