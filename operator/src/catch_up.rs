//! What a new leader does first: it reads what the one before it may have written last.

use std::{fmt::Debug, time::Duration};

use kube::{Api, Client, Resource, api::ListParams};
use larder_plan::index::Dirty;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{
    explain,
    object::{RawImageCache, RawNodeImageCache},
    reconcile::Context,
    watch::PAGE,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a list that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads all `ImageCache`s and `NodeImageCache`s, as they stand now, into the index. Says whether it did; it does not when
/// the shutdown comes before.
///
/// A watch may lag behind by any time, and does not say so. To plan from what it showed last is no harm where each object
/// is planned for itself: the write conflicts, or is repeated. But how many nodes of a roll-out are busy is counted over
/// all of them, and a node that the last leader started must not be missing.
pub(crate) async fn catch_up(context: &Context, shutdown: &CancellationToken) -> bool {
    loop {
        let read = async {
            let client = &context.writer.client;
            read_all::<RawImageCache>(client, |object| context.index_mut().apply_cache(object.into()))
                .await?;
            let take_in = |object: RawNodeImageCache| context.index_mut().apply_node_cache(object.into());
            read_all(client, take_in).await
        };
        tokio::select! {
            () = shutdown.cancelled() => return false,
            read = read => match read {
                Ok(()) => return true,
                Err(why) => tracing::warn!("reading what the last leader wrote, before planning starts: {why}; trying again"),
            },
        }
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Without a resource version, which makes the API server ask its database. What the index has anew already, it keeps.
async fn read_all<K>(client: &Client, mut take_in: impl FnMut(K) -> Dirty) -> Result<(), String>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = tokio::time::timeout(TIMEOUT, api.list(&parameters)).await;
        let page = page.map_err(|_| format!("no answer within {} seconds", TIMEOUT.as_secs()))?;
        let page = page.map_err(|error| explain(&error))?;
        for object in page.items {
            // Everything is looked at as soon as planning starts.
            drop(take_in(object));
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(()),
        }
    }
}
