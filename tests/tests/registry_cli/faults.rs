//! Registries that misbehave in ways that real ones do.

use larder_tests::{Answer, Fault, Proxy, RegistryOptions, Rule};

use crate::support::{Desk, image, registry};

#[test]
fn retry_after_is_obeyed_and_the_pull_goes_on() {
    let (desk, registry) = (Desk::new(), registry());
    let built = image(200, &[200_000]);
    registry.push(&built, "busy", "v1").unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let busy = || Answer::status(429).header("retry-after", "1");
    let manifests = proxy.add(Rule::get("/manifests/").times(1).then(busy()));
    let blobs = proxy.add(Rule::get("/blobs/").times(1).then(Answer::status(503).header("retry-after", "1")));
    desk.ok(&["pull", &format!("{}/busy:v1", proxy.host())]);
    assert_eq!((manifests.count(), blobs.count()), (1, 1));
    desk.check_store();

    // A wait that nobody has time for is told instead.
    proxy.add(Rule::any("/other/").then(Answer::status(429).header("retry-after", "3000")));
    let error = desk.fails(&["pull", &format!("{}/other/x:v1", proxy.host())]);
    assert!(error.contains("limits requests"), "{error}");
}

#[test]
fn what_breaks_off_is_resumed() {
    let (desk, registry) = (Desk::new(), registry());
    let built = image(210, &[3_000_000]);
    registry.push(&built, "broken", "v1").unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let layer = built.layers()[0].digest.to_string();
    proxy.add(Rule::get(&layer).times(2).then(Fault::ResetAfter(1_000_000)));
    desk.ok(&["pull", &format!("{}/broken:v1", proxy.host())]);
    desk.check_store();
    let sent = proxy.bytes_for(&layer);
    assert!(sent < built.layers()[0].size() * 11 / 10, "{sent}");
}

#[test]
fn a_registry_without_ranges_is_read_from_the_start() {
    let (desk, registry) = (Desk::new(), registry());
    let built = image(220, &[1_000_000]);
    registry.push(&built, "plain", "v1").unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let layer = built.layers()[0].digest.to_string();
    proxy.add(Rule::get(&layer).then(Fault::IgnoreRange));
    proxy.add(Rule::get(&layer).times(1).then(Fault::TruncateAfter(400_000)));
    desk.ok(&["pull", &format!("{}/plain:v1", proxy.host())]);
    desk.check_store();
}

#[test]
fn storage_on_another_host_gets_no_credentials() {
    let login = ("reader".to_owned(), "fish".to_owned());
    let closed =
        larder_tests::Registry::start(RegistryOptions { login: Some(login), ..RegistryOptions::default() })
            .unwrap();
    let (desk, open) = (Desk::new(), registry());
    let built = image(230, &[50_000, 60_000]);
    closed.push(&built, "private", "v1").unwrap();
    open.push(&built, "private", "v1").unwrap();
    let (front, storage) = (Proxy::start(&closed.host()).unwrap(), Proxy::start(&open.host()).unwrap());
    for layer in built.layers() {
        let target = format!("http://{}/v2/private/blobs/{}", storage.host(), layer.digest);
        let authorized = Rule::get(layer.digest.as_str()).when(|r| r.headers.contains_key("authorization"));
        front.add(authorized.then(Answer::status(307).header("location", &target)));
    }
    let host = front.host();
    let name = format!("{host}/private:v1");
    let error = desk.fails(&["pull", &name]);
    assert!(error.contains("pull access denied"), "{error}");
    desk.larder_with(&["login", "-u", "reader", "--password-stdin", &host], &[], "fish").ok().unwrap();
    desk.ok(&["pull", &name]);
    desk.check_store();
    let served = storage.exchanges();
    assert_eq!(served.len(), 2, "{served:?}");
    assert!(served.iter().all(|exchange| !exchange.authorized), "{served:?}");
    assert!(front.exchanges().iter().any(|exchange| exchange.authorized));
}

#[test]
fn a_wrong_digest_and_a_wrong_size_are_one_clear_error() {
    let (desk, registry) = (Desk::new(), registry());
    let built = image(240, &[70_000]);
    registry.push(&built, "bad", "v1").unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let (name, layer) = (format!("{}/bad:v1", proxy.host()), built.layers()[0].digest.to_string());
    proxy.add(Rule::get(&layer).times(1).then(Fault::FlipByte(1_000)));
    let error = desk.fails(&["pull", &name]);
    assert!(error.contains("digest"), "{error}");
    proxy.add(Rule::get(&layer).times(1).then(Fault::Append("more".into())));
    let error = desk.fails(&["pull", &name]);
    assert!(error.contains("bytes"), "{error}");
    let error = desk.fails(&["history", &name]);
    assert!(error.contains("No such image"), "{error}");
    proxy.clear();
    desk.ok(&["pull", &name]);
    desk.check_store();
}
