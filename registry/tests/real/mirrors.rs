use std::sync::Arc;

use larder_registry::{ConfigFile, RegistryError, RegistryOptions};
use larder_tests::{
    Answer, Fault, Image, Layer, Proxy, Registry as Server, RegistryOptions as ServerOptions, Rule,
};

use crate::support::{HostsDir, client, name, read};

fn server() -> Server {
    Server::start(ServerOptions::default()).unwrap()
}

fn image(seed: u64) -> Image {
    Image::builder().layer(&Layer::random(seed, 300_000).unwrap()).build().unwrap()
}

fn hosts_of(upstream: &str, mirrors: &str) -> (HostsDir, larder_registry::Registry) {
    let hosts = HostsDir::new();
    hosts.write(upstream, "hosts.toml", mirrors);
    let registry = client(RegistryOptions { hosts_dir: Some(hosts.path()), ..RegistryOptions::default() });
    (hosts, registry)
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_tried_first_and_the_registry_last() {
    let (mirror, upstream) = (server(), server());
    let (mirrored, only_upstream) = (image(1), image(2));
    mirror.push(&mirrored, "team/app", "v1").unwrap();
    upstream.push(&only_upstream, "team/app", "v2").unwrap();
    let host = upstream.host();
    let (_hosts, registry) =
        hosts_of(&host, &format!("server = 'http://{host}'\n[host.'http://{}']", mirror.host()));
    let mark = upstream.mark().unwrap();

    let v1 = name(&host, "team/app:v1");
    assert_eq!(registry.manifest(&v1, None).await.unwrap().digest, *mirrored.digest());
    let layer = &mirrored.layers()[0];
    let stream = registry.blob(&v1, &layer.digest, layer.size(), 0).await.unwrap();
    assert_eq!(stream.host, mirror.host());
    assert!(read(stream).await.unwrap() == layer.bytes);
    assert_eq!(upstream.requests_since(mark).unwrap().len(), 0);
    let told = format!("ns={}", host.replace(':', "%3A"));
    assert!(mirror.requests().unwrap().iter().any(|request| request.path.contains(&told)));

    let v2 = name(&host, "team/app:v2");
    assert_eq!(registry.manifest(&v2, None).await.unwrap().digest, *only_upstream.digest());
    assert!(registry.blob_exists(&v2, &only_upstream.layers()[0].digest).await.unwrap());
    assert!(upstream.requests().unwrap().iter().all(|request| !request.path.contains("ns=")));

    mirror.stop();
    let layer = &only_upstream.layers()[0];
    let stream = registry.blob(&v2, &layer.digest, layer.size(), 1000).await.unwrap();
    assert_eq!((stream.start, stream.host.as_str()), (1000, host.as_str()));
    assert!(read(stream).await.unwrap() == layer.bytes[1000..]);

    upstream.stop();
    let error = registry.manifest(&v2, None).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Unreachable { registry, .. } if *registry == host), "{error}");
}

