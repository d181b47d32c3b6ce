//! Leases: what keeps things from containerd's garbage collector.
//!
//! - One an image, for as long as it is given to the runtime: its manifests, configuration and unpacked layers, and its
//!   layers while they are being written. When somebody removes the image's names, putting them back is all there is to do.
//! - One a layer store for all blobs that it has handed over, whichever image they came with: when an image is withdrawn,
//!   the layers that the store still needs for others stay. It bears the store's ID: what other stores need is theirs.
//! - Temporary ones, that end by themselves should their owner be killed: for what is half unpacked, and for blobs that a pull
//!   found here.
//!
//! <https://github.com/containerd/containerd/blob/v2.2.1/docs/garbage-collection.md>

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use larder_oci::{Digest, ImageKey};
use larder_store::StoreId;
use tokio::time::timeout;

use super::{
    client::{Answer, Client, request, timed},
    records::{parse_key, write_key},
};
use crate::{
    Owner, RuntimeError,
    api::leases::{
        AddResourceRequest, CreateRequest, DeleteRequest, DeleteResourceRequest, Lease, ListRequest,
        ListResourcesRequest, Resource,
    },
    socket::CALL_TIMEOUT,
};

/// The lease on blobs that layer stores had handed over before each had a lease of its own.
const BLOBS: &str = "larder/blobs";
/// The lease that takes over what is left in that one, until the stores that need it have been looked after.
const FORMER_BLOBS: &str = "larder/former-blobs";
/// How long it does.
const MIGRATION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The label that tells which image a lease is for.
const IMAGE: &str = "larder.dev/image";
/// The label of a lease that a person's delivery has made, and not the agent's.
const PERSON: &str = "larder.dev/person";
/// The label that ends a lease at a time.
const EXPIRE: &str = "containerd.io/gc.expire";
/// How long a temporary lease outlives its owner's death.
const TEMPORARY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long whoever lets go of blobs waits until they are gone.
const SETTLED: Duration = Duration::from_secs(3);
/// When a temporary lease that may not have been there yet is ended once more.
const AGAIN: Duration = Duration::from_secs(5);
/// How the leases on blobs that pulls found here begin.
const FOUND: &str = "larder/found/";
/// The same lease serves all blobs that pulls find here in such a span of time.
const SPAN: u64 = 12 * 60 * 60;

/// A short name for an image's key, which may be longer than a name or a label can be.
pub(super) fn mark(key: &ImageKey) -> String {
    Digest::sha256(key.to_string().as_bytes()).hex()[..32].to_owned()
}

/// The name of an image's lease.
pub(super) fn of_image(key: &ImageKey) -> String {
    format!("larder/image/{}", mark(key))
}

/// The name of the lease on blobs that a store has handed over.
fn of_store(store: &StoreId) -> String {
    format!("{BLOBS}/{store}")
}

/// How the names of the leases begin on blobs that pulls to a store found here.
fn found_for(store: &StoreId) -> String {
    format!("{FOUND}{store}/")
}

