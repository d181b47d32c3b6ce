use std::process::Command;

use larder_registry::RegistryOptions;
use larder_tests::{Image, Layer, Proxy, Registry as Server, RegistryOptions as ServerOptions};

use crate::support::{client, name};

/// Set in the process that is to use a proxy: the registry on loopback that it must not use it for.
const DIRECT: &str = "LARDER_TEST_DIRECT";

/// The environment belongs to the whole process, so the half that needs another runs in a process of its own.
#[test]
fn a_proxy_from_the_environment_is_used_and_never_for_loopback() {
    if let Ok(direct) = std::env::var(DIRECT) {
        return through_the_proxy(&direct);
    }
    let server = Server::start(ServerOptions::default()).unwrap();
    let image = Image::builder().layer(&Layer::random(1, 1000).unwrap()).build().unwrap();
    server.push(&image, "team/app", "v1").unwrap();
    // What is asked of a proxy by its whole URL, this one asks of its upstream.
    let proxy = Proxy::start(&server.host()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "proxies::a_proxy_from_the_environment_is_used_and_never_for_loopback"])
        .env("http_proxy", format!("http://{}", proxy.host()))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env(DIRECT, server.host())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    let exchanges = proxy.exchanges();
    assert_eq!(exchanges.len(), 1, "{exchanges:?}");
    assert!(exchanges[0].path.ends_with("/v2/team/app/manifests/v1"), "{exchanges:?}");
}

#[tokio::main]
async fn through_the_proxy(direct: &str) {
    let plain_http = vec!["registry.invalid".to_owned()];
    let registry = client(RegistryOptions { plain_http, ..RegistryOptions::default() });
    let by_proxy = registry.manifest(&name("registry.invalid", "team/app:v1"), None).await.unwrap();
    let directly = registry.manifest(&name(direct, "team/app:v1"), None).await.unwrap();
    assert_eq!(by_proxy.digest, directly.digest);
}
