//! What is fetched when: order, limits, space, time, and the wait after failures.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use larder_tests::{Image, Proxy, Registry, RegistryOptions, registry::Mark, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Larder, blob, image, images};

/// Slow enough to look at what happens meanwhile.
const SLOW: u64 = 40_000;

/// The repositories whose manifests were asked for since, in the order in which they were first.
fn order(registry: &Registry, mark: Mark) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for request in registry.requests_since(mark).unwrap().iter().filter(|request| request.is_manifest()) {
        let repository = request.path.trim_start_matches("/v2/").split('/').next().unwrap().to_owned();
        if !order.contains(&repository) {
            order.push(repository);
        }
    }
    order
}

fn node_state(larder: &Larder, image: &str) -> String {
    let node = larder.cluster.get(&["nodeimagecache", "a"]).unwrap();
    let images = node["status"]["images"].as_array().cloned().unwrap_or_default();
    let found = images.into_iter().find(|entry| entry["image"] == image).unwrap_or_default();
    found["state"].as_str().unwrap_or_default().to_owned()
}

fn wait_state(larder: &Larder, image: &str, state: &str) {
    until(&format!("{image} to be {state}"), PATIENCE, || (node_state(larder, image) == state).then_some(()))
        .unwrap_or_else(|error| panic!("{error}; it is {}", node_state(larder, image)));
}

