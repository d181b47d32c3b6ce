//! Further names of images, and pins: what nodes are told of them.

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use common::{World, canonical, paused, spec};
use larder_crds::{
    DeletionPolicy::{self, Delete, Retain},
    ImageCacheSpec,
};

/// Images on pool a, each with its further names.
fn tagged(images: &[(&str, &[&str])], policy: DeletionPolicy) -> ImageCacheSpec {
    let names: Vec<&str> = images.iter().map(|(image, _)| *image).collect();
    let mut spec = spec(Some("a"), &names, policy);
    for (image, (_, tags)) in spec.images.iter_mut().zip(images) {
        image.tags = tags.iter().map(|&tag| tag.to_owned()).collect();
    }
    spec
}

fn world() -> World {
    let mut world = World::default();
    world.put_node("n1", "a");
    rest(&mut world);
    world
}

fn rest(world: &mut World) {
    for _ in 0..3 {
        world.settle();
        world.run_agent("n1");
    }
    world.settle();
}

/// The further names of an image, where the node is to hold it, is to keep it, or will be.
fn tags(world: &World, image: &str) -> [Option<Vec<String>>; 3] {
    let spec = world.node_caches["n1"].spec.as_ref().unwrap();
    let image = canonical(image);
    let wanted = spec.images.iter().find(|found| found.image == image).map(|found| found.tags.clone());
    let released = spec.released.iter().find(|found| found.image == image).map(|found| found.tags.clone());
    let deferred = spec.deferred.iter().find(|found| found.image == image).map(|found| found.tags.clone());
    [wanted, released, deferred]
}

fn canonicals(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| canonical(name)).collect()
}

#[test]
fn names_are_canonical_joined_over_caches_and_go_with_the_edit() {
    let mut world = world();
    world.put_cache("one", Ok(tagged(&[("app", &["b", "docker.io/library/b:latest", "a"])], Delete)));
    world.put_cache("two", Ok(tagged(&[("app", &["c"])], Delete)));
    rest(&mut world);
    assert_eq!(tags(&world, "app")[0], Some(canonicals(&["a", "b", "c"])));
    world.put_cache("one", Ok(tagged(&[("app", &["b"])], Delete)));
    rest(&mut world);
    assert_eq!(tags(&world, "app")[0], Some(canonicals(&["b", "c"])));
    world.delete_cache("two");
    rest(&mut world);
    assert_eq!(tags(&world, "app")[0], Some(canonicals(&["b"])));
}

#[test]
fn an_image_that_is_left_is_left_under_all_its_names() {
    let mut world = world();
    world.put_cache("keep", Ok(tagged(&[("app", &["b", "c"])], Retain)));
    rest(&mut world);
    world.delete_cache("keep");
    world.settle();
    assert_eq!(tags(&world, "app"), [None, Some(canonicals(&["b", "c"])), None]);
    // Until the agent has seen it.
    rest(&mut world);
    assert_eq!(tags(&world, "app"), [None, None, None]);
}

#[test]
fn a_pause_leaves_names_where_they_are() {
    let mut world = world();
    world.put_cache("web", Ok(tagged(&[("app", &["b", "c"])], Delete)));
    rest(&mut world);
    let edited = || tagged(&[("app", &["c"])], Delete);
    world.put_cache("web", Ok(paused(edited())));
    rest(&mut world);
    assert_eq!(tags(&world, "app")[0], Some(canonicals(&["b", "c"])));
    world.put_cache("web", Ok(edited()));
    rest(&mut world);
    assert_eq!(tags(&world, "app")[0], Some(canonicals(&["c"])));
}

/// The node still has what it was told by an object that is lost.
#[test]
fn names_of_an_image_that_waits_stay() {
    let mut world = world();
    world.put_cache("web", Ok(tagged(&[("app", &["b"])], Delete)));
    rest(&mut world);
    world.put_cache("web", Ok(paused(tagged(&[("app", &["b"])], Delete))));
    rest(&mut world);
    world.delete_node_cache("n1");
    rest(&mut world);
    assert_eq!(tags(&world, "app"), [None, None, Some(canonicals(&["b"]))]);
}

#[test]
fn an_image_is_pinned_if_one_cache_says_so() {
    let mut world = world();
    let pinned = |world: &World| world.node_caches["n1"].spec.as_ref().unwrap().images[0].pin;
    let unpinned = || ImageCacheSpec { pin: Some(false), ..spec(Some("a"), &["app"], Delete) };
    world.put_cache("one", Ok(unpinned()));
    rest(&mut world);
    assert!(!pinned(&world));
    world.put_cache("two", Ok(ImageCacheSpec { pin: None, ..spec(Some("a"), &["app"], Delete) }));
    rest(&mut world);
    assert!(pinned(&world), "what is not said is yes");
    world.put_cache("two", Ok(unpinned()));
    rest(&mut world);
    assert!(!pinned(&world));
}
