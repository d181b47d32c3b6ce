//! Which Secrets agents may read, whatever happens to the `ImageCache`s that name them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeSet;

use larder_crds::{DeletionPolicy, ImageCacheSpec, PullSecret};
use larder_plan::{AllowList, Index, Key, SecretsAction, object::CacheObject};
use proptest::prelude::*;

use common::{World, paused, spec};

fn naming(images: &[&str], secrets: &[&str]) -> ImageCacheSpec {
    let pull_secrets = secrets.iter().map(|&name| PullSecret { name: name.to_owned() }).collect();
    ImageCacheSpec { pull_secrets, ..spec(None, images, DeletionPolicy::Delete) }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A world with a node and a Role that allows nothing.
fn world() -> World {
    let mut world = World::default();
    world.put_node("n1", "web");
    world.write_role(Some(set(&[])));
    world.settle();
    world
}

fn allowed(world: &World) -> BTreeSet<String> {
    world.role.clone().unwrap().names.unwrap()
}

#[test]
fn the_role_follows_the_caches() {
    let mut world = world();
    let dirty = world.put_cache("a", Ok(naming(&["x"], &["regcred", "other"])));
    assert!(dirty.contains(&Key::Secrets));
    assert_eq!(dirty.first(), Some(&Key::Secrets), "before the nodes are told");
    world.put_cache("b", Ok(naming(&["y"], &["regcred"])));
    world.settle();
    assert_eq!(allowed(&world), set(&["other", "regcred"]));

    world.put_cache("a", Ok(naming(&["x"], &[])));
    world.settle();
    assert_eq!(allowed(&world), set(&["regcred"]));
    world.put_cache("b", Ok(paused(naming(&["y"], &["regcred"]))));
    world.settle();
    assert_eq!(allowed(&world), set(&["regcred"]));
    world.delete_cache("b");
    world.settle();
    assert_eq!(allowed(&world), set(&[]));
}

#[test]
fn what_somebody_else_writes_is_put_right_and_nothing_is_written_without_need() {
    let mut world = world();
    world.put_cache("a", Ok(naming(&["x"], &["regcred"])));
    world.settle();
    for written in [Some(set(&["regcred", "other"])), Some(set(&[])), None] {
        world.write_role(written);
        world.settle();
        assert_eq!(allowed(&world), set(&["regcred"]));
    }
    let version = world.role.clone();
    world.put_cache("a", Ok(naming(&["x", "y"], &["regcred"])));
    world.restart();
    world.settle();
    assert_eq!(world.role, version);
}

/// The watch lags behind the answers to our own writes.
#[test]
fn what_is_older_is_passed_over_until_the_role_is_looked_up_anew() {
    let mut world = world();
    let old = world.role.clone();
    world.put_cache("a", Ok(naming(&["x"], &["regcred"])));
    world.settle();
    assert_eq!(world.index.apply_secrets_role(old.clone()), BTreeSet::new());
    assert_eq!(world.index.plan_secrets(), None);
    world.index.begin_secrets_role();
    assert_eq!(world.index.apply_secrets_role(old), BTreeSet::from([Key::Secrets]));
    assert_eq!(world.index.plan_secrets(), Some(SecretsAction::Apply(set(&["regcred"]))));
}

#[test]
fn a_role_that_is_not_there_is_not_written() {
    let mut world = world();
    assert_eq!(world.index.apply_secrets_role(None), BTreeSet::new(), "nobody needs it");
    world.put_cache("a", Ok(naming(&["x"], &["regcred"])));
    assert_eq!(world.index.plan_secrets(), Some(SecretsAction::Missing(set(&["regcred"]))));
    assert_eq!(Index::default().plan_secrets(), None, "before it was looked up");
}

/// A cache that cannot be used keeps its images on the nodes, which need its Secrets.
#[test]
fn a_typing_error_takes_no_login_away() {
    let mut world = world();
    world.put_cache("a", Ok(naming(&["x"], &["regcred"])));
    world.put_cache("b", Ok(naming(&["y"], &["second"])));
    world.settle();
    world.put_cache("a", Err("no such field".to_owned()));
    world.put_cache("b", Ok(naming(&["not a name"], &["third"])));
    world.settle();
    assert_eq!(allowed(&world), set(&["regcred", "second"]));
    world.restart();
    world.settle();
    assert_eq!(allowed(&world), set(&["regcred", "second"]));
    world.delete_cache("a");
    world.settle();
    assert_eq!(allowed(&world), set(&["second"]));
    world.put_cache("b", Ok(naming(&["y"], &["third"])));
    world.settle();
    assert_eq!(allowed(&world), set(&["third"]));
}

#[test]
fn an_index_knows_what_is_allowed() {
    let cache = |image: &str| CacheObject {
        name: "a".to_owned(),
        uid: "uid".to_owned(),
        resource_version: None,
        generation: Some(1),
        deleting: false,
        spec: Ok(naming(&[image], &["regcred"])),
        status: larder_crds::ImageCacheStatus::default(),
    };
    let reason = |image: &str| {
        let patterns = vec!["registry.corp".parse().unwrap()];
        let mut index = Index::allowing(AllowList::from(patterns));
        index.apply_cache(cache(image));
        let action = index.plan_status("a", jiff::Timestamp::UNIX_EPOCH).unwrap();
        let ready =
            action.status.conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap();
        (ready.reason, ready.message)
    };
    assert_eq!(reason("registry.corp/app").0, "NoAgents");
    let (reason, message) = reason("app");
    assert_eq!(reason, "InvalidSpec");
    assert!(message.contains("docker.io/library/app:latest is not allowed here"), "{message}");
}

proptest! {
    /// Whatever comes in whatever order: in the end, agents may read what usable caches name, and what broken ones named.
    #[test]
    fn the_names_are_those_of_the_caches(
        edits in prop::collection::vec((0usize..3, prop::option::of((0usize..4, prop::bool::ANY))), 1..12),
        restarts in prop::collection::vec(prop::bool::ANY, 12),
    ) {
        let mut world = world();
        let mut named: [BTreeSet<String>; 3] = Default::default();
        for ((cache, edit), restarts) in edits.into_iter().zip(restarts) {
            let (name, image) = (format!("c{cache}"), format!("i{cache}"));
            match edit {
                None => {
                    world.delete_cache(&name);
                    named[cache].clear();
                }
                Some((secret, true)) => {
                    let secret = format!("s{secret}");
                    world.put_cache(&name, Ok(naming(&[&image], &[&secret])));
                    named[cache] = set(&[&secret]);
                }
                // One that was never usable has given nothing, and names nothing.
                Some((_, false)) => drop(world.put_cache(&name, Err("broken".to_owned()))),
            }
            if restarts {
                world.restart();
            }
            world.settle();
            let all: BTreeSet<String> = named.iter().flatten().cloned().collect();
            prop_assert_eq!(allowed(&world), all);
        }
    }
}
