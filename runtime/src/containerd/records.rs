//! Image records: the names under which kubelet finds an image, and the labels that tell what is Larder's.
//!
//! An image has the three names that a pull through CRI leaves
//! (<https://github.com/containerd/containerd/blob/v2.2.1/internal/cri/server/images/image_pull.go>): `repository:tag`,
//! `repository@digest` and the configuration's digest, the latter two of which it may share with others. So on each record a
//! label of its own says for which image Larder wants it; it goes when the last one does, if Larder made it.

use std::collections::BTreeMap;

use larder_oci::{Digest, ImageKey, spec::Descriptor};
use prost_types::FieldMask;

use super::{
    client::{Answer, Client, request},
    leases::mark,
    unpack,
};
use crate::{
    Owner, RuntimeError,
    api::{
        images::{
            CreateImageRequest, DeleteImageRequest, GetImageRequest, Image as Record, ListImagesRequest,
            UpdateImageRequest,
        },
        types,
    },
};

/// What the CRI plugin marks its images with, and with what.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// What keeps kubelet's garbage collection away.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
/// `<prefix><mark>`: the agent wants the record for the image that the value names.
const AGENTS: &str = "larder.dev/agent.";
/// The same for a person.
const PERSONS: &str = "larder.dev/person.";
/// `<prefix><mark>`: and wants it pinned.
const PINNED_FOR: &str = "larder.dev/pinned-for.";
/// Larder made the record.
const CREATED: &str = "larder.dev/created";
/// Larder pinned the record.
const PINNED_BY_US: &str = "larder.dev/pinned";
/// How often a record that changes under our hands is looked at anew.
const ATTEMPTS: u32 = 5;

/// Changes of a record's labels; an empty value takes a label away.
type Labels = BTreeMap<String, String>;

/// The names under which kubelet may ask for an image, the one that people use last.
pub(super) fn names(key: &ImageKey, target: &Digest, config: &Digest) -> Vec<String> {
    let mut names = vec![config.to_string(), by_digest(key, target)];
    names.extend(by_tag(key));
    names
}

fn by_digest(key: &ImageKey, target: &Digest) -> String {
    key.name.untagged(target).as_str().to_owned()
}

/// As the CRI plugin does, a name with a digest counts as one without a tag.
pub(super) fn by_tag(key: &ImageKey) -> Option<String> {
    let tagged = key.name.tag().is_some() && key.name.digest().is_none();
    tagged.then(|| key.name.as_str().to_owned())
}

/// Whether Larder wants the record for this image, and the record is pinned, or not, as `pin` says.
///
/// Where the agent wants no pin, only one that was set for this image is amiss: what others have pinned stays so, and what a
/// person has delivered is pinned as that person said.
pub(super) fn is_kept(record: &Record, key: &ImageKey, pin: Option<bool>) -> bool {
    let mark = mark(key);
    let is_persons = || record.labels.contains_key(&format!("{PERSONS}{mark}"));
    let as_wanted = match pin {
        Some(true) => has(&record.labels, PINNED),
        Some(false) => is_persons() || !record.labels.contains_key(&format!("{PINNED_FOR}{mark}")),
        None => true,
    };
    is_marked(record, key) && has(&record.labels, MANAGED) && as_wanted
}

/// Whether Larder wants the record for this image.
pub(super) fn is_marked(record: &Record, key: &ImageKey) -> bool {
    let mark = mark(key);
    [AGENTS, PERSONS].iter().any(|prefix| record.labels.contains_key(&format!("{prefix}{mark}")))
}

/// The images for which the agent wants the record.
pub(super) fn agents_keys(record: &Record) -> impl Iterator<Item = ImageKey> {
    record.labels.iter().filter(|(label, _)| label.starts_with(AGENTS)).filter_map(|(_, key)| parse_key(key))
}

/// The images for which a person wants the record.
pub(super) fn persons_keys(record: &Record) -> impl Iterator<Item = ImageKey> {
    record.labels.iter().filter(|(label, _)| label.starts_with(PERSONS)).filter_map(|(_, key)| parse_key(key))
}

/// Whether somebody other than the agent keeps kubelet's collector away from what the record stands for.
pub(super) fn is_pinned_by_others(record: &Record) -> bool {
    let marks = record.labels.keys().filter_map(|label| label.strip_prefix(PERSONS));
    let by_person =
        marks.map(|mark| format!("{PINNED_FOR}{mark}")).any(|pin| record.labels.contains_key(&pin));
    has(&record.labels, PINNED) && (by_person || !record.labels.contains_key(PINNED_BY_US))
}