/// Where `hosts.toml` has the registry both as a host, with its authority, and as the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_its_own_host_is_asked_once() {
    let server = Server::start(ServerOptions { tls: true, ..ServerOptions::default() }).unwrap();
    server.push(&image(1), "team/app", "v1").unwrap();
    let host = server.host();
    let (_hosts, registry) = hosts_of(&host, &server.hosts_toml(server.ca_file().unwrap()));
    registry.manifest(&name(&host, "team/app:v1"), None).await.unwrap();
    let mark = server.mark().unwrap();
    let error = registry.manifest(&name(&host, "team/app:v2"), None).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::NotFound { what, .. } if what.contains("team/app:v2")),
        "{error}"
    );
    assert_eq!(server.requests_since(mark).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_may_not_resolve_is_not_asked_for_tags() {
    let (mirror, upstream) = (server(), server());
    let (ours, theirs) = (image(1), image(2));
    upstream.push(&ours, "team/app", "v1").unwrap();
    mirror.push(&theirs, "team/app", "v1").unwrap();
    mirror.push(&ours, "team/app", "other").unwrap();
    let host = upstream.host();
    let (_hosts, registry) = hosts_of(
        &host,
        &format!("server = 'http://{host}'\n[host.'http://{}']\ncapabilities = ['pull']", mirror.host()),
    );
    let mark = mirror.mark().unwrap();
    let v1 = name(&host, "team/app:v1");
    assert_eq!(registry.manifest(&v1, None).await.unwrap().digest, *ours.digest());
    assert_eq!(registry.head_manifest(&v1).await.unwrap().digest, *ours.digest());
    assert_eq!(registry.tags(&v1).await.unwrap(), ["v1"]);
    assert_eq!(mirror.requests_since(mark).unwrap().len(), 0);
    // By digest it is as good as any.
    registry.manifest(&v1, Some(ours.digest())).await.unwrap();
    assert_eq!(mirror.requests_since(mark).unwrap().manifest_gets(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lies_or_breaks_off_is_passed_over() {
    let upstream = server();
    let image = image(1);
    upstream.push(&image, "team/app", "v1").unwrap();
    let mirror = Proxy::start(&upstream.host()).unwrap();
    mirror.add(Rule::get("/manifests/").then(Fault::FlipByte(20)));
    mirror.add(Rule::get("/blobs/").then(Fault::ResetAfter(100_000)));
    let host = upstream.host();
    let (_hosts, registry) =
        hosts_of(&host, &format!("server = 'http://{host}'\n[host.'http://{}']", mirror.host()));
    let v1 = name(&host, "team/app:v1");
    assert_eq!(registry.manifest(&v1, None).await.unwrap().bytes, image.manifest.bytes);

    let layer = &image.layers()[0];
    let broken = registry.blob(&v1, &layer.digest, layer.size(), 0).await.unwrap();
    assert_eq!(broken.host, mirror.host());
    let error = read(broken).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    let rest = registry.blob(&v1, &layer.digest, layer.size(), 100_000).await.unwrap();
    assert_eq!(rest.host, host);
    assert!(read(rest).await.unwrap() == layer.bytes[100_000..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_gets_its_own_headers_and_login_and_nobody_elses() {
    let upstream = server();
    let image = image(1);
    upstream.push(&image, "team/app", "v1").unwrap();
    let (mirror, front) = (Proxy::start(&upstream.host()).unwrap(), Proxy::start(&upstream.host()).unwrap());
    let basic = "Basic realm=\"test\"";
    let has = |name: &'static str, value: &'static str| {
        move |request: &axum::http::request::Parts| request.headers.get(name).is_some_and(|v| v == value)
    };
    // u:p in base64.
    let login = has("authorization", "Basic dTpw");
    front.add(Rule::any("").when(move |request| !login(request)).then(Answer::unauthorized(basic)));
    let key = has("x-key", "secret");
    let foreign = front.add(Rule::any("").when(key).then(Answer::status(500)));
    let without_key = mirror.add(Rule::any("").when(move |request| !key(request)).then(Answer::status(500)));
    mirror.add(Rule::any("").then(Answer::unauthorized(basic)));

    let host = front.host();
    let hosts = HostsDir::new();
    hosts.write(
        &host,
        "hosts.toml",
        &format!("server = 'http://{host}'\n[host.'http://{}'.header]\nx-key = 'secret'", mirror.host()),
    );
    let auths = format!(r#"{{"auths": {{"{host}": {{"auth": "dTpw"}}}}}}"#);
    let logins = Arc::new(ConfigFile::parse("secret".as_ref(), auths.as_bytes()).unwrap());
    let registry = client(RegistryOptions {
        hosts_dir: Some(hosts.path()),
        credentials: logins,
        ..RegistryOptions::default()
    });
    registry.manifest(&name(&host, "team/app:v1"), None).await.unwrap();
    let asked = mirror.exchanges();
    assert!(!asked.is_empty() && asked.iter().all(|exchange| !exchange.authorized), "{asked:?}");
    assert_eq!((foreign.count(), without_key.count()), (0, 0));
}
