use std::sync::Arc;

use axum::{Router, extract::RawQuery, http::HeaderMap, response::IntoResponse, routing::get};
use larder_registry::{BlobRange, ConfigFile, RegistryError, RegistryOptions};
use larder_tests::{
    Answer, Fault, Image, Layer, Proxy, Registry as Server, RegistryOptions as ServerOptions, Rule,
};

use crate::support::{client, name, plain_client, read};

fn server_with_image() -> (Server, Image) {
    let server = Server::start(ServerOptions::default()).unwrap();
    let image = Image::builder().layer(&Layer::random(7, 500_000).unwrap()).build().unwrap();
    server.push(&image, "team/app", "v1").unwrap();
    (server, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_asked_for_without_being_fetched() {
    let (server, image) = server_with_image();
    let proxy = Proxy::start(&server.host()).unwrap();
    let (registry, v1) = (plain_client(), name(&proxy.host(), "team/app:v1"));
    let head = registry.head_manifest(&v1).await.unwrap();
    assert_eq!((&head.digest, head.size), (image.digest(), image.manifest.size()));
    assert_eq!(head.content_type.as_deref(), Some(image.manifest.media_type.as_str()));
    assert!(proxy.exchanges().iter().all(|exchange| exchange.method == "HEAD"));

    for fault in [Fault::WithoutHeader("docker-content-digest"), Answer::status(405).into()] {
        proxy.clear();
        proxy.add(Rule::head("/manifests/").then(fault));
        assert_eq!(registry.head_manifest(&v1).await.unwrap(), head);
        assert_eq!(proxy.exchanges().last().unwrap().method, "GET");
    }
    let error = registry.head_manifest(&name(&proxy.host(), "team/app:v2")).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_blob_are_taken_from_who_serves_them_properly() {
    let (server, image) = server_with_image();
    let proxy = Proxy::start(&server.host()).unwrap();
    let (registry, v1) = (plain_client(), name(&proxy.host(), "team/app:v1"));
    let layer = &image.layers()[0];
    let size = layer.size();
    for range in [0..1, 0..size, 1000..200_000, size - 1..size] {
        let BlobRange::Part(part) =
            registry.blob_range(&v1, &layer.digest, size, range.clone()).await.unwrap()
        else {
            panic!("{range:?} was not served");
        };
        assert_eq!(part.start, range.start);
        let bytes = read(part).await.unwrap();
        let at = |offset| usize::try_from(offset).unwrap();
        assert!(bytes == layer.bytes[at(range.start)..at(range.end)], "{range:?}");
    }
    for fault in [
        Fault::IgnoreRange,
        Fault::Header("content-range", format!("bytes 0-999/{size}")),
        Fault::WithoutHeader("content-range"),
        Answer::status(416).into(),
    ] {
        proxy.clear();
        proxy.add(Rule::get("/blobs/").then(fault.clone()));
        let answer = registry.blob_range(&v1, &layer.digest, size, 1000..2000).await.unwrap();
        assert!(matches!(answer, BlobRange::NotServed), "{fault:?}");
    }
    proxy.clear();
    proxy.add(Rule::get("/blobs/").then(Fault::IgnoreRange));
    let whole = registry.blob(&v1, &layer.digest, size, 1000).await.unwrap();
    assert_eq!(whole.start, 0, "who asks for the rest and gets all is told so");
    // What is sent in place of the rest must never lead to a pull that asks the same for ever.
    for fault in [
        Answer::status(416).into(),
        Fault::Header("content-range", format!("bytes 0-999/{size}")),
        Fault::WithoutHeader("content-range"),
    ] {
        proxy.clear();
        proxy.add(Rule::get("/blobs/").when(|r| r.headers.contains_key("range")).then(fault.clone()));
        let whole = registry.blob(&v1, &layer.digest, size, 1000).await.unwrap();
        assert_eq!(whole.start, 0, "{fault:?}");
        assert!(read(whole).await.unwrap() == layer.bytes, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_compressed_unasked_is_named() {
    let (server, image) = server_with_image();
    let proxy = Proxy::start(&server.host()).unwrap();
    let layer = &image.layers()[0];
    let asks_for_identity = |request: &axum::http::request::Parts| {
        request.headers.get("accept-encoding").is_some_and(|coding| coding == "identity")
    };
    proxy.add(
        Rule::get("/blobs/")
            .when(asks_for_identity)
            .then(Fault::ReplaceBody("something shorter".into()))
            .then(Fault::Header("content-encoding", "gzip".to_owned())),
    );
    let v1 = name(&proxy.host(), "team/app:v1");
    let asked = plain_client().blob(&v1, &layer.digest, layer.size(), 0).await;
    let error = asked.err().unwrap().to_string();
    assert!(error.contains("comes in \"gzip\" coding, which was not asked for"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_on_another_host_gets_the_range_and_no_login() {
    let (server, image) = server_with_image();
    let (front, storage) = (Proxy::start(&server.host()).unwrap(), Proxy::start(&server.host()).unwrap());
    let without = |request: &axum::http::request::Parts| !request.headers.contains_key("authorization");
    front.add(Rule::any("").when(without).then(Answer::unauthorized("Basic realm=\"test\"")));
    let layer = &image.layers()[0];
    let location = format!("http://{}/v2/team/app/blobs/{}?signature=s", storage.host(), layer.digest);
    front.add(Rule::any("/blobs/").then(Answer::status(307).header("location", &location)));

    let auths = format!(r#"{{"auths": {{"{}": {{"username": "u", "password": "p"}}}}}}"#, front.host());
    let logins = ConfigFile::parse("secret".as_ref(), auths.as_bytes()).unwrap();
    let registry = client(RegistryOptions { credentials: Arc::new(logins), ..RegistryOptions::default() });
    let v1 = name(&front.host(), "team/app:v1");
    assert!(registry.blob_exists(&v1, &layer.digest).await.unwrap());
    let answer = registry.blob_range(&v1, &layer.digest, layer.size(), 10..1000).await.unwrap();
    let BlobRange::Part(part) = answer else { panic!("not served") };
    assert!(read(part).await.unwrap() == layer.bytes[10..1000]);
    let asked = storage.exchanges();
    assert_eq!(asked.last().unwrap().range.as_deref(), Some("bytes=10-999"));
    assert!(asked.iter().all(|exchange| !exchange.authorized), "{asked:?}");
    assert!(front.exchanges().last().unwrap().authorized);
}

/// docker-registry 2.8 gives all tags at once. This one gives them in pages, as the specification allows, with links
/// that are relative or absolute by turns, and sends strangers on an endless walk.
async fn paging_registry() -> String {
    async fn tags(RawQuery(query): RawQuery, headers: HeaderMap) -> impl IntoResponse {
        let last = query.as_deref().and_then(|query| query.split("last=").nth(1)).unwrap_or("0");
        let last: usize = last.split('&').next().unwrap().parse().unwrap();
        let page: Vec<_> = (last + 1..=last + 100).map(|number| format!("\"t{number}\"")).collect();
        let host = headers["host"].to_str().unwrap();
        let base = if last.is_multiple_of(200) { String::new() } else { format!("http://{host}") };
        let link = format!("<{base}/v2/team/app/tags/list?n=100&last={}>; rel=\"next\"", last + 100);
        let body = format!("{{\"name\": \"team/app\", \"tags\": [{}]}}", page.join(","));
        let link = (last + 100 < 1000).then(|| ("link".parse().unwrap(), link.parse().unwrap()));
        (HeaderMap::from_iter(link), body)
    }
    async fn endless() -> impl IntoResponse {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let next = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        ([("link", format!("</v2/endless/tags/list?last={next}>; rel=\"next\""))], "{\"tags\": null}")
    }
    let router =
        Router::new().route("/v2/team/app/tags/list", get(tags)).route("/v2/endless/tags/list", get(endless));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_read_page_by_page_and_not_for_ever() {
    let (server, _) = server_with_image();
    let registry = plain_client();
    assert_eq!(registry.tags(&name(&server.host(), "team/app")).await.unwrap(), ["v1"]);
    let error = registry.tags(&name(&server.host(), "team/other")).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");

    let host = paging_registry().await;
    let tags = registry.tags(&name(&host, "team/app")).await.unwrap();
    assert_eq!((tags.len(), tags[0].as_str(), tags[999].as_str()), (1000, "t1", "t1000"));
    let error = registry.tags(&name(&host, "endless")).await.unwrap_err().to_string();
    assert!(error.contains("more than 1000 pages"), "{error}");
}
