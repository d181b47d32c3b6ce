//! A containerd that is frozen: it keeps its connections, and answers nothing.

use std::time::Instant;

use larder_runtime::{Category, Layers, Owner, State};
use larder_store::AnnexIngest;
use larder_tests::{Layer, until, wait::PATIENCE};
use rustix::process::Signal;

use crate::{
    fixture::{key, sized_image},
    node::{Node, Version},
    on_each_version,
};

on_each_version!(a_delivery_to_a_frozen_containerd_ends, a_layer_on_its_way_to_a_frozen_containerd_fails);

/// Lets it go on, whatever becomes of the test.
struct Frozen<'a>(&'a Node);

impl<'a> Frozen<'a> {
    fn new(node: &'a Node) -> Self {
        node.program.signal(Signal::STOP).unwrap();
        Self(node)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.program.signal(Signal::CONT).unwrap();
    }
}

fn a_delivery_to_a_frozen_containerd_ends(version: Version) {
    let node = Node::new(version);
    let image = node.put("registry.corp/app:v1", &sized_image(1, 96 << 20));
    let delivery = node.tokio.spawn({
        let (runtime, store, image) = (node.runtime.clone(), node.store.clone(), image.clone());
        async move { runtime.deliver(&store, &image, Owner::Agent { pin: true }, Layers::all_there()).await }
    });
    // In the middle of the longest of its calls, which unpacks the layer.
    until("the large layer to be unpacked", PATIENCE, || {
        assert!(!delivery.is_finished());
        let committed = |name: &String| name.starts_with("sha256:");
        let names = node.snapshots();
        (names.iter().any(committed) && names.iter().any(|name| !committed(name))).then_some(())
    })
    .unwrap();
    let frozen = Frozen::new(&node);
    let ended = node.wait(async { tokio::time::timeout(PATIENCE, delivery).await });
    let error = ended.expect("it ends while containerd is frozen").unwrap().unwrap_err();
    assert_eq!(error.category(), Category::Unreachable, "{error}");
    drop(frozen);
    node.deliver(&image);
    assert_eq!(node.state(&image), State::Ready);
    node.stop();
}

/// The agent gives it what arrives from the registry, and the registry does not stop.
fn a_layer_on_its_way_to_a_frozen_containerd_fails(version: Version) {
    let node = Node::new(version);
    let layer = Layer::random(1, 96 << 20).unwrap();
    let half = layer.bytes.len() / 2;
    let annex = {
        let _inside = node.tokio.enter();
        node.runtime.annex().unwrap()
    };
    let begin = || match annex.ingest(&key("registry.corp/app:v1"), &layer.digest, layer.size()).unwrap() {
        AnnexIngest::Write(writer) => Some(writer),
        // containerd lets go of the former attempt when it learns that its connection is gone.
        AnnexIngest::Busy => None,
        other => panic!("{other:?}"),
    };
    let mut writer = begin().unwrap();
    writer.write(layer.bytes.slice(..half)).unwrap();
    let frozen = Frozen::new(&node);
    let start = Instant::now();
    let failed = writer.write(layer.bytes.slice(half..)).and_then(|()| writer.finish().map(drop));
    failed.unwrap_err();
    assert!(start.elapsed() < PATIENCE);
    drop(frozen);
    // What has come is gone on with.
    let mut writer = until("containerd to let go of the layer", PATIENCE, begin).unwrap();
    let offset = usize::try_from(writer.offset()).unwrap();
    assert!(offset > 0);
    writer.write(layer.bytes.slice(offset..)).unwrap();
    assert_eq!(writer.finish().unwrap(), Ok(()));
    assert!(node.has_blob(&layer.digest));
    node.stop();
}