/// A blob, as a lease lists it.
pub(super) fn blob(digest: &Digest) -> Resource {
    Resource { id: digest.to_string(), r#type: "content".to_owned() }
}

/// A snapshot, as a lease lists it.
pub(super) fn snapshot(snapshotter: &str, name: &str) -> Resource {
    Resource { id: name.to_owned(), r#type: format!("snapshots/{snapshotter}") }
}

fn in_future(span: Duration) -> BTreeMap<String, String> {
    let time = Timestamp::now().checked_add(span).unwrap_or(Timestamp::MAX);
    BTreeMap::from([(EXPIRE.to_owned(), time.to_string())])
}

/// Whether a lease is that of a person's delivery. No delivery takes longer than a temporary lease lasts.
fn is_a_persons(lease: &Lease, now: Timestamp) -> bool {
    let made = lease.created_at.as_ref().map_or(0, |made| made.seconds);
    lease.labels.contains_key(PERSON) && now.as_second() - made < TEMPORARY.as_secs().cast_signed()
}

/// The images that have a lease, save those that a person may be delivering at this moment.
pub(super) fn leased_images(leases: &[Lease]) -> BTreeSet<ImageKey> {
    let now = Timestamp::now();
    let leases = leases.iter().filter(|lease| !is_a_persons(lease, now));
    leases.filter_map(|lease| parse_key(lease.labels.get(IMAGE)?)).collect()
}

impl Client {
    /// Makes an image's lease, if it is not there.
    pub(super) async fn lease_image(&self, key: &ImageKey, owner: Owner) -> Result<String, RuntimeError> {
        let id = of_image(key);
        let persons = matches!(owner, Owner::Person { .. }).then(|| (PERSON.to_owned(), "true".to_owned()));
        let image = (IMAGE.to_owned(), write_key(key));
        self.create_lease(&id, persons.into_iter().chain([image]).collect()).await?;
        Ok(id)
    }

    /// All leases of containerd, ours among them.
    pub(super) async fn all_leases(&self) -> Result<Vec<Lease>, RuntimeError> {
        let message = ListRequest { filters: Vec::new() };
        match self.attempt("list leases", self.leases().list(request(message))).await? {
            Answer::Done(answer) => Ok(answer.leases),
            Answer::NotFound | Answer::AlreadyExists => Ok(Vec::new()),
        }
    }

    async fn create_lease(&self, id: &str, labels: BTreeMap<String, String>) -> Result<(), RuntimeError> {
        let message = CreateRequest { id: id.to_owned(), labels };
        let what = format!("create lease {id}");
        match self.attempt(&what, self.leases().create(request(message))).await? {
            Answer::Done(_) | Answer::AlreadyExists | Answer::NotFound => Ok(()),
        }
    }

    /// Ends a lease. With `wait`, returns when what it kept is gone, unless something else keeps that.
    pub(super) async fn end_lease(&self, id: &str, wait: bool) -> Result<(), RuntimeError> {
        let message = DeleteRequest { id: id.to_owned(), sync: wait };
        let mut client = self.leases();
        let ended = client.delete(request(message));
        match if wait { self.work(ended).await } else { timed(CALL_TIMEOUT, ended).await } {
            Ok(_) => Ok(()),
            Err(status) => self.planned::<()>(&format!("end lease {id}"), &status).map(drop),
        }
    }

    /// Adds something to a lease, whether it is there or not. False: there is no such lease.
    pub(super) async fn add_to_lease(&self, id: &str, resource: Resource) -> Result<bool, RuntimeError> {
        let what = format!("lease {} {}", resource.r#type, resource.id);
        let message = AddResourceRequest { id: id.to_owned(), resource: Some(resource) };
        Ok(self.attempt(&what, self.leases().add_resource(request(message))).await? != Answer::NotFound)
    }

    /// Keeps a blob for a layer store.
    pub(super) async fn lease_blob(&self, store: &StoreId, digest: &Digest) -> Result<(), RuntimeError> {
        self.add_or_create(&of_store(store), BTreeMap::new, blob(digest)).await
    }

    /// Keeps a blob for a layer store for at least a day.
    pub(super) async fn lease_blob_for_now(
        &self,
        store: &StoreId,
        digest: &Digest,
    ) -> Result<(), RuntimeError> {
        let span = Timestamp::now().as_second().unsigned_abs() / SPAN;
        let labels = || in_future(TEMPORARY + Duration::from_secs(SPAN));
        self.add_or_create(&format!("{}{span}", found_for(store)), labels, blob(digest)).await
    }

    async fn add_or_create(
        &self,
        id: &str,
        labels: impl Fn() -> BTreeMap<String, String>,
        resource: Resource,
    ) -> Result<(), RuntimeError> {
        // Between the two calls somebody may end the lease; twice is not by chance.
        for _ in 0..3 {
            if self.add_to_lease(id, resource.clone()).await? {
                return Ok(());
            }
            self.create_lease(id, labels()).await?;
        }
        let what = format!("lease {} {}", resource.r#type, resource.id);
        Err(RuntimeError::Refused { what, cause: format!("lease {id} goes as soon as it is made") })
    }

    /// Makes a store's lease on handed-over blobs list just those that are `wanted`, and are there. `leases` are all there
    /// are.
    ///
    /// One that somebody hands over at this moment may be let go of here. Its image's lease has it, and the next time it is
    /// among those that are wanted.
    pub(super) async fn settle_blobs(
        &self,
        store: &StoreId,
        wanted: &BTreeSet<&Digest>,
        leases: &[Lease],
    ) -> Result<(), RuntimeError> {
        let own = of_store(store);
        let listed = self.leased(&own).await?;
        let mut listed: BTreeMap<String, Resource> =
            listed.into_iter().map(|resource| (resource.id.clone(), resource)).collect();
        for digest in wanted {
            if listed.remove(digest.as_str()).is_none() {
                self.lease_blob(store, digest).await?;
            }
        }
        if leases.iter().any(|lease| lease.id == BLOBS) {
            self.give_up_former(wanted).await?;
        }
        // What a pull found here has a better lease now, which ends when the store needs it no more.
        let is_kept = |resource: &Resource| wanted.iter().any(|digest| digest.as_str() == resource.id);
        let prefix = found_for(store);
        for found in leases.iter().filter(|lease| lease.id.starts_with(&prefix)) {
            let resources = self.leased(&found.id).await?.into_iter();
            self.let_go(&found.id, resources.filter(is_kept)).await?;
        }
        if listed.is_empty() {
            return Ok(());
        }
        self.let_go(&own, listed.into_values()).await?;
        // A lease that lists less does not make the collector run; one that ends does.
        let last = format!("larder/settled/{:016x}", fastrand::u64(..));
        self.create_lease(&last, in_future(TEMPORARY)).await?;
        // The collector runs whether anybody waits or not, and may have other people's images to remove first.
        let message = DeleteRequest { id: last.clone(), sync: true };
        match timeout(SETTLED, self.leases().delete(request(message))).await {
            Err(_) | Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => self.planned::<()>(&format!("end lease {last}"), &status).map(drop),
        }
    }

    /// Ends the lease that all stores had in common. What is not `wanted` by this one may be another's, and is kept until that
    /// has been looked after as well.
    async fn give_up_former(&self, wanted: &BTreeSet<&Digest>) -> Result<(), RuntimeError> {
        let labels = || in_future(MIGRATION);
        for resource in self.leased(BLOBS).await? {
            if !wanted.iter().any(|digest| digest.as_str() == resource.id) {
                self.add_or_create(FORMER_BLOBS, labels, resource).await?;
            }
        }
        self.end_lease(BLOBS, false).await
    }

    /// Makes a lease let go of all but what is `wanted`.
    pub(super) async fn settle_lease(&self, id: &str, wanted: &[Resource]) -> Result<(), RuntimeError> {
        let listed = self.leased(id).await?.into_iter();
        self.let_go(id, listed.filter(|resource| !wanted.contains(resource))).await
    }

    /// What a lease keeps.
    async fn leased(&self, id: &str) -> Result<Vec<Resource>, RuntimeError> {
        let message = ListResourcesRequest { id: id.to_owned() };
        let what = format!("list what lease {id} keeps");
        match self.attempt(&what, self.leases().list_resources(request(message))).await? {
            Answer::Done(answer) => Ok(answer.resources),
            Answer::NotFound | Answer::AlreadyExists => Ok(Vec::new()),
        }
    }

    async fn let_go(&self, id: &str, resources: impl Iterator<Item = Resource>) -> Result<(), RuntimeError> {
        for resource in resources {
            let what = format!("let go of {} {}", resource.r#type, resource.id);
            let message = DeleteResourceRequest { id: id.to_owned(), resource: Some(resource) };
            self.attempt(&what, self.leases().delete_resource(request(message))).await?;
        }
        Ok(())
    }
}

/// A lease for what is half done. It goes when it is dropped, and if its owner is killed, after a day.
#[derive(Debug)]
pub(super) struct Temporary {
    client: Client,
    id: String,
    ended: bool,
}

impl Temporary {
    pub(super) async fn new(client: &Client) -> Result<Self, RuntimeError> {
        // Whoever loses patience while it is being made must end it too.
        let id = format!("larder/unpack/{:016x}", fastrand::u64(..));
        let this = Self { client: client.clone(), id, ended: false };
        client.create_lease(&this.id, in_future(TEMPORARY)).await?;
        Ok(this)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) async fn end(mut self) -> Result<(), RuntimeError> {
        self.client.end_lease(&self.id, false).await?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, id) = (self.client.clone(), self.id.clone());
            // Twice: containerd may still be making it, and be slower with that than with ending it. Where this fails as well,
            // the lease ends by itself.
            runtime.spawn(async move {
                client.end_lease(&id, false).await.ok();
                tokio::time::sleep(AGAIN).await;
                client.end_lease(&id, false).await.ok();
            });
        }
    }
}

#[cfg(test)]
mod tests;
