//! All images that containerd has for kubelet, whoever brought them, and taking names from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use larder_oci::{Digest, Document, ImageKey, ImageName, Platform, manifest::OCI_INDEX, spec::Descriptor};

use super::{
    Containerd,
    client::{Answer, Client, request},
    leases,
    records::{agents_keys, is_pinned_by_others, persons_keys, target},
    unpack::chain_ids,
};
use crate::{
    Listed, Removal, RuntimeError,
    api::images::{DeleteImageRequest, Image as Record},
    image::{created, diff_ids, is_image},
    listed::{Traces, canonical, leaving},
};

/// What targets of names are, as read before: content never changes.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<BTreeMap<Digest, Arc<Content>>>);

/// What a name's target is.
#[derive(Debug)]
struct Content {
    id: Digest,
    created: Option<Timestamp>,
    traces: Traces,
}

impl Known {
    fn get(&self, target: &Digest) -> Option<Arc<Content>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(target).cloned()
    }

    fn put(&self, target: Digest, content: Arc<Content>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(target, content);
    }

    /// Forgets what is not there any more.
    fn retain(&self, targets: &BTreeSet<Digest>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|target, _| targets.contains(target));
    }
}

impl Containerd {
    /// All images: see [`crate::Runtime::images`].
    pub(crate) async fn images(&self) -> Result<Vec<Listed>, RuntimeError> {
        let records = self.client.records().await?;
        Ok(self.grouped(&records).await?.into_values().map(|(image, _)| image).collect())
    }

    /// Takes names from an image: see [`crate::Runtime::remove`].
    pub(crate) async fn remove(
        &self,
        id: &Digest,
        names: &BTreeSet<ImageName>,
    ) -> Result<Removal, RuntimeError> {
        let records = self.client.records().await?;
        let Some((image, own)) = self.grouped(&records).await?.remove(id) else { return Ok(Removal::Gone) };
        let going = going(&own, names);
        if going.is_empty() {
            return Ok(Removal::Gone);
        }
        if image.is_pinned || image.is_marked {
            return Ok(Removal::Stays);
        }
        let users = self.containers().await?.using(&image);
        if !users.is_empty() {
            return Ok(Removal::InUse(users));
        }
        self.client.delete_records(&going).await?;
        // What a person has delivered is kept by a lease too.
        let delivered: BTreeSet<ImageKey> = going.iter().flat_map(|record| persons_keys(record)).collect();
        let stays = |record: &&&Record| !going.iter().any(|gone| gone.name == record.name);
        let left: BTreeSet<ImageKey> =
            own.iter().filter(stays).flat_map(|record| persons_keys(record)).collect();
        for key in delivered.difference(&left) {
            self.client.end_lease(&leases::of_image(key), true).await?;
        }
        Ok(Removal::Gone)
    }

