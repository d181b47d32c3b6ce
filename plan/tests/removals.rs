//! What nodes say of rules for removal, folded into the status of the cache whose rules they are.

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use common::{World, cache, spec};
use larder_crds::{
    DeletionPolicy::Delete, ImageCacheSpec, NodeRemoval, NodeRemovalStatus, RemovalRule, RemovalSummary,
};
use larder_plan::index::Dirty;

fn rules(rules: &[(&str, bool)]) -> ImageCacheSpec {
    let rule = |&(image, dry_run): &(&str, bool)| RemovalRule {
        image: image.to_owned(),
        dry_run,
        ..RemovalRule::default()
    };
    ImageCacheSpec { remove: rules.iter().map(rule).collect(), ..spec(Some("a"), &[], Delete) }
}

fn status(image: &str, images: i32, in_use: i32, removed: i32, names: &[&str]) -> NodeRemovalStatus {
    NodeRemovalStatus {
        cache: "clean".to_owned(),
        image: image.to_owned(),
        dry_run: true,
        images,
        in_use,
        removed,
        names: names.iter().map(|&name| name.to_owned()).collect(),
    }
}

/// Nodes of pool a whose agents have reported, and a cache that only removes.
fn world(nodes: &[&str], spec: ImageCacheSpec) -> World {
    let mut world = World::default();
    world.put_cache("clean", Ok(spec));
    for name in nodes {
        world.put_node(name, "a");
    }
    world.settle();
    for name in nodes {
        world.run_agent(name);
    }
    world.settle();
    world
}

/// A node's agent says this of its rules.
fn say(world: &mut World, node: &str, removals: &[NodeRemovalStatus]) -> Dirty {
    let mut object = world.node_caches[node].clone();
    object.status.removals = removals.to_vec();
    world.write_node_cache(object)
}

fn summaries(world: &World) -> Vec<RemovalSummary> {
    world.status("clean").removals.clone()
}

#[test]
fn rules_reach_the_nodes_that_the_cache_selects() {
    let mut world = world(&["n1"], rules(&[("nginx", false), ("a.test/*", true)]));
    world.put_node("n2", "b");
    world.settle();
    let told = |node: &str| world.node_caches[node].spec.as_ref().unwrap().remove.clone();
    let rule = |image: &str, dry_run| NodeRemoval {
        cache: "clean".to_owned(),
        image: image.to_owned(),
        dry_run,
        ..NodeRemoval::default()
    };
    assert_eq!(told("n1"), [rule("a.test/*", true), rule("docker.io/library/nginx:latest", false)]);
    assert_eq!(told("n2"), []);
}

#[test]
fn nodes_are_added_up_rule_by_rule() {
    let mut world = world(&["n1", "n2", "n3"], rules(&[("b.test/*", true), ("a.test/*", true)]));
    world.put_cache("other", Ok(spec(Some("a"), &[], Delete)));
    world.settle();
    let dirty =
        say(&mut world, "n1", &[status("a.test/*", 2, 1, 0, &["a.test/x:1", "a.test/x:2", "a.test/y:1"])]);
    assert_eq!(dirty, [cache("clean")].into(), "and no other cache, and no node");
    say(&mut world, "n2", &[status("a.test/*", 0, 0, 4, &[]), status("b.test/*", 1, 0, 0, &["b.test/z:1"])]);
    world.settle();
    let [first, second] = summaries(&world).try_into().unwrap();
    assert_eq!((first.image.as_str(), first.nodes, first.images, first.in_use), ("b.test/*", 1, 1, 0));
    assert_eq!((second.nodes, second.images, second.in_use, second.removed), (1, 2, 1, 4));
    assert_eq!(second.names, ["a.test/x:1", "a.test/x:2", "a.test/y:1"]);
    assert!(second.dry_run);
    // What is still there holds nothing up.
    assert_eq!(world.condition("clean", "Ready").0, "True");
    assert_eq!(
        say(&mut world, "n1", &[status("a.test/*", 2, 1, 0, &["a.test/x:1", "a.test/x:2", "a.test/y:1"])]),
        Dirty::new()
    );
    say(&mut world, "n1", &[]);
    world.delete_node("n2");
    world.settle();
    assert!(
        summaries(&world).iter().all(|rule| rule.nodes == 0 && rule.removed == 0 && rule.names.is_empty())
    );
}

#[test]
fn what_was_said_of_a_dry_run_is_not_said_of_the_rule_in_earnest() {
    let mut world = world(&["n1"], rules(&[("a.test/*", true)]));
    say(&mut world, "n1", &[status("a.test/*", 2, 1, 3, &["a.test/x:1"])]);
    world.settle();
    assert_eq!(summaries(&world)[0].images, 2);
    world.put_cache("clean", Ok(rules(&[("a.test/*", false)])));
    world.settle();
    let told = &summaries(&world)[0];
    assert_eq!((told.dry_run, told.nodes, told.images, told.in_use, told.removed), (false, 0, 0, 0, 3));
    say(
        &mut world,
        "n1",
        &[NodeRemovalStatus { dry_run: false, ..status("a.test/*", 0, 1, 5, &["a.test/x:1"]) }],
    );
    world.settle();
    let told = &summaries(&world)[0];
    assert_eq!((told.nodes, told.images, told.in_use, told.removed), (1, 0, 1, 5));
    // Without the rule nothing is said of it, whatever nodes still say.
    world.put_cache("clean", Ok(rules(&[])));
    world.settle();
    assert_eq!(summaries(&world), []);
}

#[test]
fn the_status_has_the_same_size_whatever_the_number_of_nodes() {
    let size = |count: usize| {
        let nodes: Vec<String> = (0..count).map(|number| format!("n{number:03}")).collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        let mut world = world(&nodes, rules(&[("a.test/*", true)]));
        for (number, node) in nodes.iter().enumerate() {
            let names: Vec<String> = (0..10).map(|image| format!("a.test/x:{number:03}-{image}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            say(&mut world, node, &[status("a.test/*", 10, 0, 0, &names)]);
        }
        world.settle();
        let summary = summaries(&world).remove(0);
        assert_eq!(
            (summary.nodes, summary.images),
            (i32::try_from(count).unwrap(), 10 * i32::try_from(count).unwrap())
        );
        summary.names
    };
    let (few, many) = (size(1), size(100));
    assert_eq!(few, many, "the first ten names in order");
    assert_eq!(many.len(), 10);
}
