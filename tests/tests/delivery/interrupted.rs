//! Deliveries that are interrupted, and deliveries at the same time: nothing is lost, nothing is left behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use larder_runtime::{Category, Layers, Owner, State};
use larder_tests::{Image, Layer, until, wait::PATIENCE};

use crate::{
    fixture::{image, sized_image},
    node::{Node, Version},
    on_each_version,
};

on_each_version!(
    layers_are_taken_as_they_arrive,
    a_pull_that_fails_ends_the_delivery,
    what_a_person_is_delivering_is_left_alone,
    a_delivery_goes_on_where_it_was_interrupted,
    containerd_may_be_killed_while_it_takes_an_image,
    images_that_share_layers_may_come_together,
    the_collector_takes_nothing_from_a_delivery,
);

/// No lease but those of images and of handed-over blobs, no half-unpacked layer, no half-written blob.
fn assert_tidy(node: &Node) {
    let leftovers = || {
        let leases = node.table(&["leases", "ls"]).into_iter().map(|row| row[0].clone());
        let leases = leases.filter(|id| !id.starts_with("larder/image/") && !id.starts_with("larder/blobs/"));
        let snapshots = node.snapshots().into_iter().filter(|name| !name.starts_with("sha256:"));
        let ingests = node.table(&["content", "active"]).into_iter().map(|row| row[0].clone());
        leases.chain(snapshots).chain(ingests).collect::<Vec<_>>()
    };
    // containerd's collector takes its time.
    until("containerd to be tidy", PATIENCE, || leftovers().is_empty().then_some(()))
        .unwrap_or_else(|error| panic!("{error}: {:?}", leftovers()));
}

fn layers_are_taken_as_they_arrive(version: Version) {
    let node = Node::new(version);
    let image = node.put("registry.corp/app:v1", &image(1));
    let (arrivals, layers) = Layers::arriving();
    node.wait(async {
        let (runtime, store, wanted) = (node.runtime.clone(), node.store.clone(), image.clone());
        let delivery = tokio::spawn(async move {
            runtime.deliver(&store, &wanted, Owner::Agent { pin: true }, layers).await
        });
        // The upper one first: it is taken, and can't be unpacked yet.
        let digests: Vec<_> =
            image.layers.iter().map(|layer| layer.digest().to_string().parse().unwrap()).collect();
        arrivals.layer(&digests[1]);
        while !node.store.handed_over().unwrap().contains_key(&digests[1]) {
            assert!(!delivery.is_finished());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!node.has_blob(&digests[0]) && !delivery.is_finished());
        arrivals.layer(&digests[0]);
        delivery.await.unwrap().unwrap();
    });
    assert_eq!(node.state(&image), State::Ready);
    assert_tidy(&node);
    node.stop();
}

/// The agent looks while `larder deliver` is at it.
fn what_a_person_is_delivering_is_left_alone(version: Version) {
    let node = Node::new(version);
    let image = node.put("registry.corp/app:v1", &image(1));
    let layer = image.layers[0].digest().to_string().parse().unwrap();
    let (arrivals, layers) = Layers::arriving();
    let delivery = node.tokio.spawn({
        let (runtime, store, wanted) = (node.runtime.clone(), node.store.clone(), image.clone());
        async move { runtime.deliver(&store, &wanted, Owner::Person { pin: true }, layers).await }
    });
    arrivals.layer(&layer);
    until("a layer to be handed over", PATIENCE, || {
        assert!(!delivery.is_finished());
        node.store.handed_over().unwrap().contains_key(&layer).then_some(())
    })
    .unwrap();
    assert!(node.observe(&[]).strays.is_empty());
    arrivals.all();
    node.wait(delivery).unwrap().unwrap();
    assert!(node.observe(&[]).strays.is_empty());
    assert_eq!(node.state(&image), State::Ready);
    node.stop();
}

fn a_pull_that_fails_ends_the_delivery(version: Version) {
    let node = Node::new(version);
    let image = node.put("registry.corp/app:v1", &image(1));
    let (arrivals, layers) = Layers::arriving();
    arrivals.layer(&image.layers[0].digest().to_string().parse().unwrap());
    drop(arrivals);
    let error = node.try_deliver(&image, Owner::Agent { pin: true }, layers).unwrap_err();
    assert_eq!(error.category(), Category::Interrupted);
    // What it has left is nobody's: whoever does not want the image any more learns of it, and can take it away.
    assert_eq!(node.observe(&[]).strays, [image.key.clone()].into());
    assert!(node.observe(std::slice::from_ref(&image)).strays.is_empty());
    node.wait(node.runtime.withdraw(&image.key, None)).unwrap();
    assert!(node.observe(&[]).strays.is_empty());
    // A layer that was half written is gone on with.
    node.deliver(&image);
    assert_eq!(node.state(&image), State::Ready);
    assert_tidy(&node);
    node.stop();
}