/// Watches how many images come through proxies at the same time: those of whose layers a part has been sent.
struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(proxy: &Arc<Proxy>, images: &[(Image, String)]) -> Self {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let layers: Vec<(String, u64, String)> = images
            .iter()
            .flat_map(|(image, name)| {
                image
                    .layers()
                    .iter()
                    .map(move |layer| (layer.digest.to_string(), layer.bytes.len() as u64, name.clone()))
            })
            .collect();
        let (proxy, told, seen) = (proxy.clone(), stop.clone(), most.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                let exchanges = proxy.exchanges();
                let under_way: BTreeSet<&String> = layers
                    .iter()
                    .filter(|(digest, size, _)| {
                        let of = exchanges.iter().filter(|exchange| exchange.path.contains(digest.as_str()));
                        of.clone().count() > 0 && of.map(|exchange| exchange.bytes).sum::<u64>() < *size
                    })
                    .map(|(_, _, name)| name)
                    .collect();
                seen.fetch_max(under_way.len(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, most, thread: Some(thread) }
    }

    fn most(mut self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        self.most.load(Ordering::SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[test]
fn priority_goes_first_then_the_order_of_the_list_and_what_comes_later_is_sorted_in() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let push = |seed, size, repository: &str| {
        registry.push(&image(&[(seed, size)]), repository, "v1").unwrap();
        format!("{}/{repository}:v1", proxy.host())
    };
    let [first, z, m, urgent, late] = [
        (300, 1_500_000, "first"),
        (301, 9_000, "z"),
        (302, 9_000, "m"),
        (303, 9_000, "urgent"),
        (304, 9_000, "late"),
    ]
    .map(|(seed, size, repository)| push(seed, size, repository));
    proxy.limit_rate(Some(SLOW));
    let mark = registry.mark().unwrap();
    let larder = Larder::start(&[("a", &[])]);
    larder.apply(
        "list",
        &json!({"maxConcurrentDownloads": 1, "images": [
            {"image": z}, {"image": m}, {"image": urgent, "priority": 5}, {"image": first, "priority": 1000},
        ]}),
    );
    wait_state(&larder, &first, "Pulling");
    for waiting in [&z, &m, &urgent] {
        assert_eq!(node_state(&larder, waiting), "Pending", "{waiting}");
    }
    larder.apply("later", &json!({"images": [{"image": late, "priority": 50}]}));
    wait_state(&larder, &late, "Pending");
    assert_eq!(order(&registry, mark), ["first"]);
    proxy.limit_rate(None);
    larder.wait_ready("list", 1);
    larder.wait_ready("later", 1);
    assert_eq!(order(&registry, mark), ["first", "late", "urgent", "z", "m"]);
}

#[test]
fn the_limit_over_all_registries_holds_and_a_lower_one_ends_nothing() {
    let registries = [(); 2].map(|()| Registry::start(RegistryOptions::default()).unwrap());
    let proxy = Arc::new(Proxy::start(&registries[0].host()).unwrap());
    let other = Proxy::start(&registries[1].host()).unwrap();
    let mut all = Vec::new();
    for number in 0..6_u64 {
        let built = image(&[(310 + number, 600_000)]);
        let repository = format!("app{number}");
        registries[0].push(&built, &repository, "v1").unwrap();
        all.push((built, format!("{}/{repository}:v1", proxy.host())));
    }
    registries[1].push(&image(&[(320, 60_000)]), "other", "v1").unwrap();
    let elsewhere = format!("{}/other:v1", other.host());
    proxy.limit_rate(Some(SLOW));
    let watch = Watch::start(&proxy, &all);
    let larder = Larder::start(&[("a", &[])]);
    let spec = |limit: Option<i32>| {
        let mut names: Vec<Value> = all.iter().map(|(_, name)| json!({"image": name})).collect();
        names.push(json!({"image": elsewhere, "priority": -1}));
        json!({"images": names, "maxConcurrentDownloads": limit})
    };
    larder.apply("limited", &spec(Some(2)));
    wait_state(&larder, &all[0].1, "Pulling");
    wait_state(&larder, &all[1].1, "Pulling");
    assert_eq!(node_state(&larder, &elsewhere), "Pending", "the limit is over all registries");
    larder.apply("limited", &spec(Some(1)));
    let taken_up = || {
        let node = larder.cluster.get(&["nodeimagecache", "a"]).ok()?;
        let is_current = node["status"]["observedGeneration"] == node["metadata"]["generation"];
        (is_current && node["spec"]["maxConcurrentDownloads"] == 1).then_some(())
    };
    until("the agent to know the lower limit", PATIENCE, taken_up).unwrap();
    assert_eq!(watch.most(), 2);
    let watch = Watch::start(&proxy, &all[2..]);
    proxy.limit_rate(Some(10 * SLOW));
    larder.wait_ready("limited", 1);
    assert_eq!(watch.most(), 1);
    // What was under way when the limit became lower came in one go, as did the others.
    for (built, _) in &all {
        let digest = built.layers()[0].digest.to_string();
        let asked = proxy.exchanges().iter().filter(|exchange| exchange.path.contains(&digest)).count();
        assert_eq!(asked, 1, "{digest}");
    }
}

#[test]
fn a_slow_registry_has_three_places_and_holds_up_no_other() {
    let registries = [(); 2].map(|()| Registry::start(RegistryOptions::default()).unwrap());
    let slow = Arc::new(Proxy::start(&registries[0].host()).unwrap());
    let mut all = Vec::new();
    for number in 0..5_u64 {
        let built = image(&[(330 + number, 300_000)]);
        let repository = format!("app{number}");
        registries[0].push(&built, &repository, "v1").unwrap();
        all.push((built, format!("{}/{repository}:v1", slow.host())));
    }
    let quick = registries[1].push(&image(&[(340, 90_000)]), "quick", "v1").unwrap().name;
    slow.limit_rate(Some(SLOW));
    let watch = Watch::start(&slow, &all);
    let larder = Larder::start(&[("a", &[])]);
    let mut names: Vec<&str> = all.iter().map(|(_, name)| name.as_str()).collect();
    names.push(&quick);
    larder.apply("both", &images(None, &names));
    larder.wait_held("a", &[&quick]);
    wait_state(&larder, &all[2].1, "Pulling");
    assert_eq!(node_state(&larder, &all[3].1), "Pending");
    slow.limit_rate(None);
    larder.wait_ready("both", 1);
    assert!(watch.most() <= 3);
}

#[test]
fn an_image_that_would_take_what_is_to_be_kept_free_is_not_begun() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let built = image(&[(350, 70_000)]);
    let app = registry.push(&built, "app", "v1").unwrap().name;
    let mark = registry.mark().unwrap();
    let larder = Larder::start(&[("a", &[])]);
    let spec = |reserve: Value| {
        // Nothing but the edit makes it try again within this test.
        json!({"images": [{"image": app}], "diskReserve": reserve, "retry": {"initialDelay": "1h"}})
    };
    larder.apply("tight", &spec(json!("900Ti")));
    let failure = larder.wait_failure("tight", &app, "InsufficientDisk");
    let message = failure["message"].as_str().unwrap();
    // Whole blocks, of the configuration and the layer.
    let blobs = built.blobs.iter().map(|blob| blob.bytes.len().div_ceil(4096) * 4);
    let needs = format!("needs {}.0 KiB", blobs.sum::<usize>());
    for words in [
        needs.as_str(),
        "are free",
        "900.0 TiB of them are kept free",
        "free some space, or lower diskReserve",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(registry.requests_since(mark).unwrap().blob_gets(), 0);
    let store = larder.store("a");
    for folder in [".larder/leases", ".larder/partial/sha256", "blobs/sha256"] {
        let left: Vec<_> = std::fs::read_dir(store.join(folder)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    let cache = larder.cluster.get(&["imagecache", "tight"]).unwrap();
    let stalled = crate::fixture::condition(&cache["status"], "Stalled");
    assert_eq!(stalled["status"], "False", "it is tried again by itself");

    larder.apply("tight", &spec(json!("1k")));
    larder.wait_ready("tight", 1);
    assert!(blob(&store, built.layers()[0].digest.as_str()).exists());
    // What is there takes nothing more.
    larder.apply("tight", &spec(json!("900Ti")));
    larder.wait_ready("tight", 1);
}

#[test]
fn a_try_that_takes_too_long_ends_and_the_next_goes_on_from_there() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let built = image(&[(360, 1_500_000)]);
    registry.push(&built, "app", "v1").unwrap();
    let app = format!("{}/app:v1", proxy.host());
    proxy.limit_rate(Some(SLOW));
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("hurry", &json!({"images": [{"image": app}], "pullTimeout": "10s"}));
    let failure = larder.wait_failure("hurry", &app, "PullTimeout");
    let message = failure["message"].as_str().unwrap();
    let told = message.contains("longer than 10 seconds (pullTimeout)") && message.contains(" MiB are here");
    assert!(told, "{message}");
    assert!(failure["retryTime"].is_string(), "{failure}");
    proxy.limit_rate(None);
    larder.wait_ready("hurry", 1);
    let digest = built.layers()[0].digest.to_string();
    let exchanges = proxy.exchanges();
    let of_layer: Vec<_> = exchanges.iter().filter(|exchange| exchange.path.contains(&digest)).collect();
    assert!(of_layer.len() >= 2, "{of_layer:?}");
    assert!(of_layer[1..].iter().all(|exchange| exchange.range.is_some()), "{of_layer:?}");
    // Buffers on the way hold some: what was lost is little.
    let sent: u64 = of_layer.iter().map(|exchange| exchange.bytes).sum();
    assert!(sent < 1_500_000 + 500_000, "{sent} bytes for a layer of 1500000");
}

#[test]
fn an_edit_of_the_wait_after_failures_counts_at_once() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(370, 50_000)]), "app", "v1").unwrap().name;
    registry.stop();
    let larder = Larder::start(&[("a", &[])]);
    let spec = |retry: Value| json!({"images": [{"image": app}], "retry": retry});
    larder.apply("patient", &spec(json!({"initialDelay": "50m", "maxDelay": "1h"})));
    let failure = larder.wait_failure("patient", &app, "RegistryUnreachable");
    let at: jiff::Timestamp = failure["retryTime"].as_str().unwrap().parse().unwrap();
    assert!(at.duration_since(jiff::Timestamp::now()) > jiff::SignedDuration::from_mins(40), "{failure}");
    registry.restart().unwrap();
    larder.apply("patient", &spec(json!({"initialDelay": "1s", "maxDelay": "2s"})));
    larder.wait_ready("patient", 1);
}

#[test]
fn images_that_fail_go_behind_those_that_have_not() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let good = registry.push(&image(&[(380, 50_000)]), "good", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    let missing: Vec<String> =
        (0..6).map(|number| format!("{}/missing{number}:v1", registry.host())).collect();
    let mut names: Vec<Value> = missing.iter().map(|name| json!({"image": name, "priority": 900})).collect();
    names.push(json!({"image": good, "priority": -900}));
    let mark = registry.mark().unwrap();
    larder.apply("mixed", &json!({"images": names, "maxConcurrentDownloads": 1}));
    larder.wait_held("a", &[&good]);
    let order = order(&registry, mark);
    assert_eq!(
        order.last().map(String::as_str),
        Some("good"),
        "those of a higher priority were tried first: {order:?}"
    );
    let tries = registry.requests_since(mark).unwrap().count(|request| request.path.contains("/missing0/"));
    assert_eq!(tries, 1, "and not again before it");
}
