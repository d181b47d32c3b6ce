//! On a real containerd.

use std::sync::Arc;

use larder_registry::Anonymous;
use larder_store::Store;
use larder_tests::{Containerd, ContainerdVersion};

use super::*;
use crate::cri::Cri;

/// Two stores, and what each relies on.
struct Stores {
    _folder: tempfile::TempDir,
    ids: [StoreId; 2],
    blobs: [Digest; 2],
}

impl Stores {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let id = |name| Store::open(&folder.path().join(name)).unwrap().id().unwrap().clone();
        let (ids, blobs) = ([id("first"), id("second")], [b"one", b"two"].map(|text| Digest::sha256(text)));
        Self { _folder: folder, ids, blobs }
    }
}

async fn settle(client: &Client, store: &StoreId, wanted: &[&Digest]) {
    let leases = client.all_leases().await.unwrap();
    client.settle_blobs(store, &wanted.iter().copied().collect(), &leases).await.unwrap();
}

async fn listed(client: &Client, lease: &str) -> BTreeSet<String> {
    client.leased(lease).await.unwrap().into_iter().map(|resource| resource.id).collect()
}

fn only(digest: &Digest) -> BTreeSet<String> {
    [digest.to_string()].into()
}

async fn each_store_has_a_lease_of_its_own(client: &Client) {
    let Stores { _folder, ids, blobs } = Stores::new();
    // As former versions left it.
    client.create_lease(BLOBS, BTreeMap::new()).await.unwrap();
    for digest in &blobs {
        assert!(client.add_to_lease(BLOBS, blob(digest)).await.unwrap());
    }
    settle(client, &ids[0], &[&blobs[0]]).await;
    assert_eq!(listed(client, &of_store(&ids[0])).await, only(&blobs[0]));
    // The other store's blob is nobody's yet, and is kept.
    assert_eq!(listed(client, FORMER_BLOBS).await, only(&blobs[1]));
    let leases = client.all_leases().await.unwrap();
    assert!(leases.iter().all(|lease| lease.id != BLOBS), "{leases:?}");
    let former = leases.iter().find(|lease| lease.id == FORMER_BLOBS).unwrap();
    assert!(former.labels.contains_key(EXPIRE), "it ends by itself");
    settle(client, &ids[1], &[&blobs[1]]).await;
    // One that lets go of all that it had takes nothing from the other; nor does what it looked up for a pull.
    client.lease_blob_for_now(&ids[0], &blobs[1]).await.unwrap();
    client.lease_blob_for_now(&ids[1], &blobs[1]).await.unwrap();
    settle(client, &ids[0], &[]).await;
    assert_eq!(listed(client, &of_store(&ids[0])).await, BTreeSet::new());
    assert_eq!(listed(client, &of_store(&ids[1])).await, only(&blobs[1]));
    settle(client, &ids[1], &[&blobs[1]]).await;
    let leases = client.all_leases().await.unwrap();
    let found = |store| leases.iter().find(|lease| lease.id.starts_with(&found_for(store))).unwrap();
    assert_eq!(listed(client, &found(&ids[0]).id).await, only(&blobs[1]));
    assert_eq!(listed(client, &found(&ids[1]).id).await, BTreeSet::new());
}

fn on(version: ContainerdVersion) {
    let containerd = Containerd::start(version).unwrap();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        let cri = Cri::new(containerd.socket(), Arc::new(Anonymous));
        let client = Client::new(cri.endpoint(), cri.channel());
        each_store_has_a_lease_of_its_own(&client).await;
    });
}

#[test]
fn each_store_has_a_lease_of_its_own_in_containerd_2() {
    on(ContainerdVersion::V2);
}

#[test]
fn each_store_has_a_lease_of_its_own_in_containerd_1_7() {
    on(ContainerdVersion::V17);
}
