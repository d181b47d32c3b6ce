//! kubelet's collector leaves alone what an `ImageCache` wants, and nothing else on Larder's account.

use larder_tests::{
    ContainerdVersion, NodeOptions, Pod, PodOptions, kubernetes::images::PAUSE, until, wait::PATIENCE,
};
use serde_json::json;

use crate::{
    fixture::{Shared, alone},
    larder::{ImageCache, image, push, runtime_image, stored},
};

#[test]
fn the_collector_takes_what_is_not_wanted_and_nothing_else() {
    let e2e = alone();
    std::thread::scope(|scope| {
        for (version, name) in [(ContainerdVersion::V2, "tight"), (ContainerdVersion::V17, "tight-17")] {
            let shared = &*e2e;
            scope.spawn(move || on_a_node(shared, version, name));
        }
    });
}

fn on_a_node(e2e: &Shared, version: ContainerdVersion, name: &str) {
    let larder = e2e.larder();
    let options = NodeOptions::new(name).containerd(version).label("pool", name).short_of_disk();
    let node = e2e.cluster.add_node(options).unwrap();
    larder.bring_to(&node);
    larder.wait_reported(name);
    let [wanted, kept] = [4100, 4200].map(|seed| push(&e2e.registry, &format!("{name}/{seed}"), seed).name);
    let labels = json!({"pool": name});
    let cache = ImageCache::apply_to(&e2e.cluster, name, &labels, &[&wanted]);
    let retained = ImageCache::retaining(&e2e.cluster, &format!("{name}-retained"), &labels, &[&kept]);
    cache.wait_ready(larder);
    retained.wait_ready(larder);
    let unused = "larder.test/pins/unused:v1";
    node.import(&image(4300), unused).unwrap();
    let has = |name: &str| runtime_image(&node, name).is_some();
    assert!(has(unused));

    node.collect_images().unwrap();
    assert!(!has(unused), "the collector has run");
    assert!(has(PAUSE) && has(&wanted) && has(&kept));
    assert!(larder.own_images().iter().all(|name| has(name)));
    // Not put back: it never went.
    let told = larder.events("NodeImageCache", name);
    assert!(told.iter().all(|(reason, _)| reason != "ImageRestored"), "{told:#?}");

    Pod::start(&e2e.cluster, &PodOptions::new(name).image(&wanted).node(name)).unwrap().delete().unwrap();

    // What is to be deleted goes by itself; what is to be retained becomes kubelet's.
    cache.delete();
    retained.delete();
    let done = until("the images to be given up", PATIENCE, || {
        let unpinned = runtime_image(&node, &kept)?["pinned"] != true;
        let stored = stored(&node);
        (unpinned && !has(&wanted) && !stored.contains(&kept) && !stored.contains(&wanted)).then_some(())
    });
    done.unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    node.collect_images().unwrap();
    assert!(!has(&kept) && has(PAUSE));
    e2e.cluster.remove_node(name).unwrap();
    // Its object goes with it.
    until("the NodeImageCache to go", PATIENCE, || larder.node(name).is_none().then_some(())).unwrap();
}
