//! What rm and prune have in common: deciding which names may go, taking them away, and saying what went.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::{Digest, ImageKey};
use larder_store::{Claim, CollectOptions, Collected, Store};
use serde::Serialize;

use crate::{
    Failure, InUse, User,
    catalog::{Catalog, Record},
};

/// One thing that went, or would go: docker's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Gone {
    /// A name.
    Untagged(String),
    /// An image, by its ID.
    Deleted(String),
}

/// Whether an image may lose all its names: not if containers were made from it.
///
/// docker's words, and after them the container as kubectl knows it. docker lets an image of a stopped container go by
/// force; but kubelet starts a stopped container's successor from the same image, which it may not be able to pull.
pub fn check_use(in_use: &dyn InUse, store: &Store, record: &Record) -> Result<(), Failure> {
    let users = in_use.users(store, &record.stored).map_err(|why| unknown_use(record, &why))?;
    refuse(record, &users)
}

/// Takes an image's name from the container runtime. An image that containers were made from stays there, and must stay in
/// the store then.
pub fn withdraw(in_use: &dyn InUse, store: &Store, record: &Record) -> Result<(), Failure> {
    let users = in_use.withdraw(store, &record.stored).map_err(|why| {
        let name = record.name().familiar();
        Failure::response(format_args!("unable to take {name} from the container runtime: {why}"))
    })?;
    refuse(record, &users)
}

fn unknown_use(record: &Record, why: &str) -> Failure {
    let id = record.id.short();
    Failure::response(format_args!("unable to delete {id}: it is not known whether it is in use: {why}"))
}

/// A running container is named rather than a stopped one.
fn refuse(record: &Record, users: &[User]) -> Result<(), Failure> {
    let Some(user) = users.iter().find(|user| user.running).or_else(|| users.first()) else { return Ok(()) };
    Err(conflict(format_args!(
        "unable to delete {} (cannot be forced) - image is being used by {} container {}",
        record.id.short(),
        if user.running { "running" } else { "stopped" },
        describe(user)
    )))
}

/// `4c01db0b339c (web in pod shop/web-7d4)`, or the ID alone.
fn describe(user: &User) -> String {
    let is_long = user.id.len() == 64 && user.id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = if is_long { &user.id[..12] } else { &user.id };
    match &user.pod {
        Some(pod) => format!("{id} ({} in pod {}/{})", user.container, pod.namespace, pod.name),
        None => id.to_owned(),
    }
}

/// An image that the node's agent looks after is wanted on this node, and would come back.
pub fn check_claim(record: &Record, force: bool) -> Result<(), Failure> {
    if !record.is_managed() || force {
        return Ok(());
    }
    Err(conflict(format_args!(
        "unable to remove repository reference \"{}\" (must be forced) - it is kept by an ImageCache; take it out of \
         that, or the agent will put it back",
        record.name().familiar()
    )))
}

/// docker's `conflict: …`.
#[must_use]
pub fn conflict(message: std::fmt::Arguments<'_>) -> Failure {
    Failure::response(format_args!("conflict: {message}"))
}

/// Whether an image has no names left once these are gone.
#[must_use]
pub fn is_last(catalog: &Catalog, id: &Digest, going: &BTreeSet<ImageKey>) -> bool {
    catalog.with_id(id).all(|record| going.contains(&record.stored.key))
}

/// Says what goes when these names do, in their order.
#[must_use]
pub fn report(catalog: &Catalog, going: &[&Record]) -> Vec<Gone> {
    let keys: BTreeSet<ImageKey> = going.iter().map(|record| record.stored.key.clone()).collect();
    let mut gone = Vec::new();
    let (mut untagged, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for record in going {
        let mut untag = |text: String| {
            if untagged.insert(text.clone()) {
                gone.push(Gone::Untagged(text));
            }
        };
        if record.is_tagged() {
            untag(record.name().familiar().to_owned());
        }
        // With the last tag of a repository goes the digest that its registry knows the image by.
        let same_repository =
            |other: &Record| other.repo_digest() == record.repo_digest() && !keys.contains(&other.stored.key);
        if let Some(digest) = record.repo_digest()
            && !catalog.records.iter().any(same_repository)
        {
            untag(digest);
        }
    }
    for record in going {
        if is_last(catalog, &record.id, &keys) && deleted.insert(&record.id) {
            gone.push(Gone::Deleted(record.id.to_string()));
        }
    }
    gone
}

/// The bytes that go when these names do: of blobs that no other image needs.
#[must_use]
pub fn reclaimable(catalog: &Catalog, going: &BTreeSet<ImageKey>) -> u64 {
    let blobs = |going_ones: bool| {
        catalog
            .records
            .iter()
            .filter(move |record| going.contains(&record.stored.key) == going_ones)
            .flat_map(|record| &record.content.blobs)
    };
    let kept: BTreeSet<&Digest> = blobs(false).map(|(digest, _)| digest).collect();
    let freed: BTreeMap<&Digest, u64> = blobs(true)
        .filter(|(digest, _)| !kept.contains(digest))
        .map(|(digest, size)| (digest, *size))
        .collect();
    freed.values().sum()
}

/// Takes the names away, if they still stand for the same images. Returns the records whose names went.
pub fn take_names<'a>(store: &Store, going: &[&'a Record], force: bool) -> Result<Vec<&'a Record>, Failure> {
    let keys: Vec<ImageKey> = going.iter().map(|record| record.stored.key.clone()).collect();
    let removed = store.remove_all(&keys, |image| {
        let unchanged = going.iter().any(|record| {
            record.stored.key == image.key && record.stored.manifest_digest == image.manifest_digest
        });
        unchanged && (force || image.claim == Claim::None)
    })?;
    Ok(going.iter().filter(|record| removed.contains(&record.stored.key)).copied().collect())
}

/// Deletes what nothing needs any more, and lets the container runtime do the same.
pub fn collect(in_use: &dyn InUse, store: &Store, options: &CollectOptions) -> Result<Collected, Failure> {
    let mut collected = store.collect(options)?;
    if !collected.handed_over.is_empty()
        && let Err(why) = in_use.settle(store)
    {
        collected.warnings.push(format!("the container runtime keeps layers that nothing needs: {why}"));
    }
    Ok(collected)
}
