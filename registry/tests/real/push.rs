use std::sync::{Arc, Mutex};

use bytes::Bytes;
use larder_oci::{Digest, manifest::OCI_MANIFEST};
use larder_registry::{BlobFile, ConfigFile, PushOptions, PushOutcome, RegistryError, RegistryOptions};
use larder_tests::{
    Answer, Fault, Proxy, Registry as Server, RegistryOptions as ServerOptions, Rule, Scratch,
};

use crate::support::{client, name, plain_client, random_bytes, read};

const MIB: usize = 1 << 20;

fn server() -> Server {
    Server::start(ServerOptions::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_of_a_blob_arrives_and_is_not_sent_twice() {
    let (server, registry) = (server(), plain_client());
    let image = name(&server.host(), "team/app:v1");
    let folder = Scratch::new("blobs").unwrap();
    for (seed, size) in [(1, 0), (2, 1), (3, 8 * MIB), (4, 8 * MIB + 1), (5, 21 * MIB + 7)] {
        let (digest, bytes) = random_bytes(seed, size);
        let file = BlobFile(folder.write(digest.hex(), &bytes).unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let options = PushOptions {
            chunk_size: 5 << 20,
            progress: Some(Arc::new(move |offset| log.lock().unwrap().push(offset))),
            ..PushOptions::default()
        };
        let outcome = registry.push_blob(&image, &digest, size as u64, &file, &options).await.unwrap();
        assert_eq!(outcome, PushOutcome::Uploaded, "{size}");
        let seen = seen.lock().unwrap().clone();
        assert!(seen.is_sorted() && seen.last().copied().unwrap_or(0) == size as u64, "{size}: {seen:?}");
        let stream = registry.blob(&image, &digest, size as u64, 0).await.unwrap();
        assert!(read(stream).await.unwrap() == bytes, "{size}");

        let mark = server.mark().unwrap();
        let again = registry.push_blob(&image, &digest, size as u64, &file, &options).await.unwrap();
        assert_eq!(again, PushOutcome::AlreadyExists, "{size}");
        assert_eq!(server.requests_since(mark).unwrap().count(|request| request.method != "HEAD"), 0);
    }
    assert_eq!(server.requests().unwrap().count(|request| request.method == "PATCH"), 2 + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_mounted_or_the_session_that_comes_instead_is_used() {
    let (server, registry) = (server(), plain_client());
    let (digest, bytes) = random_bytes(1, 100);
    let from = name(&server.host(), "base/ubuntu:v1");
    registry.push_blob(&from, &digest, 100, &bytes, &PushOptions::default()).await.unwrap();

    let mount = PushOptions { mount_from: Some("base/ubuntu".to_owned()), ..PushOptions::default() };
    let mark = server.mark().unwrap();
    let image = name(&server.host(), "team/app:v1");
    let outcome = registry.push_blob(&image, &digest, 100, &bytes, &mount).await.unwrap();
    assert_eq!(outcome, PushOutcome::Mounted { from: "base/ubuntu".to_owned() });
    assert_eq!(server.requests_since(mark).unwrap().count(|request| request.method == "PUT"), 0);
    assert!(registry.blob_exists(&image, &digest).await.unwrap());

    let (absent, bytes) = random_bytes(2, 100);
    let mark = server.mark().unwrap();
    let outcome = registry.push_blob(&image, &absent, 100, &bytes, &mount).await.unwrap();
    assert_eq!(outcome, PushOutcome::Uploaded);
    assert_eq!(server.requests_since(mark).unwrap().count(|request| request.method == "POST"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_are_tried_again_and_lost_sessions_begun_again() {
    let (server, registry) = (server(), plain_client());
    let proxy = Proxy::start(&server.host()).unwrap();
    let image = name(&proxy.host(), "team/app:v1");
    let options = PushOptions { chunk_size: 5 << 20, ..PushOptions::default() };
    let is = |method: &'static str| move |request: &axum::http::request::Parts| request.method == method;
    let faults = [
        Rule::head("/blobs/").times(2).then(Answer::status(503)),
        Rule::any("/uploads/").when(is("POST")).times(1).then(Answer::status(429).header("retry-after", "1")),
        Rule::any("/uploads/").when(is("PATCH")).times(1).then(Answer::status(502)),
        // The session is lost: it is not known when the next chunk comes, nor when asked for.
        Rule::any("/uploads/").when(is("PATCH")).times(1).then(Answer::status(404)),
        Rule::get("/uploads/").times(1).then(Answer::status(404)),
        // The blob is there, and the answer gets lost.
        Rule::any("/uploads/").when(is("PUT")).times(1).then(Fault::ResetAfter(0)),
        Rule::any("/manifests/").when(is("PUT")).times(1).then(Answer::status(500)),
    ];
    let hits: Vec<_> = faults.into_iter().map(|rule| proxy.add(rule)).collect();
    let (digest, bytes) = random_bytes(1, 12 * MIB);
    let size = bytes.len() as u64;
    registry.push_blob(&image, &digest, size, &bytes, &options).await.unwrap();
    let manifest = manifest(&digest, size);
    registry.put_manifest(&image, "v1", manifest.clone(), OCI_MANIFEST).await.unwrap();
    for (number, hits) in hits.iter().enumerate() {
        assert!(hits.count() > 0, "fault {number} was not met");
    }
    let direct = name(&server.host(), "team/app:v1");
    assert!(read(registry.blob(&direct, &digest, size, 0).await.unwrap()).await.unwrap() == bytes);
    assert_eq!(registry.manifest(&direct, None).await.unwrap().bytes, manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_as_large_as_the_registry_wants() {
    let (server, registry) = (server(), plain_client());
    let proxy = Proxy::start(&server.host()).unwrap();
    proxy.add(
        Rule::any("/uploads/")
            .when(|request| request.method == "POST")
            .then(Fault::Header("oci-chunk-min-length", "6291456".to_owned())),
    );
    let image = name(&proxy.host(), "team/app:v1");
    let (digest, bytes) = random_bytes(1, 13 * MIB);
    let options = PushOptions { chunk_size: 1 << 20, ..PushOptions::default() };
    registry.push_blob(&image, &digest, bytes.len() as u64, &bytes, &options).await.unwrap();
    assert_eq!(server.requests().unwrap().count(|request| request.method == "PATCH"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_takes_no_chunks_gets_the_blob_whole() {
    let (server, registry) = (server(), plain_client());
    let (digest, bytes) = random_bytes(1, 20 * MIB);
    let size = bytes.len() as u64;
    let proxy = Proxy::start(&server.host()).unwrap();
    let image = name(&proxy.host(), "team/app:v1");
    let chunk = |request: &axum::http::request::Parts| request.method == "PATCH";
    proxy.add(Rule::any("/uploads/").when(chunk).then(Answer::status(416)));
    // Nor does it let anybody look.
    proxy.add(Rule::head("/blobs/").times(1).then(Answer::status(403)));
    let outcome = registry.push_blob(&image, &digest, size, &bytes, &PushOptions::default()).await;
    assert_eq!(outcome.unwrap(), PushOutcome::Uploaded);
    let direct = name(&server.host(), "team/app:v1");
    assert!(read(registry.blob(&direct, &digest, size, 0).await.unwrap()).await.unwrap() == bytes);
    assert_eq!(server.requests().unwrap().count(|request| request.method == "PUT"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_goes_to_another_host_that_takes_the_upload() {
    let server = server();
    let (front, storage) = (Proxy::start(&server.host()).unwrap(), Proxy::start(&server.host()).unwrap());
    let without = |request: &axum::http::request::Parts| !request.headers.contains_key("authorization");
    front.add(Rule::any("").when(without).then(Answer::unauthorized("Basic realm=\"test\"")));
    let location = format!("http://{}/storage?signature=s", storage.host());
    front.add(Rule::any("/uploads/").then(Answer::status(202).header("location", &location)));
    storage.add(Rule::any("/storage").then(Answer::status(201)));

    let auths = format!(r#"{{"auths": {{"{}": {{"username": "u", "password": "p"}}}}}}"#, front.host());
    let logins = ConfigFile::parse("secret".as_ref(), auths.as_bytes()).unwrap();
    let registry = client(RegistryOptions { credentials: Arc::new(logins), ..RegistryOptions::default() });
    let (digest, bytes) = random_bytes(1, 100);
    let image = name(&front.host(), "team/app:v1");
    registry.push_blob(&image, &digest, 100, &bytes, &PushOptions::default()).await.unwrap();

    assert!(front.exchanges().last().unwrap().authorized);
    let stored = storage.exchanges();
    assert_eq!((stored.len(), stored[0].method.as_str(), stored[0].authorized), (1, "PUT", false));
    assert_eq!(stored[0].path, format!("/storage?signature=s&digest=sha256%3A{}", digest.hex()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_refuses_is_one_clear_error() {
    let (server, registry) = (server(), plain_client());
    let image = name(&server.host(), "team/app:v1");
    let options = PushOptions::default();
    let (digest, bytes) = random_bytes(1, 100);

    let (other, _) = random_bytes(2, 100);
    let error = registry.push_blob(&image, &other, 100, &bytes, &options).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Status { status: 400, .. }), "{error}");
    let error = registry.push_blob(&image, &digest, 101, &bytes, &options).await.unwrap_err();
    assert!(error.to_string().contains("1 bytes shorter"), "{error}");
    let absent = BlobFile("/nonexistent/blob".into());
    let error = registry.push_blob(&image, &digest, 100, &absent, &options).await.unwrap_err();
    assert!(matches!(error, RegistryError::Source { .. }), "{error}");

    let error = registry.put_manifest(&image, "v1", manifest(&digest, 100), OCI_MANIFEST).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::NotFound { .. } | RegistryError::Status { .. }),
        "no blob: {error}"
    );
    let error = registry.put_manifest(&image, other.as_str(), bytes, OCI_MANIFEST).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    let huge = Bytes::from(vec![b' '; 5 * MIB]);
    let error = registry.put_manifest(&image, "v1", huge, OCI_MANIFEST).await.unwrap_err();
    assert!(matches!(error, RegistryError::Manifest { .. }), "{error}");
}

fn manifest(digest: &Digest, size: u64) -> Bytes {
    format!(
        r#"{{ "schemaVersion": 2, "mediaType": "{OCI_MANIFEST}", "config": {{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "{digest}", "size": {size}}}, "layers": []  }}"#
    )
    .into()
}
