//! Layers of every compression and media type, and images that no runtime can use.

use std::io::Read;

use larder_runtime::{Category, Layers, Owner, RuntimeError, State};
use larder_tests::{Blob, Image, Layer};
use serde_json::{Value, json};

use crate::{
    fixture::image,
    node::{Node, Version},
    on_each_version,
};

on_each_version!(
    layers_of_every_compression_are_unpacked,
    an_image_that_is_not_what_it_says_is_refused,
    what_no_runtime_can_unpack_is_refused,
    an_artifact_stays_in_the_store,
);

fn unpacked(layer: &Layer) -> Vec<u8> {
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(&layer.bytes[..]).read_to_end(&mut tar).unwrap();
    tar
}

/// The same image with its last layer in another form.
fn with_layer(image: &Image, media_type: &str, bytes: Vec<u8>) -> Image {
    let layer = Blob::new(media_type, bytes);
    let mut image = image
        .edit_manifest(|manifest| {
            let layers = manifest["layers"].as_array_mut().unwrap();
            *layers.last_mut().unwrap() = layer.descriptor();
        })
        .unwrap();
    *image.blobs.last_mut().unwrap() = layer;
    image
}

fn layers_of_every_compression_are_unpacked(version: Version) {
    let node = Node::new(version);
    let layer = Layer::random(21, 3_000_000).unwrap();
    let tar = unpacked(&layer);
    let zstd = zstd::encode_all(&tar[..], 3).unwrap();
    let gzip = layer.bytes.to_vec();
    let forms = [
        (false, "application/vnd.oci.image.layer.v1.tar", &tar),
        (false, "application/vnd.oci.image.layer.v1.tar+gzip", &gzip),
        (false, "application/vnd.oci.image.layer.v1.tar+zstd", &zstd),
        (false, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", &gzip),
        (true, "application/vnd.docker.image.rootfs.diff.tar", &tar),
        (true, "application/vnd.docker.image.rootfs.diff.tar.gzip", &gzip),
        (true, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", &gzip),
        (true, "application/vnd.docker.image.rootfs.diff.tar.zstd", &zstd),
    ];
    for (docker, media_type, bytes) in forms {
        let node_name = "registry.corp/form:v1";
        let builder = if docker { Image::builder().docker() } else { Image::builder() };
        let image = with_layer(&builder.layer(&layer).build().unwrap(), media_type, bytes.clone());
        let put = node.put(node_name, &image);
        let delivered = node.try_deliver(&put, Owner::Agent { pin: true }, Layers::all_there());
        if version == Version::OneSeven && media_type.contains("docker") && media_type.contains("zstd") {
            // Unknown to 1.7, and to docker when that was new.
            let error = delivered.unwrap_err().to_string();
            assert!(error.contains("unpack layer"), "{media_type}: {error}");
            continue;
        }
        delivered.unwrap_or_else(|error| panic!("{media_type}: {error}"));
        assert_eq!(node.state(&put), State::Ready, "{media_type}");
        // Each time anew.
        node.wait(node.runtime.withdraw(&put.key, Some(&put))).unwrap();
        node.forget(&put);
        assert_eq!(node.snapshots(), Vec::<String>::new(), "{media_type}");
    }
    node.stop();
}

/// The message, and the kind, of a delivery that fails. Nothing half done is left behind.
fn refused(node: &Node, image: &Image) -> (String, Category) {
    let put = node.put("registry.corp/broken:v1", image);
    let error: RuntimeError =
        node.try_deliver(&put, Owner::Agent { pin: true }, Layers::all_there()).unwrap_err();
    assert_eq!(node.state(&put), State::Missing);
    assert!(node.snapshots().iter().all(|name| name.starts_with("sha256:")), "{error}");
    assert!(node.names().is_empty(), "{error}");
    (error.to_string(), error.category())
}

fn edit_config(image: &Image, edit: impl FnOnce(&mut Value)) -> Image {
    let mut config: Value = serde_json::from_slice(&image.blobs[0].bytes).unwrap();
    edit(&mut config);
    let config = Blob::new(&image.blobs[0].media_type, config.to_string());
    let mut image = image.edit_manifest(|manifest| manifest["config"] = config.descriptor()).unwrap();
    image.blobs[0] = config;
    image
}

fn an_image_that_is_not_what_it_says_is_refused(version: Version) {
    let node = Node::new(version);
    let other = Layer::random(33, 10).unwrap();
    let wrong =
        edit_config(&image(31), |config| config["rootfs"]["diff_ids"][1] = json!(other.diff_id.as_str()));
    let (message, category) = refused(&node, &wrong);
    assert!(message.contains("and the image's configuration says"), "{message}");
    assert!(message.contains(other.diff_id.as_str()), "{message}");
    assert_eq!(category, Category::Refused);

    let short = edit_config(&image(32), |config| {
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop();
    });
    let (message, _) = refused(&node, &short);
    assert!(message.contains("has 2 layers, and its configuration 1"), "{message}");

    let garbage = with_layer(&image(34), "application/vnd.oci.image.layer.v1.tar+gzip", vec![7; 5000]);
    let (message, _) = refused(&node, &garbage);
    assert!(message.contains("unpack layer sha256:"), "{message}");
    node.stop();
}

fn what_no_runtime_can_unpack_is_refused(version: Version) {
    let node = Node::new(version);
    let encrypted =
        with_layer(&image(41), "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", vec![1; 10]);
    let (message, _) = refused(&node, &encrypted);
    assert!(
        message.contains("of the type application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
        "{message}"
    );
    node.stop();
}

fn an_artifact_stays_in_the_store(version: Version) {
    let node = Node::new(version);
    let blob = Blob::new("application/vnd.cncf.helm.chart.content.v1.tar+gzip", vec![5; 1000]);
    let chart = Image::artifact("application/vnd.cncf.helm.config.v1+json", vec![blob.clone()]).unwrap();
    let put = node.put_and_deliver("registry.corp/chart:v1", &chart);
    assert_eq!(node.state(&put), State::Ready);
    assert!(node.names().is_empty() && !node.has_blob(&blob.digest));
    assert_eq!(node.store.handed_over().unwrap().len(), 0);
    node.stop();
}
