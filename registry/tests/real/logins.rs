use std::sync::Arc;

use bytes::Bytes;
use larder_oci::manifest::OCI_MANIFEST;
use larder_registry::{DockerConfig, PushOptions, PushOutcome, RegistryError, RegistryOptions};
use larder_tests::{Scratch, certificates::Authority};

use crate::support::{HostsDir, Server, Setup, client, name, password, random_bytes, read};

const USERS: &[(&str, &str)] = &[("alice", "wonder land:1"), ("bob", "builder")];

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_and_a_login() {
    let authority = Authority::new("test").unwrap();
    let server = Server::start(&Setup { users: USERS, authority: Some(&authority), ..Setup::default() });
    let host = server.host();
    let hosts = HostsDir::new();
    hosts.write(&host, "ca.pem", authority.pem());
    hosts.write(&host, "hosts.toml", &format!("server = 'https://{host}'\nca = 'ca.pem'"));

    let home = Scratch::new("docker-config").unwrap();
    let config = DockerConfig::new(home.path().join("config.json"));
    let options = || RegistryOptions {
        hosts_dir: Some(hosts.path()),
        credentials: Arc::new(config.clone()),
        ..RegistryOptions::default()
    };

    let registry = client(options());
    let refused = registry.login(&host, &password("alice", "hunter2")).await.unwrap_err();
    assert!(matches!(&refused, RegistryError::LoginRefused { .. }), "{refused}");
    assert!(!refused.to_string().contains("hunter2"));
    let outcome = registry.login(&host, &password("alice", "wonder land:1")).await.unwrap();
    assert!(outcome.checked);

    let (digest, bytes) = random_bytes(1, 100_000);
    let image = name(&host, "team/app:v1");
    let push = PushOptions::default();
    let error = registry.push_blob(&image, &digest, 100_000, &bytes, &push).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "no login yet: {error}");

    config.store(&host, &outcome.credential).await.unwrap();
    let pushed = registry.push_blob(&image, &digest, 100_000, &bytes, &push).await.unwrap();
    assert_eq!(pushed, PushOutcome::Uploaded);
    let manifest = Bytes::from(format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{digest}","size":100000}},"layers":[]}}"#
    ));
    let written = registry.put_manifest(&image, "v1", manifest.clone(), OCI_MANIFEST).await.unwrap();

    config.store(&host, &password("bob", "builder")).await.unwrap();
    let other = client(options());
    let found = other.manifest(&image, None).await.unwrap();
    assert_eq!((found.digest, found.bytes), (written, manifest));
    let fetched = other.blob(&image, &digest, 100_000, 0).await.unwrap();
    assert!(read(fetched).await.unwrap() == bytes);

    config.store(&host, &password("bob", "wrecker")).await.unwrap();
    let error = client(options()).manifest(&image, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::LoginRefused { .. }), "{error}");
    // The one that has proved its login goes on with it.
    other.manifest(&image, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_nobody_vouches_for_is_refused_unless_told_otherwise() {
    let authority = Authority::new("test").unwrap();
    let server = Server::start(&Setup { authority: Some(&authority), ..Setup::default() });
    let host = server.host();
    let hosts = HostsDir::new();
    let registry = client(RegistryOptions { hosts_dir: Some(hosts.path()), ..RegistryOptions::default() });
    let image = name(&host, "team/app:v1");

    hosts.write(&host, "hosts.toml", &format!("server = 'https://{host}'"));
    let error = registry.tags(&image).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Unreachable { cause, .. } if cause.contains("certificate")),
        "{error}"
    );

    hosts.write(&host, "hosts.toml", &format!("server = 'https://{host}'\nskip_verify = true"));
    let error = registry.tags(&image).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::NotFound { .. }),
        "TLS works, the repository is not there: {error}"
    );

    hosts.write(&host, "hosts.toml", &format!("server = 'https://{host}'\nca = ['absent.pem']"));
    let error = registry.tags(&image).await.unwrap_err().to_string();
    assert!(error.contains("absent.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_beside_dockers_form() {
    let authority = Authority::new("test").unwrap();
    let server = Server::start(&Setup {
        authority: Some(&authority),
        clients_of: Some(&authority),
        ..Setup::default()
    });
    let host = server.host();
    let image = name(&host, "team/app:v1");
    let hosts = HostsDir::new();
    let registry = client(RegistryOptions { hosts_dir: Some(hosts.path()), ..RegistryOptions::default() });

    hosts.write(&host, "ca.crt", authority.pem());
    let error = registry.tags(&image).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "no client certificate: {error}");

    hosts.write_identity(&host, &authority.client("node", None).unwrap());
    let (digest, bytes) = random_bytes(2, 1000);
    registry.push_blob(&image, &digest, 1000, &bytes, &PushOptions::default()).await.unwrap();
    assert!(registry.blob_exists(&image, &digest).await.unwrap());

    // The same by a hosts.toml, and with somebody else's certificate.
    let stranger = Authority::new("stranger").unwrap().client("node", None).unwrap();
    hosts.write(&host, "stranger.pem", &format!("{}{}", stranger.certificate, stranger.key));
    let toml = |client: &str| format!("server = 'https://{host}'\nca = 'ca.crt'\nclient = {client}");
    hosts.write(&host, "hosts.toml", &toml("[['client.cert', 'client.key']]"));
    assert!(registry.blob_exists(&image, &digest).await.unwrap());
    hosts.write(&host, "hosts.toml", &toml("'stranger.pem'"));
    let error = registry.blob_exists(&image, &digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lets_everybody_in_checks_no_login() {
    let server = Server::start(&Setup::default());
    let registry = client(RegistryOptions::default());
    let outcome = registry.login(&server.host(), &password("alice", "any")).await.unwrap();
    assert!(!outcome.checked);
    drop(server);
    let error = registry.login("127.0.0.1:1", &password("alice", "any")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}