fn a_delivery_goes_on_where_it_was_interrupted(version: Version) {
    let node = Node::new(version);
    let image = node.put("registry.corp/app:v1", &sized_image(5, 16 << 20));
    // Dropped a little later each time: while blobs are being written, then while they are being unpacked.
    let mut patience = Duration::from_millis(1);
    let mut interruptions = 0;
    while node
        .wait(async {
            let delivery =
                node.runtime.deliver(&node.store, &image, Owner::Agent { pin: true }, Layers::all_there());
            tokio::time::timeout(patience, delivery).await
        })
        .map(|delivered| delivered.unwrap())
        .is_err()
    {
        interruptions += 1;
        patience += Duration::from_millis(7);
    }
    assert!(interruptions > 0);
    assert_eq!(node.state(&image), State::Ready);
    assert_tidy(&node);
    node.stop();
}

fn containerd_may_be_killed_while_it_takes_an_image(version: Version) {
    let node = Node::new(version);
    let image = node.put("registry.corp/app:v1", &sized_image(5, 16 << 20));
    let delivered = Arc::new(AtomicBool::new(false));
    let delivery = std::thread::spawn({
        let (runtime, store, image, delivered) =
            (node.runtime.clone(), node.store.clone(), image.clone(), delivered.clone());
        move || {
            let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            // As the agent does, it tries until it succeeds.
            until("a delivery to succeed", PATIENCE, || {
                let delivery =
                    runtime.deliver(&store, &image, Owner::Agent { pin: true }, Layers::all_there());
                match tokio.block_on(delivery) {
                    Ok(()) => Some(()),
                    Err(error) => {
                        // A kill may leave a folder in the way of containerd's next snapshot, which fails and thereby
                        // makes room.
                        let left = error.to_string().contains("file exists");
                        assert!(left || error.category() == Category::Unreachable, "{error}");
                        None
                    }
                }
            })
            .unwrap();
            delivered.store(true, Ordering::Relaxed);
        }
    });
    let mut kills: u64 = 0;
    while !delivered.load(Ordering::Relaxed) && kills < 6 {
        std::thread::sleep(Duration::from_millis(10 + 25 * kills));
        node.restart();
        kills += 1;
    }
    delivery.join().unwrap();
    node.restart();
    assert_eq!(node.state(&image), State::Ready);
    assert!(node.kubelets_image("registry.corp/app:v1").is_some());
    node.stop();
}

fn images_that_share_layers_may_come_together(version: Version) {
    let node = Node::new(version);
    let shared = [Layer::random(1, 4 << 20).unwrap(), Layer::random(2, 1 << 20).unwrap()];
    let images: Vec<_> = (0..4)
        .map(|seed| {
            let own = Layer::random(10 + seed, 100_000).unwrap();
            let image = Image::builder().layer(&shared[0]).layer(&shared[1]).layer(&own).build().unwrap();
            node.put(&format!("registry.corp/app-{seed}:v1"), &image)
        })
        .collect();
    node.wait(async {
        let all = images.iter().map(|image| {
            node.runtime.deliver(&node.store, image, Owner::Agent { pin: true }, Layers::all_there())
        });
        for delivered in futures::future::join_all(all).await {
            delivered.unwrap();
        }
    });
    let observed = node.observe(&images);
    assert!(observed.states.values().all(|state| *state == State::Ready), "{observed:?}");
    assert_eq!(node.snapshots().len(), 2 + 4);
    assert_tidy(&node);
    node.stop();
}

fn the_collector_takes_nothing_from_a_delivery(version: Version) {
    let node = Node::with_eager_collector(version);
    let image = node.put("registry.corp/app:v1", &sized_image(5, 8 << 20));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Each removal makes the collector run, and waits for it.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                node.try_ctr(&["content", "prune", "references"]);
                node.try_ctr(&["images", "rm", "--sync", "registry.corp/none:v1"]);
            }
        });
        for _ in 0..5 {
            node.deliver(&image);
            let names = node.names();
            let names: Vec<&str> = names.keys().map(String::as_str).collect();
            node.ctr(&[&["images", "rm", "--sync"], &names[..]].concat());
        }
        done.store(true, Ordering::Relaxed);
    });
    node.deliver(&image);
    assert_eq!(node.state(&image), State::Ready);
    for row in node.table(&["images", "check"]) {
        assert_eq!((row[3].as_str(), row.last().unwrap().as_str()), ("complete", "true"), "{row:?}");
    }
    node.stop();
}
