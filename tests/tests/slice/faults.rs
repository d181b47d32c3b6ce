//! Registries that fail: the right reason in the status, no image held up by another, recovery without a restart.

use larder_tests::{Answer, Fault, Proxy, Registry, RegistryOptions, Rule, until, wait::PATIENCE};

use crate::fixture::{Larder, condition, image, images};

#[test]
fn a_registry_that_is_gone_and_comes_back() {
    let [good, gone] = [(); 2].map(|()| Registry::start(RegistryOptions::default()).unwrap());
    let here = good.push(&image(&[(90, 50_000)]), "here", "v1").unwrap().name;
    let there = gone.push(&image(&[(91, 50_000)]), "there", "v1").unwrap().name;
    gone.stop();
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("both", &images(None, &[&there, &here]));
    let failure = larder.wait_failure("both", &there, "RegistryUnreachable");
    assert!(failure["message"].as_str().unwrap().contains(&gone.host()), "{failure}");
    assert!(failure["retryTime"].is_string(), "{failure}");
    larder.wait_held("a", &[&here]);
    let cache = larder.wait_cache("both", "one image ready, one failed", |status| {
        status["images"][0]["nodesFailed"] == 1 && status["images"][1]["nodesReady"] == 1
    });
    let status = &cache["status"];
    assert_eq!(condition(status, "Ready")["status"], "False");
    assert_eq!(condition(status, "Degraded")["status"], "True");
    assert_eq!(condition(status, "Reconciling")["status"], "True", "it is tried again by itself");
    assert_eq!(condition(status, "Stalled")["status"], "False");

    gone.restart().unwrap();
    let status = &larder.wait_ready("both", 1)["status"];
    assert_eq!(condition(status, "Degraded")["status"], "False");
    assert_eq!(status["failuresTotal"].as_i64().unwrap_or(0), 0);
}

#[test]
fn a_login_that_we_do_not_have() {
    let login = Some(("admin".to_owned(), "correct horse".to_owned()));
    let locked = Registry::start(RegistryOptions { login, ..RegistryOptions::default() }).unwrap();
    let open = Registry::start(RegistryOptions::default()).unwrap();
    let private = locked.push(&image(&[(92, 50_000)]), "private", "v1").unwrap().name;
    let public = open.push(&image(&[(93, 50_000)]), "public", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("private", &images(None, &[&private]));
    larder.apply("public", &images(None, &[&public]));
    larder.wait_ready("public", 1);
    let failure = larder.wait_failure("private", &private, "Unauthorized");
    assert!(failure["message"].as_str().unwrap().contains("login"), "{failure}");
    larder.wait_cache("private", "stalled: only a person can mend it", |status| {
        condition(status, "Stalled")["status"] == "True"
            && condition(status, "Reconciling")["status"] == "False"
    });
}

#[test]
fn wrong_bytes_and_wrong_digests() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let built = [image(&[(94, 200_000)]), image(&[(95, 50_000)]), image(&[(96, 50_000)])];
    for (image, name) in built.iter().zip(["bytes", "header", "good"]) {
        registry.push(image, name, "v1").unwrap();
    }
    let [bytes, header, good] = ["bytes", "header", "good"].map(|name| format!("{}/{name}:v1", proxy.host()));
    proxy.add(Rule::get(built[0].layers()[0].digest.as_str()).then(Fault::FlipByte(1_000)));
    let wrong = format!("sha256:{}", "0".repeat(64));
    proxy.add(Rule::get("/header/manifests/").then(Fault::Header("docker-content-digest", wrong)));
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("wrong", &images(None, &[&bytes, &header, &good]));
    larder.wait_failure("wrong", &bytes, "DigestMismatch");
    larder.wait_failure("wrong", &header, "DigestMismatch");
    larder.wait_held("a", &[&good]);
    proxy.clear();
    larder.wait_ready("wrong", 1);
}

#[test]
fn an_image_that_is_pushed_later_and_a_registry_that_is_overloaded() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let [late, busy] = ["late", "busy"].map(|name| format!("{}/{name}:v1", proxy.host()));
    registry.push(&image(&[(97, 50_000)]), "busy", "v1").unwrap();
    let hits = proxy.add(Rule::get("/busy/manifests/").then(Answer::status(503)));
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("later", &images(None, &[&late, &busy]));
    let failure = larder.wait_failure("later", &late, "NotFound");
    assert!(failure["message"].as_str().unwrap().contains("push the image"), "{failure}");
    larder.wait_failure("later", &busy, "RegistryError");
    registry.push(&image(&[(98, 50_000)]), "late", "v1").unwrap();
    larder.wait_held("a", &[&late]);
    assert!(hits.count() > 0);
    proxy.clear();
    larder.wait_ready("later", 1);
}

#[test]
fn retry_after_is_obeyed() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    registry.push(&image(&[(99, 50_000)]), "limited", "v1").unwrap();
    registry.push(&image(&[(100, 50_000)]), "free", "v1").unwrap();
    let [limited, free] = ["limited", "free"].map(|name| format!("{}/{name}:v1", proxy.host()));
    // The agent's own back-off is two seconds at most here: ten come from the registry, or not at all.
    let answer = Answer::status(429).header("retry-after", "10");
    let hits = proxy.add(Rule::get("/limited/manifests/").then(answer));
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("limited", &images(None, &[&limited, &free]));
    let failure = larder.wait_failure("limited", &limited, "TooManyRequests");
    larder.wait_held("a", &[&free]);
    let started = std::time::Instant::now();
    until("the second try", PATIENCE, || (hits.count() > 1).then_some(())).unwrap();
    // Seen only after the status was written and read, so a lower bound with room, not a measurement.
    assert!(started.elapsed().as_secs() >= 3, "tried again too soon: {failure}");
    proxy.clear();
    larder.wait_ready("limited", 1);
}

#[test]
fn broken_connections_and_ignored_ranges() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let built = image(&[(101, 400_000), (102, 300_000), (103, 200_000)]);
    registry.push(&built, "shaky", "v1").unwrap();
    let layer = |number: usize| built.layers()[number].digest.to_string();
    proxy.add(Rule::get(&layer(0)).times(4).then(Fault::ResetAfter(70_000)));
    proxy.add(Rule::get(&layer(1)).times(2).then(Fault::TruncateAfter(100_000)));
    proxy.add(Rule::get(&layer(2)).times(1).then(Fault::ResetAfter(50_000)));
    proxy.add(Rule::get(&layer(2)).then(Fault::IgnoreRange));
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("shaky", &images(None, &[&format!("{}/shaky:v1", proxy.host())]));
    larder.wait_ready("shaky", 1);
    let resumed = proxy.exchanges().iter().filter(|exchange| exchange.range.is_some()).count();
    assert!(resumed >= 3, "connections that broke are resumed: {:?}", proxy.exchanges());
}
