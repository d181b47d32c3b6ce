//! How images stand in containerd: four lists, whatever the number of images.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::{Digest, ImageKey};
use larder_store::{StoreError, StoreId};

use super::{
    Containerd,
    client::{request, timed},
    deliver::is_usable,
    leases,
    records::{agents_keys, by_tag, is_kept, is_marked, names, target},
    unpack::chain_ids,
};
use crate::{
    Image, Observation, RuntimeError, State,
    api::{
        content::ListContentRequest,
        images::Image as Record,
        snapshots::{Kind, ListSnapshotsRequest},
    },
    socket::CALL_TIMEOUT,
};

/// What is there, of what was asked about.
struct Found {
    records: BTreeMap<String, Record>,
    blobs: BTreeSet<Digest>,
    snapshots: BTreeSet<Digest>,
}

/// What an image needs.
struct Needs {
    config: Digest,
    blobs: BTreeSet<Digest>,
    /// Its uppermost unpacked layer.
    top: Option<Digest>,
}

impl Needs {
    fn of(image: &Image) -> Result<Self, StoreError> {
        let digest = |descriptor: &larder_oci::spec::Descriptor| Digest::try_from(descriptor.digest());
        let config = digest(&image.config)?;
        let documents = [&image.manifest, &image.config].into_iter().chain(&image.index);
        let blobs = documents.chain(&image.layers).map(digest).collect::<Result<_, _>>()?;
        Ok(Self { config, blobs, top: chain_ids(&image.diff_ids).pop() })
    }
}

impl Containerd {
    /// How images stand: see [`crate::Runtime::observe`].
    ///
    /// Also keeps what the layer store relies on, and lets go of what it does not rely on any more.
    pub(crate) async fn observe(
        &self,
        store: &StoreId,
        images: &[Image],
        handed_over: &BTreeSet<Digest>,
    ) -> Result<Observation, RuntimeError> {
        // One that can't be given to a runtime is as it should be.
        let usable: Vec<(&Image, Needs)> = images
            .iter()
            .filter(|image| !matches!(is_usable(image), Ok(false)))
            .map(|image| Ok((image, Needs::of(image)?)))
            .collect::<Result<_, StoreError>>()?;
        let needed = usable.iter().flat_map(|(_, needs)| &needs.blobs).chain(handed_over).collect();
        let tops = usable.iter().filter_map(|(_, needs)| needs.top.as_ref()).collect();
        let records = self.client.records().await?;
        let found = Found {
            records: records.into_iter().map(|record| (record.name.clone(), record)).collect(),
            blobs: self.blobs_among(&needed).await?,
            snapshots: self.snapshots_among(&tops).await?,
        };
        let lost: BTreeSet<Digest> = handed_over.difference(&found.blobs).cloned().collect();
        let leases = self.client.all_leases().await?;
        self.client.settle_blobs(store, &handed_over.difference(&lost).collect(), &leases).await?;
        let mut states: BTreeMap<ImageKey, State> =
            images.iter().map(|image| (image.key.clone(), State::Ready)).collect();
        states.extend(usable.iter().map(|(image, needs)| (image.key.clone(), found.state(image, needs))));
        let mut strays: BTreeSet<ImageKey> = found.records.values().flat_map(agents_keys).collect();
        // Whoever began to deliver an image and was killed has left a lease, and perhaps no name.
        let begun = leases::leased_images(&leases);
        let named = |key: &ImageKey| found.records.values().any(|record| is_marked(record, key));
        strays.extend(begun.into_iter().filter(|key| !states.contains_key(key) && !named(key)));
        strays.retain(|key| !states.contains_key(key));
        Ok(Observation { states, strays, lost })
    }

    /// Which of these blobs are there. The list comes in parts, and only what was asked about is kept.
    async fn blobs_among(&self, wanted: &BTreeSet<&Digest>) -> Result<BTreeSet<Digest>, RuntimeError> {
        if wanted.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut found = BTreeSet::new();
        let listed = async {
            let message = request(ListContentRequest::default());
            let mut parts = timed(CALL_TIMEOUT, self.client.content().list(message)).await?.into_inner();
            while let Some(part) = timed(CALL_TIMEOUT, parts.message()).await? {
                let digests = part.info.into_iter().filter_map(|info| info.digest.parse::<Digest>().ok());
                found.extend(digests.filter(|digest| wanted.contains(digest)));
            }
            Ok(())
        };
        listed.await.map_err(|status| self.client.failed("list content", &status))?;
        Ok(found)
    }

    async fn snapshots_among(&self, wanted: &BTreeSet<&Digest>) -> Result<BTreeSet<Digest>, RuntimeError> {
        if wanted.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut found = BTreeSet::new();
        let snapshotter = self.snapshotter().await?.to_owned();
        let listed = async {
            let message = request(ListSnapshotsRequest { snapshotter, ..ListSnapshotsRequest::default() });
            let mut parts = timed(CALL_TIMEOUT, self.client.snapshots().list(message)).await?.into_inner();
            while let Some(part) = timed(CALL_TIMEOUT, parts.message()).await? {
                let whole = part.info.into_iter().filter(|info| info.kind() == Kind::Committed);
                let names = whole.filter_map(|info| info.name.parse::<Digest>().ok());
                found.extend(names.filter(|name| wanted.contains(name)));
            }
            Ok(())
        };
        listed.await.map_err(|status| self.client.failed("list unpacked layers", &status))?;
        Ok(found)
    }
}

impl Found {
    fn state(&self, image: &Image, needs: &Needs) -> State {
        let record = |name: &str| self.records.get(name);
        if let Some(to) = by_tag(&image.key).and_then(|tag| target(record(&tag)?))
            && to != image.target
        {
            return State::Moved { to };
        }
        let config = needs.config.to_string();
        let named = |name: &String| {
            record(name).is_some_and(|record| {
                // Another image may share the configuration: its ID stands for either.
                let same = *name == config || target(record).as_ref() == Some(&image.target);
                same && is_kept(record, &image.key, image.pin)
            })
        };
        let complete = needs.blobs.is_subset(&self.blobs)
            && needs.top.as_ref().is_some_and(|top| self.snapshots.contains(top))
            && names(&image.key, &image.target, &needs.config).iter().all(named);
        if complete { State::Ready } else { State::Missing }
    }
}