    /// The images that records name, by what they are, with these records. What is not there as a whole is left out: kubelet
    /// does not see it, and nobody can tell what uses it.
    async fn grouped<'a>(
        &self,
        records: &'a [Record],
    ) -> Result<BTreeMap<Digest, (Listed, Vec<&'a Record>)>, RuntimeError> {
        let mut targets: BTreeMap<Digest, Vec<&Record>> = BTreeMap::new();
        for record in records {
            if let Some(target) = target(record) {
                targets.entry(target).or_default().push(record);
            }
        }
        self.known.retain(&targets.keys().cloned().collect());
        let mut images: BTreeMap<Digest, (Listed, Vec<&Record>)> = BTreeMap::new();
        for (target, records) in targets {
            let Some(content) = self.content_of(&target).await? else { continue };
            let new = listed(&content, &records);
            match images.get_mut(&content.id) {
                Some((image, known)) => {
                    known.extend(records);
                    image.names.extend(new.names);
                    image.came = image.came.max(new.came);
                    image.is_pinned |= new.is_pinned;
                    image.is_marked |= new.is_marked;
                    image.traces.digests.extend(new.traces.digests);
                    image.traces.chains.extend(new.traces.chains);
                }
                None => drop(images.insert(content.id.clone(), (new, records))),
            }
        }
        Ok(images)
    }

    async fn content_of(&self, target: &Digest) -> Result<Option<Arc<Content>>, RuntimeError> {
        if let Some(known) = self.known.get(target) {
            return Ok(Some(known));
        }
        let content = self.read_content(target).await?.map(Arc::new);
        if let Some(content) = &content {
            self.known.put(target.clone(), content.clone());
        }
        Ok(content)
    }

    /// Reads what a target is. Of an index, what there is of it: containers may have been made from any of its images.
    async fn read_content(&self, target: &Digest) -> Result<Option<Content>, RuntimeError> {
        let Some(bytes) = self.read_document(target).await? else { return Ok(None) };
        let manifests = match Document::parse(None, &bytes) {
            Ok(Document::Manifest(_)) => vec![target.clone()],
            Ok(Document::Index(index)) => {
                let own = Platform::host().select(&index).ok();
                let digest = |descriptor: &Descriptor| Digest::try_from(descriptor.digest()).ok();
                let others = index.manifests().iter().filter(|entry| !is_nested(entry));
                own.into_iter().chain(others).filter_map(digest).collect()
            }
            Err(_) => return Ok(None),
        };
        let mut content: Option<Content> = None;
        for manifest in manifests {
            if content.as_ref().is_some_and(|content| content.traces.digests.contains(&manifest)) {
                continue;
            }
            let Some(read) = self.read_image(&manifest).await? else { continue };
            match &mut content {
                Some(content) => {
                    content.traces.digests.extend(read.traces.digests);
                    content.traces.chains.extend(read.traces.chains);
                }
                None => content = Some(read),
            }
        }
        if let Some(content) = &mut content {
            content.traces.digests.insert(target.clone());
        }
        Ok(content)
    }

    async fn read_image(&self, manifest: &Digest) -> Result<Option<Content>, RuntimeError> {
        let Some(bytes) = self.read_document(manifest).await? else { return Ok(None) };
        let Ok(Document::Manifest(document)) = Document::parse(None, &bytes) else { return Ok(None) };
        let Ok(config) = Digest::try_from(document.config().digest()) else { return Ok(None) };
        let Some(bytes) = self.read_document(&config).await? else { return Ok(None) };
        let mut traces = Traces { digests: BTreeSet::from([manifest.clone()]), chains: BTreeSet::new() };
        if !is_image(document.config()) {
            return Ok(Some(Content { id: manifest.clone(), created: None, traces }));
        }
        traces.digests.insert(config.clone());
        traces.chains.extend(chain_ids(&diff_ids(&bytes)).pop());
        Ok(Some(Content { id: config, created: created(&bytes), traces }))
    }
}

fn is_nested(entry: &Descriptor) -> bool {
    entry.media_type().as_ref() == OCI_INDEX
}

fn listed(content: &Content, records: &[&Record]) -> Listed {
    Listed {
        id: content.id.clone(),
        names: records.iter().filter_map(|record| canonical(&record.name)).collect(),
        created: content.created,
        came: came(records),
        is_pinned: records.iter().any(|record| is_pinned_by_others(record)),
        is_marked: records.iter().any(|record| agents_keys(record).next().is_some()),
        traces: content.traces.clone(),
    }
}

/// When an image came: when the first of the names was made that contain what they stand for. A tag may have stood for
/// another image before, and then its last change is what is known.
fn came(records: &[&Record]) -> Option<Timestamp> {
    let time = |time: &Option<prost_types::Timestamp>| {
        time.as_ref().and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
    };
    let fixed = records.iter().filter(|record| record.name.contains("sha256:"));
    let first = fixed.filter_map(|record| time(&record.created_at)).min();
    first.or_else(|| {
        let last = |record: &&&Record| time(&record.created_at).max(time(&record.updated_at));
        records.iter().filter_map(|record| last(&record)).min()
    })
}

