//! Nodes come to hold what the ImageCaches say, each blob fetched once a node, whatever happens on the way.

use larder_tests::{Program, Proxy, Registry, RegistryOptions, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Larder, blob, damaged, image, images};

const WEB: (&str, &str) = ("pool", "web");

#[test]
fn overlapping_caches_selectors_and_edits() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let base = (1, 300_000);
    let [app, tool, extra, more] = [
        image(&[base, (2, 50_000)]),
        image(&[base, (3, 50_000)]),
        image(&[(4, 60_000)]),
        image(&[(5, 70_000)]),
    ];
    let [base_digest, tool_digest] =
        [app.layers()[0].digest.to_string(), tool.layers()[1].digest.to_string()];
    let push = |image, name| registry.push(image, name, "v1").unwrap().name;
    let [app, tool, extra, more] =
        [push(&app, "app"), push(&tool, "tool"), push(&extra, "extra"), push(&more, "more")];
    let [app, tool, extra, more] = [app.as_str(), tool.as_str(), extra.as_str(), more.as_str()];

    let larder = Larder::start(&[("a", &[WEB]), ("b", &[WEB]), ("c", &[("pool", "db")])]);
    larder.apply("web", &images(Some(WEB), &[app, tool]));
    larder.apply("all", &images(None, &[tool, extra]));
    larder.wait_ready("web", 2);
    larder.wait_ready("all", 3);
    larder.wait_held("a", &[app, tool, extra]);
    larder.wait_held("b", &[app, tool, extra]);
    larder.wait_held("c", &[tool, extra]);
    let requests = registry.requests().unwrap();
    assert_eq!(requests.gets_of(&base_digest), 3, "the layer that two images share: once a node");
    assert_eq!(requests.manifest_gets(), 3 + 3 + 2, "one manifest an image and node");

    // An edit that adds one image and removes another; the other ImageCache still wants the one removed.
    let mark = registry.mark().unwrap();
    larder.apply("web", &images(Some(WEB), &[app, more]));
    larder.wait_ready("web", 2);
    larder.wait_held("a", &[app, tool, extra, more]);
    let requests = registry.requests_since(mark).unwrap();
    assert!(
        requests.iter().all(|request| request.path.contains("/more/")),
        "work for one image only: {requests:?}"
    );

    // The last one to want it lets it go, and with it the blobs that nothing else needs.
    larder.apply("all", &images(None, &[extra]));
    larder.wait_held("a", &[app, extra, more]);
    larder.wait_held("c", &[extra]);
    larder.wait_blob("a", &tool_digest, false);
    larder.wait_blob("a", &base_digest, true);
    larder.wait_blob("c", &base_digest, false);

    // Labels change on the node, and the selector in the ImageCache.
    larder.cluster.kubectl(&["label", "node", "c", "--overwrite", "pool=web"]).unwrap();
    larder.wait_held("c", &[app, extra, more]);
    larder.wait_ready("web", 3);
    larder.apply("web", &images(Some(("kubernetes.io/hostname", "nowhere")), &[app, more]));
    larder.wait_ready("web", 0);
    for node in ["a", "b", "c"] {
        larder.wait_held(node, &[extra]);
    }
}

#[test]
fn a_node_joins_and_a_node_goes() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(10, 80_000)]), "app", "v1").unwrap().name;
    let mut larder = Larder::start(&[("a", &[WEB]), ("b", &[WEB])]);
    larder.apply("web", &images(Some(WEB), &[&app]));
    larder.apply("everywhere", &images(None, &[&app]));
    larder.wait_ready("web", 2);

    larder.join("c", &[WEB]);
    larder.wait_ready("web", 3);
    larder.wait_ready("everywhere", 3);
    larder.wait_held("c", &[&app]);

    let object = larder.cluster.get(&["nodeimagecache", "c"]).unwrap();
    let node = larder.cluster.get(&["node", "c"]).unwrap();
    assert_eq!(object["metadata"]["ownerReferences"][0]["kind"], "Node");
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], node["metadata"]["uid"]);

    larder.cluster.kubectl(&["delete", "node", "c"]).unwrap();
    until("the node's object to go with it", PATIENCE, || {
        larder
            .cluster
            .try_kubectl(&["get", "nodeimagecache", "c"], "")
            .ok()
            .filter(|ran| !ran.status.success())
    })
    .unwrap();
    larder.wait_ready("web", 2);
    assert_eq!(larder.held("c").len(), 1, "an agent without its object keeps what it has");
}

#[test]
fn killed_and_restarted_in_the_middle() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let built = image(&[(20, 3_000_000), (21, 3_000_000), (22, 2_000_000)]);
    registry.push(&built, "big", "v1").unwrap();
    let big = format!("{}/big:v1", proxy.host());
    let wanted = 2 * built.size();

    let larder = Larder::start(&[("a", &[]), ("b", &[])]);
    proxy.limit_rate(Some(4_000_000));
    larder.apply("big", &images(None, &[&big]));
    for part in 1..=3 {
        until("the next part of the image to arrive", PATIENCE, || {
            (proxy.bytes_sent() > wanted * part / 5).then_some(())
        })
        .unwrap();
        larder.operator.kill();
        larder.agents().for_each(Program::kill);
        larder.agents().for_each(|agent| agent.start().unwrap());
        larder.operator.start().unwrap();
    }
    proxy.limit_rate(None);
    larder.wait_ready("big", 2);
    let sent = proxy.bytes_for("/blobs/");
    assert!(sent * 10 <= wanted * 11, "{sent} bytes were fetched for {wanted}");
}

