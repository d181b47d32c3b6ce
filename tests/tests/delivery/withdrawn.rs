//! What goes when an image is withdrawn, and what stays.

use larder_oci::Digest;
use larder_runtime::{State, Withdrawal};
use larder_tests::{Image, Layer, until, wait::PATIENCE};

use crate::{
    fixture::{image, sized_image},
    node::{Node, Version, text},
    on_each_version,
};

on_each_version!(
    nothing_is_left_of_a_withdrawn_image,
    what_others_need_stays,
    what_was_there_before_stays,
    an_image_that_a_container_uses_stays,
    a_released_image_is_as_if_kubelet_had_pulled_it,
    layers_that_the_store_needs_stay,
    what_a_name_stood_for_before_goes,
);

const NAME: &str = "registry.corp/app:v1";

fn withdraw(node: &Node, image: &larder_runtime::Image) -> Withdrawal {
    node.wait(node.runtime.withdraw(&image.key, Some(image))).unwrap()
}

/// Imports an image as an admin would: with a name, and pinned as the pause image is.
fn import(node: &Node, name: &str, image: &Image) {
    let archive = node.scratch.path().join("import.tar");
    image.write_archive(&archive, name).unwrap();
    node.ctr(&["images", "import", "--local", "--index-name", name, text(&archive)]);
}

fn nothing_is_left_of_a_withdrawn_image(version: Version) {
    let node = Node::new(version);
    let other =
        Image::builder().platform("linux/s390x").layer(&Layer::random(9, 10).unwrap()).build().unwrap();
    let pause = image(7);
    import(&node, "registry.corp/pause:v1", &pause);
    node.ctr(&["images", "label", "registry.corp/pause:v1", "io.cri-containerd.pinned=pinned"]);
    let before = (node.names(), node.snapshots());
    for known in [true, false] {
        let image =
            node.put_and_deliver(NAME, &Image::index(&[sized_image(1, 4 << 20), other.clone()]).unwrap());
        assert_eq!(node.observe(&[]).strays, [image.key.clone()].into());
        // Also when the store has forgotten it.
        let withdrawn = node.wait(node.runtime.withdraw(&image.key, known.then_some(&image))).unwrap();
        assert_eq!(withdrawn, Withdrawal::Gone);
        assert_eq!((node.names(), node.snapshots()), before);
        assert_eq!(node.state(&image), State::Missing);
        node.forget(&image);
        // Only now nobody relies on its layers.
        assert!(node.observe(&[]).strays.is_empty());
        let gone = |layer: &larder_oci::spec::Descriptor| {
            !node.has_blob(&layer.digest().to_string().parse().unwrap())
        };
        // The layer that all of them share is pause's as well.
        until("its layers to go", PATIENCE, || gone(&image.layers[1]).then_some(())).unwrap();
    }
    assert_eq!(node.kubelets_image("registry.corp/pause:v1").unwrap()["pinned"], true);
    assert_eq!(node.wait(node.runtime.withdraw(&crate::fixture::key(NAME), None)).unwrap(), Withdrawal::Gone);
    node.stop();
}

fn what_others_need_stays(version: Version) {
    let node = Node::new(version);
    let source = image(1);
    let images = [NAME, "registry.corp/app:v2", "registry.corp/mirror:v1"]
        .map(|name| node.put_and_deliver(name, &source));
    for (number, image) in images.iter().enumerate() {
        assert_eq!(withdraw(&node, image), Withdrawal::Gone);
        for left in &images[number + 1..] {
            assert_eq!(node.state(left), State::Ready, "{} without {}", left.key, image.key);
            let seen = node.kubelets_image(left.key.name.as_str()).unwrap();
            assert_eq!(
                (seen["pinned"].as_bool(), seen["id"].as_str()),
                (Some(true), Some(source.blobs[0].digest.as_str()))
            );
        }
    }
    assert!(node.names().is_empty() && node.snapshots().is_empty());
    node.stop();
}

fn what_was_there_before_stays(version: Version) {
    let node = Node::new(version);
    let source = image(1);
    import(&node, NAME, &source);
    let before = node.names();
    let unpinned = || node.kubelets_image(NAME).unwrap()["pinned"] == false;
    until("kubelet to see it", PATIENCE, || node.kubelets_image(NAME)).unwrap();
    assert!(unpinned());
    let image = node.put_and_deliver(NAME, &source);
    assert!(!unpinned());
    assert_eq!(withdraw(&node, &image), Withdrawal::Left);
    until("the pin to go", PATIENCE, || unpinned().then_some(())).unwrap();
    let after = node.names();
    assert!(before.keys().all(|name| after.contains_key(name)), "{before:?} {after:?}");
    assert!(!node.ctr(&["images", "ls"]).contains("larder.dev"));
    // A pin of somebody else's is not ours to take.
    node.ctr(&["images", "label", NAME, "io.cri-containerd.pinned=pinned"]);
    node.deliver(&image);
    assert_eq!(withdraw(&node, &image), Withdrawal::Left);
    assert!(
        node.ctr(&["images", "ls"]).lines().any(|line| line.starts_with(NAME) && line.contains("=pinned"))
    );
    node.stop();
}