/// What a record stands for.
pub(super) fn target(record: &Record) -> Option<Digest> {
    record.target.as_ref()?.digest.parse().ok()
}

fn has(labels: &Labels, (label, value): (&str, &str)) -> bool {
    labels.get(label).is_some_and(|found| found == value)
}

/// An image's key as the value of a label.
pub(super) fn write_key(key: &ImageKey) -> String {
    format!("{} {}", key.name, key.platform)
}

/// The key that a label names.
pub(super) fn parse_key(text: &str) -> Option<ImageKey> {
    let (name, platform) = text.split_once(' ')?;
    Some(ImageKey { name: name.parse().ok()?, platform: platform.parse().ok()? })
}

/// What is to be changed so that a record is wanted for an image, on behalf of `owner` and of nobody else.
fn wanted(found: &Labels, key: &ImageKey, owner: Owner) -> Labels {
    let mark = mark(key);
    let (owners, others, pin) = match owner {
        Owner::Agent { pin } => (AGENTS, PERSONS, pin),
        Owner::Person { pin } => (PERSONS, AGENTS, pin),
    };
    let pinned_for = format!("{PINNED_FOR}{mark}");
    let for_another = found.keys().any(|label| label.starts_with(PINNED_FOR) && *label != pinned_for);
    let mut labels = Labels::from([
        (MANAGED.0.to_owned(), MANAGED.1.to_owned()),
        (format!("{owners}{mark}"), write_key(key)),
        (format!("{others}{mark}"), String::new()),
        (pinned_for, if pin { "true".to_owned() } else { String::new() }),
    ]);
    if pin && !has(found, PINNED) {
        labels.insert(PINNED.0.to_owned(), PINNED.1.to_owned());
        labels.insert(PINNED_BY_US.to_owned(), "true".to_owned());
    } else if !pin && !for_another && found.contains_key(PINNED_BY_US) {
        labels.insert(PINNED.0.to_owned(), String::new());
        labels.insert(PINNED_BY_US.to_owned(), String::new());
    }
    changes(found, labels)
}

/// What is to be changed so that a record is not wanted for an image any more.
fn unwanted(found: &Labels, key: &ImageKey) -> Labels {
    let mark = mark(key);
    let ours = [AGENTS, PERSONS, PINNED_FOR].map(|prefix| format!("{prefix}{mark}"));
    let left = |prefix: &str| found.keys().any(|label| label.starts_with(prefix) && !ours.contains(label));
    let mut labels: Labels = ours.iter().map(|label| (label.clone(), String::new())).collect();
    if !left(PINNED_FOR) && found.contains_key(PINNED_BY_US) {
        labels.insert(PINNED.0.to_owned(), String::new());
        labels.insert(PINNED_BY_US.to_owned(), String::new());
    }
    if !left(AGENTS) && !left(PERSONS) {
        labels.insert(CREATED.to_owned(), String::new());
    }
    changes(found, labels)
}

fn changes(found: &Labels, mut labels: Labels) -> Labels {
    labels.retain(|label, value| found.get(label).map_or("", String::as_str) != value);
    labels
}

/// What is to become of a record when an image is withdrawn.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It goes.
    Goes,
    /// It stays, without what Larder put there for this image.
    Stays,
}

/// The records of an image that is to go, and what becomes of each. `expected` is what its tag stands for, where that is
/// known.
///
/// Larder's own go, unless another image of Larder's wants them. The digests' names stay too where the image goes on to have
/// somebody else's tag: a pull through CRI would have made them just the same.
fn fates<'a>(records: &'a [Record], key: &ImageKey, expected: Option<&Digest>) -> Vec<(&'a Record, Fate)> {
    let tag = by_tag(key);
    // Somebody has given the name to another image meanwhile.
    let moved = |record: &Record| {
        tag.as_deref() == Some(&record.name) && expected.is_some() && target(record).as_ref() != expected
    };
    let ours = |record: &Record| {
        record.labels.contains_key(CREATED)
            && unwanted(&record.labels, key).contains_key(CREATED)
            && !moved(record)
    };
    let needed = |record: &Record| {
        is_digests(&record.name)
            && records.iter().any(|other| {
                let repository = [ID, repository(&other.name)].contains(&repository(&record.name));
                let somebodys = !is_digests(&other.name) && !other.labels.contains_key(CREATED);
                repository && somebodys && target(other) == target(record)
            })
    };
    let marked = records.iter().filter(|record| is_marked(record, key));
    let fate = |record| if ours(record) && !needed(record) { Fate::Goes } else { Fate::Stays };
    marked.map(|record| (record, fate(record))).collect()
}

