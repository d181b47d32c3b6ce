//! Uploads that break off. docker-registry 2.8 cannot resume a chunk that broke: the offset of a session is sealed into
//! its `Location`, and once some bytes more have arrived it finds the session invalid. The sessions here follow the
//! specification instead, as distribution 3, Harbor and the clouds' registries do: what arrived counts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderName, StatusCode},
    routing::{head, post, put},
};
use futures::StreamExt;
use larder_oci::Digest;
use larder_registry::{PushOptions, PushOutcome, RegistryError};
use larder_tests::{Registry as Server, RegistryOptions as ServerOptions};

use crate::support::{Relay, name, plain_client, random_bytes, read};

const MIB: usize = 1 << 20;

/// The uploads of a registry, by number, and the blobs that came of them.
#[derive(Default)]
struct Uploads {
    open: Mutex<HashMap<usize, Vec<u8>>>,
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    begun: Mutex<usize>,
}

type Shared = State<Arc<Uploads>>;

fn place(number: usize, length: usize) -> HeaderMap {
    let lines = [
        ("location", format!("/v2/team/app/blobs/uploads/{number}?at={length}")),
        ("range", format!("0-{}", length.saturating_sub(1))),
    ];
    lines.into_iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

async fn blob(State(uploads): Shared, Path(digest): Path<String>) -> StatusCode {
    let known = uploads.blobs.lock().unwrap().contains_key(&digest);
    if known { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn begin(State(uploads): Shared) -> (StatusCode, HeaderMap) {
    let mut begun = uploads.begun.lock().unwrap();
    *begun += 1;
    uploads.open.lock().unwrap().insert(*begun, Vec::new());
    (StatusCode::ACCEPTED, place(*begun, 0))
}

async fn status(
    State(uploads): Shared,
    Path(number): Path<usize>,
) -> Result<(StatusCode, HeaderMap), StatusCode> {
    let open = uploads.open.lock().unwrap();
    let length = open.get(&number).ok_or(StatusCode::NOT_FOUND)?.len();
    Ok((StatusCode::NO_CONTENT, place(number, length)))
}

/// Takes what comes, for as long as it comes.
async fn chunk(
    State(uploads): Shared,
    Path(number): Path<usize>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, HeaderMap), StatusCode> {
    let range = headers["content-range"].to_str().unwrap();
    let start: usize = range.split_once('-').unwrap().0.parse().unwrap();
    let length = || uploads.open.lock().unwrap().get(&number).map(Vec::len).ok_or(StatusCode::NOT_FOUND);
    if start != length()? {
        return Err(StatusCode::RANGE_NOT_SATISFIABLE);
    }
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| StatusCode::BAD_REQUEST)?;
        uploads.open.lock().unwrap().get_mut(&number).ok_or(StatusCode::NOT_FOUND)?.extend(&piece);
    }
    Ok((StatusCode::ACCEPTED, place(number, length()?)))
}

async fn commit(State(uploads): Shared, Path(number): Path<usize>, RawQuery(query): RawQuery) -> StatusCode {
    let digest = query.unwrap().split_once("digest=").unwrap().1.replace("%3A", ":");
    let Some(bytes) = uploads.open.lock().unwrap().remove(&number) else { return StatusCode::NOT_FOUND };
    if !digest.parse::<Digest>().unwrap().matches(&bytes) {
        return StatusCode::BAD_REQUEST;
    }
    uploads.blobs.lock().unwrap().insert(digest, bytes);
    StatusCode::CREATED
}

async fn registry() -> (Arc<Uploads>, String) {
    let uploads = Arc::new(Uploads::default());
    let router = Router::new()
        .route("/v2/team/app/blobs/{digest}", head(blob))
        .route("/v2/team/app/blobs/uploads/", post(begin))
        .route("/v2/team/app/blobs/uploads/{number}", put(commit).patch(chunk).get(status))
        .with_state(Arc::clone(&uploads));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (uploads, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_where_the_registry_stopped() {
    let (uploads, host) = registry().await;
    let (digest, bytes) = random_bytes(1, 40 * MIB);
    let size = bytes.len() as u64;
    for chunk_size in [1 << 30, 7 << 20] {
        uploads.blobs.lock().unwrap().clear();
        let relay = Relay::start(host.clone(), &[15 << 20, 12 << 20, 100_000]).await;
        let options = PushOptions { chunk_size, ..PushOptions::default() };
        let image = name(relay.host(), "team/app:v1");
        let outcome = plain_client().push_blob(&image, &digest, size, &bytes, &options).await.unwrap();
        assert_eq!(outcome, PushOutcome::Uploaded);
        assert!(uploads.blobs.lock().unwrap()[digest.as_str()] == bytes);
        let sent = relay.sent();
        assert!(sent < size + size / 8, "{sent} bytes were sent for {size}");
    }
    assert_eq!(*uploads.begun.lock().unwrap(), 2, "one session each");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_again_where_the_registry_cannot_resume() {
    let server = Server::start(ServerOptions::default()).unwrap();
    let registry = plain_client();
    let (digest, bytes) = random_bytes(1, 20 * MIB);
    let size = bytes.len() as u64;
    // The first connection is for what only reads.
    let relay = Relay::start(server.host(), &[u64::MAX, 15 << 20]).await;
    let image = name(relay.host(), "team/app:v1");
    let outcome = registry.push_blob(&image, &digest, size, &bytes, &PushOptions::default()).await.unwrap();
    assert_eq!(outcome, PushOutcome::Uploaded);
    let stream = registry.blob(&image, &digest, size, 0).await.unwrap();
    assert!(read(stream).await.unwrap() == bytes);
    assert_eq!(server.requests().unwrap().count(|request| request.method == "POST"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_nothing_gets_through() {
    let (uploads, host) = registry().await;
    let (digest, bytes) = random_bytes(1, 9 * MIB);
    // Every connection breaks before the first bytes of the blob are through.
    let relay = Relay::start(host, &[1; 64]).await;
    let image = name(relay.host(), "team/app:v1");
    let options = PushOptions::default();
    let pushed = plain_client().push_blob(&image, &digest, bytes.len() as u64, &bytes, &options).await;
    let error = pushed.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(uploads.blobs.lock().unwrap().is_empty());
}
