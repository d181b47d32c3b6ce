//! What kubelet sees of a delivered image, and what the disk holds.

use std::io::{Read, Seek, SeekFrom};

use larder_oci::Digest;
use larder_runtime::{Owner, State};
use larder_tests::{Blob, Image, Layer};
use serde_json::json;

use crate::{
    fixture::{image, sized_image},
    node::{Node, Version, text},
    on_each_version,
};

on_each_version!(
    kubelet_finds_an_image_under_its_names,
    a_container_runs_on_it,
    a_layer_is_on_the_disk_once,
    a_persons_image_is_pinned_only_on_demand,
);

fn kubelet_finds_an_image_under_its_names(version: Version) {
    let node = Node::new(version);
    let other =
        Image::builder().platform("linux/s390x").layer(&Layer::random(9, 10).unwrap()).build().unwrap();
    let docker = Image::builder().docker().layer(&Layer::random(5, 100_000).unwrap()).build().unwrap();
    let images = [
        ("registry.corp:5000/team/app:v1", image(1)),
        ("docker.io/library/indexed:latest", Image::index(&[image(2), other]).unwrap()),
        ("registry.corp/docker:v1", docker.clone()),
        ("registry.corp/docker-list:v1", Image::index(std::slice::from_ref(&docker)).unwrap()),
    ];
    for (name, image) in &images {
        let delivered = node.put(name, image);
        assert_eq!(node.state(&delivered), State::Missing, "{name}");
        // The second time, all is there.
        for _ in 0..2 {
            node.deliver(&delivered);
            assert_eq!(node.state(&delivered), State::Ready, "{name}");
        }
        let own = image.children.first().unwrap_or(image);
        let id = own.blobs[0].digest.as_str();
        let repository = name.rsplit_once(':').unwrap().0;
        let digest = format!("{repository}@{}", image.digest());
        for asked in [*name, &digest, id] {
            let found =
                node.kubelets_image(asked).unwrap_or_else(|| panic!("{name}: kubelet asks for {asked}"));
            assert_eq!(found["id"], id, "{asked}");
            assert_eq!(found["pinned"], true, "{asked}");
            assert!(found["repoTags"].as_array().unwrap().contains(&json!(name)), "{found}");
            assert!(found["repoDigests"].as_array().unwrap().contains(&json!(digest)), "{found}");
            let size: u64 = found["size"].as_str().unwrap().parse().unwrap();
            let blobs = own.manifest.size() + own.blobs.iter().map(Blob::size).sum::<u64>();
            // The last has the ID of the one before, whose size it keeps.
            let indexed = !image.children.is_empty() && !name.contains("docker-list");
            assert_eq!(size, blobs + if indexed { image.manifest.size() } else { 0 }, "{asked}");
        }
    }
    assert_eq!(node.kubelets_images().len(), 3, "two names are the same image");
    for row in node.table(&["images", "check"]) {
        assert_eq!((row[3].as_str(), row.last().unwrap().as_str()), ("complete", "true"), "{row:?}");
    }
    assert_eq!(node.observe(&[]).strays.len(), images.len());
    // Nothing that is only half done is left behind.
    let leases = node.table(&["leases", "ls"]);
    assert!(leases.iter().all(|row| !row[0].contains("/unpack/")), "{leases:?}");
    assert!(node.snapshots().iter().all(|name| name.starts_with("sha256:")));
    node.stop();
}

fn a_container_runs_on_it(version: Version) {
    let node = Node::new(version);
    let layers = [Layer::busybox().unwrap(), Layer::of(&[("etc/greeting", b"good morning")]).unwrap()];
    let image = Image::builder().layer(&layers[0]).layer(&layers[1]).build().unwrap();
    node.put_and_deliver("registry.corp/greeter:v1", &image);
    // Its name is a cgroup's too: of that sort, this machine has one set for all.
    let name = text(node.scratch.path()).replace('/', "");
    // ctr does not share containerd's /run.
    let fifos = node.scratch.folder("fifos").unwrap();
    let how = ["run", "--rm", "--cgroup", &name, "--fifo-dir", text(&fifos)];
    let said = node.ctr(&[&how[..], &["registry.corp/greeter:v1", &name, "cat", "/etc/greeting"]].concat());
    assert_eq!(said, "good morning");
    node.stop();
}

fn a_layer_is_on_the_disk_once(version: Version) {
    const SIZE: usize = 24 << 20;
    let node = Node::new(version);
    let image = sized_image(3, SIZE);
    let layer = &image.layers()[1];
    node.put("registry.corp/large:v1", &image);
    let (store, content) = ("store", "root/io.containerd.content.v1.content");
    let before = node.disk_usage(store);
    assert!(before > SIZE as u64);
    node.put_and_deliver("registry.corp/large:v1", &image);
    let (in_store, in_content) = (node.disk_usage(store), node.disk_usage(content));
    let copies = (in_store + in_content) as f64 / before as f64;
    println!(
        "{before} bytes in the store before, {in_store} after, {in_content} in containerd: {copies:.3} copies"
    );
    assert!(copies < 1.05, "{in_store} + {in_content} after {before}");

    // It can be read as ever.
    let mut blob = node.store.open_blob(&layer.digest).unwrap();
    assert_eq!(blob.size(), layer.size());
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes).unwrap();
    assert_eq!(Digest::sha256(&bytes), layer.digest);
    for offset in [0, 1, (1 << 20) - 1, 1 << 20, SIZE as u64 - 5] {
        blob.seek(SeekFrom::Start(offset)).unwrap();
        let mut part = [0; 5];
        blob.read_exact(&mut part).unwrap();
        let start = usize::try_from(offset).unwrap();
        assert_eq!(part, bytes[start..start + 5], "{offset}");
    }
    assert_eq!(blob.seek(SeekFrom::End(0)).unwrap(), layer.size());
    assert_eq!(blob.read(&mut [0; 5]).unwrap(), 0);
    node.stop();
}

fn a_persons_image_is_pinned_only_on_demand(version: Version) {
    let node = Node::new(version);
    for (pin, name) in [(true, "registry.corp/a:v1"), (false, "registry.corp/b:v1")] {
        let image = node.put(name, &image(u64::from(pin)));
        node.try_deliver(&image, Owner::Person { pin }, larder_runtime::Layers::all_there()).unwrap();
        assert_eq!(node.kubelets_image(name).unwrap()["pinned"], pin);
    }
    assert!(node.observe(&[]).strays.is_empty(), "the agent leaves a person's images alone");
    node.stop();
}