/// What stands for the repository in the name that is a configuration's digest.
const ID: &str = "sha256";

/// Whether a name contains what it stands for.
fn is_digests(name: &str) -> bool {
    name.contains('@') || !name.contains('/')
}

fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(repository, _)| repository);
    let start = name.rfind('/').unwrap_or(0);
    name[start..].find(':').map_or(name, |tag| &name[..start + tag])
}

impl Client {
    /// All image records.
    pub(super) async fn records(&self) -> Result<Vec<Record>, RuntimeError> {
        let message = request(ListImagesRequest::default());
        Ok(self.call("list images", self.images().list(message)).await?.images)
    }

    /// Makes a name stand for an image, marked as Larder's.
    pub(super) async fn record(
        &self,
        name: &str,
        stands_for: &Descriptor,
        key: &ImageKey,
        owner: Owner,
    ) -> Result<(), RuntimeError> {
        let what = format!("name image {name}");
        let target = types::Descriptor { annotations: BTreeMap::new(), ..unpack::descriptor(stands_for) };
        for _ in 0..ATTEMPTS {
            let mut labels = wanted(&Labels::new(), key, owner);
            labels.retain(|_, value| !value.is_empty());
            labels.insert(CREATED.to_owned(), "true".to_owned());
            let record =
                Record { name: name.to_owned(), labels, target: Some(target.clone()), ..Record::default() };
            let message = CreateImageRequest { image: Some(record) };
            if let Answer::Done(_) = self.attempt(&what, self.images().create(request(message))).await? {
                return Ok(());
            }
            let message = GetImageRequest { name: name.to_owned() };
            let Answer::Done(found) = self.attempt(&what, self.images().get(request(message))).await? else {
                continue;
            };
            let found = found.image.unwrap_or_default();
            let labels = wanted(&found.labels, key, owner);
            let same = found.target.as_ref().is_some_and(|found| found.digest == target.digest);
            if self.update(name, labels, &target, !same).await? {
                return Ok(());
            }
        }
        Err(RuntimeError::Refused { what, cause: "somebody else removes it again and again".to_owned() })
    }

    /// Changes labels of a record, and with `retarget` what it stands for. False: there is no such record any more.
    async fn update(
        &self,
        name: &str,
        labels: Labels,
        target: &types::Descriptor,
        retarget: bool,
    ) -> Result<bool, RuntimeError> {
        let mut paths: Vec<_> = labels.keys().map(|label| format!("labels.{label}")).collect();
        paths.extend(retarget.then(|| "target".to_owned()));
        if paths.is_empty() {
            return Ok(true);
        }
        // Always with a target, also where it is not to be changed: without one, containerd crashes.
        let record =
            Record { name: name.to_owned(), labels, target: Some(target.clone()), ..Record::default() };
        let message = UpdateImageRequest { image: Some(record), update_mask: Some(FieldMask { paths }) };
        let what = format!("change image {name}");
        Ok(self.attempt(&what, self.images().update(request(message))).await? != Answer::NotFound)
    }

    /// Takes away what Larder put on a record for an image.
    async fn unmark(&self, record: &Record, key: &ImageKey) -> Result<(), RuntimeError> {
        let target = record.target.clone().unwrap_or_default();
        self.update(&record.name, unwanted(&record.labels, key), &target, false).await.map(drop)
    }

    /// Takes those of an image's `names` away that are Larder's, and from the others what Larder put there. `expected` is
    /// what its tag stands for, if it is to go only then. True if nothing of them stays but what other images need.
    pub(super) async fn unrecord(
        &self,
        records: &[Record],
        names: &[&Record],
        key: &ImageKey,
        expected: Option<&Digest>,
    ) -> Result<bool, RuntimeError> {
        let own = by_tag(key);
        let mut gone = true;
        for (record, fate) in fates(records, key, expected) {
            if !names.iter().any(|name| name.name == record.name) {
                continue;
            }
            match fate {
                Fate::Stays => {
                    gone &= own.as_ref().is_some_and(|own| *own != record.name);
                    self.unmark(record, key).await?;
                }
                Fate::Goes => {
                    let (name, target) = (record.name.clone(), record.target.clone());
                    let what = format!("remove image {name}");
                    let message = DeleteImageRequest { name, sync: false, target };
                    self.attempt(&what, self.images().delete(request(message))).await?;
                }
            }
        }
        Ok(gone)
    }

    /// Takes away what Larder put on records for an image, and leaves them.
    pub(super) async fn leave(
        &self,
        records: impl Iterator<Item = &Record>,
        key: &ImageKey,
    ) -> Result<(), RuntimeError> {
        for record in records {
            self.unmark(record, key).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