/// The records of an image that go when names of it do, the image's ID last, if nothing else names it then.
fn going<'a>(own: &[&'a Record], names: &BTreeSet<ImageName>) -> Vec<&'a Record> {
    let all: Vec<ImageName> = own.iter().filter_map(|record| canonical(&record.name)).collect();
    let leaving = leaving(&all, names);
    let leaves = |record: &&&Record| leaving.iter().any(|name| name.as_str() == record.name);
    let mut going: Vec<&Record> = own.iter().filter(leaves).copied().collect();
    let is_id = |record: &&&Record| record.name.parse::<Digest>().is_ok();
    let ids: Vec<&Record> = own.iter().filter(is_id).copied().collect();
    if !going.is_empty() && going.len() + ids.len() == own.len() {
        going.extend(ids);
    }
    going
}

impl Client {
    /// Deletes records, if they still stand for the same. Returns when the space is free.
    async fn delete_records(&self, records: &[&Record]) -> Result<(), RuntimeError> {
        for (number, record) in (1..).zip(records) {
            let what = format!("remove image {}", record.name);
            // As the CRI plugin does: with the last one its collector runs.
            let sync = number == records.len();
            let message =
                DeleteImageRequest { name: record.name.clone(), sync, target: record.target.clone() };
            match self.work(self.images().delete(request(message))).await {
                Ok(_) => {}
                Err(status) => {
                    let _: Answer<()> = self.planned(&what, &status)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::types, testing::digest};

    fn record(name: &str, created: i64, updated: i64) -> Record {
        let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let target = types::Descriptor { digest: digest(1).to_string(), ..types::Descriptor::default() };
        Record {
            name: name.to_owned(),
            target: Some(target),
            created_at: time(created),
            updated_at: time(updated),
            ..Record::default()
        }
    }

    fn gone(own: &[Record], names: &[&str]) -> Vec<String> {
        let own: Vec<&Record> = own.iter().collect();
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        going(&own, &names).into_iter().map(|record| record.name.clone()).collect()
    }

    #[test]
    fn the_id_goes_with_the_last_name() {
        let by_digest = format!("docker.io/library/app@{}", digest(1));
        let id = digest(2).to_string();
        let names = [id.as_str(), &by_digest, "docker.io/library/app:v1", "quay.io/app:v1"];
        let own = names.map(|name| record(name, 1, 1));
        assert_eq!(gone(&own, &["quay.io/app:v1"]), ["quay.io/app:v1"]);
        assert_eq!(gone(&own, &["app:v1"]), [&by_digest, "docker.io/library/app:v1"]);
        let all = [&by_digest, "docker.io/library/app:v1", "quay.io/app:v1", &id];
        assert_eq!(gone(&own, &["app:v1", "quay.io/app:v1"]), all);
        assert_eq!(gone(&own, &["app:v2"]), [""; 0]);
        // A name that nobody can speak of keeps the image.
        let odd = [record(&id, 1, 1), record("docker.io/library/app:v1", 1, 1), record("odd", 1, 1)];
        assert_eq!(gone(&odd, &["app:v1"]), ["docker.io/library/app:v1"]);
    }

    #[test]
    fn an_image_came_when_its_digest_got_a_name() {
        let time = |seconds| Timestamp::from_second(seconds).ok();
        let tag = record("docker.io/library/app:v1", 1, 50);
        let by_digest = record(&format!("docker.io/library/app@{}", digest(1)), 40, 60);
        let id = record(digest(2).as_str(), 41, 41);
        assert_eq!(came(&[&tag, &by_digest, &id]), time(40));
        assert_eq!(came(&[&tag]), time(50));
        assert_eq!(came(&[]), None);
    }
}