#[test]
fn with_all_images_present_no_request_is_sent() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let other = Registry::start(RegistryOptions::default()).unwrap();
    let app = registry.push(&image(&[(30, 50_000)]), "app", "v1").unwrap().name;
    let pinned = registry.push(&image(&[(31, 50_000)]), "pinned", "v1").unwrap();
    let pinned = format!("{}@{}", pinned.repository, pinned.digest);
    let larder = Larder::start(&[("a", &[]), ("b", &[])]);
    larder.apply("idle", &images(None, &[&app, &pinned]));
    larder.wait_ready("idle", 2);
    let mark = registry.mark().unwrap();

    // Restarted agents have looked at everything once they have fetched something else, from elsewhere.
    larder.operator.restart().unwrap();
    larder.agents().for_each(|agent| agent.restart().unwrap());
    let marker = other.push(&image(&[(32, 1_000)]), "marker", "v1").unwrap().name;
    larder.apply("marker", &images(None, &[&marker]));
    larder.wait_ready("marker", 2);
    assert_eq!(registry.requests_since(mark).unwrap().to_vec(), []);
}

/// As an agent leaves them that is killed between taking a name away and taking away what only that needed.
#[test]
fn blobs_that_nothing_needs_go_when_an_agent_starts() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let [wanted, orphan] = [(35, 50_000), (36, 1_000)].map(|layer| image(&[layer]));
    let pushed = registry.push(&wanted, "app", "v1").unwrap();
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("app", &images(None, &[&pushed.name]));
    larder.wait_ready("app", 1);
    let layer = orphan.blobs.last().unwrap();
    std::fs::write(blob(&larder.store("a"), layer.digest.as_str()), &layer.bytes).unwrap();
    larder.agent("a").restart().unwrap();
    larder.wait_blob("a", layer.digest.as_str(), false);
    assert_eq!(larder.held("a"), [pushed.name.clone()].into());
    assert_eq!(damaged(&larder.store("a")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_is_fetched_is_counted_across_restarts() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let [first, second] = [33, 34].map(|seed| image(&[(seed, 50_000)]));
    let pushed = [(&first, "first"), (&second, "second")]
        .map(|(built, name)| registry.push(built, name, "v1").unwrap());
    let larder = Larder::start(&[("a", &[])]);
    let pulls = |what: &str, is: &dyn Fn(&Value) -> bool| {
        until(what, PATIENCE, || {
            let object = larder.cluster.get(&["nodeimagecache", "a"]).ok()?;
            Some(object["status"]["pulls"].clone()).filter(|pulls| is(pulls))
        })
        .unwrap()
    };
    larder.apply("first", &images(None, &[&pushed[0].name]));
    larder.wait_ready("first", 1);
    let counted = pulls("the first image to be counted", &|pulls| pulls["images"] == 1);
    let bytes = counted["bytes"].as_u64().unwrap();
    assert!((50_000..=first.size()).contains(&bytes), "{counted}");
    assert_eq!(counted["failures"], 0);

    // An agent goes on from what its node's object says; what is there is not fetched again; what fails is counted, too.
    larder.agent("a").restart().unwrap();
    let missing = format!("{}/missing:v1", registry.host());
    larder.apply("second", &images(None, &[&pushed[1].name, &missing]));
    let counted =
        pulls("both to be counted", &|pulls| pulls["images"] == 2 && pulls["failures"].as_u64() >= Some(1));
    assert!(
        (bytes + 50_000..=first.size() + second.size()).contains(&counted["bytes"].as_u64().unwrap()),
        "{counted}"
    );
    assert!(counted["milliseconds"].as_u64() > Some(0), "{counted}");
}

#[test]
fn always_looks_the_tag_up_when_the_agent_starts() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let first = registry.push(&image(&[(40, 50_000)]), "app", "v1").unwrap();
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("moving", &json!({"images": [{"image": first.name, "pullPolicy": "Always"}]}));
    let status = &larder.wait_ready("moving", 1)["status"];
    assert_eq!(status["images"][0]["digest"], first.digest.as_str());

    let second = registry.push(&image(&[(41, 50_000)]), "app", "v1").unwrap();
    larder.agent("a").restart().unwrap();
    larder.wait_cache("moving", "the tag's new digest", |status| {
        status["images"][0]["digest"] == second.digest.as_str()
    });
}

#[test]
fn what_somebody_deletes_behind_our_back_is_put_back() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let built = image(&[(50, 50_000), (51, 60_000)]);
    let app = registry.push(&built, "app", "v1").unwrap().name;
    let larder = Larder::start(&[("a", &[])]);
    larder.apply("app", &images(None, &[&app]));
    larder.wait_ready("app", 1);
    let mark = registry.mark().unwrap();
    let lost = built.layers()[1].digest.as_str();
    std::fs::remove_file(blob(&larder.store("a"), lost)).unwrap();
    larder.wait_blob("a", lost, true);
    let requests = registry.requests_since(mark).unwrap();
    assert_eq!(requests.blob_gets(), 1, "only what was lost is fetched: {requests:?}");

    // The same for the operator's object.
    larder.cluster.kubectl(&["delete", "nodeimagecache", "a"]).unwrap();
    until("the object to be made anew", PATIENCE, || {
        let object = larder.cluster.get(&["nodeimagecache", "a"]).ok()?;
        (object["status"]["summary"]["images"] == "1/1").then_some(())
    })
    .unwrap();
}