fn an_image_that_a_container_uses_stays(version: Version) {
    let node = Node::new(version);
    let image = node.put_and_deliver(NAME, &image(1));
    node.ctr(&["containers", "create", NAME, "keeper", "/bin/true"]);
    let Withdrawal::InUse(users) = withdraw(&node, &image) else { panic!("it is in use") };
    assert_eq!((users.len(), users[0].id.as_str(), users[0].running), (1, "keeper", false));
    assert_eq!(node.state(&image), State::Ready, "and nothing has changed");
    let unknown = node.wait(node.runtime.withdraw(&image.key, None)).unwrap();
    assert!(matches!(unknown, Withdrawal::InUse(_)), "{unknown:?}");
    node.ctr(&["containers", "rm", "keeper"]);
    assert_eq!(withdraw(&node, &image), Withdrawal::Gone);
    node.stop();
}

fn a_released_image_is_as_if_kubelet_had_pulled_it(version: Version) {
    let node = Node::new(version);
    let image = node.put_and_deliver(NAME, &image(1));
    node.wait(node.runtime.release(&image.key)).unwrap();
    assert!(!node.ctr(&["images", "ls"]).contains("larder.dev"));
    assert!(node.observe(&[]).strays.is_empty());
    let unpinned = || (node.kubelets_image(NAME).unwrap()["pinned"] == false).then_some(());
    until("the pin to go", PATIENCE, unpinned).unwrap();
    // kubelet may take it now, and all of it goes.
    node.forget(&image);
    node.observe(&[]);
    node.try_crictl(&["rmi", NAME]).ok().unwrap();
    let empty =
        || (node.ctr(&["content", "ls", "-q"]).is_empty() && node.snapshots().is_empty()).then_some(());
    until("all of it to go", PATIENCE, empty).unwrap();
    node.stop();
}

fn layers_that_the_store_needs_stay(version: Version) {
    let node = Node::with_eager_collector(version);
    let source = image(1);
    let delivered = node.put_and_deliver(NAME, &source);
    // The same image under a name that is not given to the runtime: its layers are in containerd alone.
    let kept = node.put("registry.corp/kept:v1", &source);
    assert_eq!(withdraw(&node, &delivered), Withdrawal::Gone);
    node.forget(&delivered);
    node.observe(&[]);
    node.try_ctr(&["content", "prune", "references"]);
    assert!(node.names().is_empty());
    let stored = node.store.image(&kept.key).unwrap().unwrap();
    for digest in node.store.image_blobs(&stored).unwrap().keys() {
        let bytes = node.store.read_blob(digest, 1 << 20).unwrap();
        assert_eq!(Digest::sha256(&bytes), *digest);
    }
    node.deliver(&kept);
    assert_eq!(node.state(&kept), State::Ready);
    node.stop();
}

fn what_a_name_stood_for_before_goes(version: Version) {
    let node = Node::new(version);
    let (first, second, third) = (image(1), image(2), image(3));
    let old = node.put_and_deliver(NAME, &first);
    node.ctr(&["containers", "create", NAME, "keeper", "/bin/true"]);
    // A container uses it: it stays for kubelet to remove.
    node.put_and_deliver(NAME, &second);
    let by_digest = |image: &Image| format!("registry.corp/app@{}", image.digest());
    let kept = node.kubelets_image(&by_digest(&first)).unwrap();
    assert_eq!(kept["id"], old.config.digest().to_string());
    let unpinned = || (node.kubelets_image(&by_digest(&first)).unwrap()["pinned"] == false).then_some(());
    until("its pin to go", PATIENCE, unpinned).unwrap();
    assert!(node.kubelets_image(&by_digest(&second)).is_some());
    // Nobody uses the second.
    let last = node.put_and_deliver(NAME, &third);
    assert!(!node.names().contains_key(&by_digest(&second)));
    assert_eq!(node.state(&last), State::Ready);
    node.store.collect(&larder_store::CollectOptions::default()).unwrap();
    node.observe(std::slice::from_ref(&last));
    let gone = || (!node.has_blob(&second.layers()[1].digest)).then_some(());
    until("its layers to go", PATIENCE, gone).unwrap();
    assert_eq!(node.snapshots().iter().filter(|name| name.starts_with("sha256:")).count(), 3);
    assert_eq!(withdraw(&node, &last), Withdrawal::Gone);
    assert_eq!(node.names().len(), 2, "the first, without its tag");
    node.stop();
}
