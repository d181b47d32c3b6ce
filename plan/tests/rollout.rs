//! Roll-outs: who gets new content, and when; and that never more nodes are made busy than may be. The world checks each
//! write of the operator's against the limits, by what the API server has (`World::check_limits`).

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{Landing, World, canonical, failed, limited, paused, pulling, ready, spec};
use larder_crds::{
    DeletionPolicy::{Delete, Retain},
    FailureReason, ImageCacheSpec, ImageState, NodeCounts, NodeImageStatus,
};
use proptest::{
    collection::{btree_set, vec},
    prelude::*,
    sample::select,
};

const NODES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

/// Five nodes of pool a with agents, all of which hold `v1` of a cache that is rolled out as `limit` says.
fn world(limit: &str) -> World {
    let mut world = World::default();
    for name in NODES {
        world.put_node(name, "a");
    }
    world.put_cache("web", Ok(limited(spec(Some("a"), &["v1"], Delete), limit)));
    finish(&mut world);
    assert_eq!(told(&world, "v1"), NODES);
    world
}

/// All agents do all that they are told, until nothing changes.
fn finish(world: &mut World) {
    for _ in 0..60 {
        world.settle();
        let writes = world.writes;
        for name in NODES
            .iter()
            .filter(|name| world.nodes.get(**name).is_some_and(|node| node.is_available))
            .copied()
            .collect::<Vec<_>>()
        {
            world.run_agent(name);
        }
        if world.dirty.is_empty() && world.writes == writes {
            return;
        }
    }
    panic!("the roll-out never ends");
}

/// An agent has taken up what it was told, and fetches what it lacks.
fn fetch(world: &mut World, name: &str) {
    let has: BTreeSet<String> = world.node_caches[name]
        .status
        .images
        .iter()
        .filter(|image| image.state == ImageState::Ready)
        .map(|image| image.image.clone())
        .collect();
    world.run_agent_with(
        name,
        |image| if has.contains(&image.image) { ready(10) } else { pulling(Some(10), 1) },
    );
    world.settle();
}

fn done(world: &mut World, name: &str) {
    world.run_agent(name);
    world.settle();
}

/// The nodes that have been told to hold an image.
fn told(world: &World, image: &str) -> Vec<&'static str> {
    NODES.into_iter().filter(|node| world.desired(node).contains(&canonical(image))).collect()
}

fn deferred(world: &World, node: &str) -> Vec<String> {
    let spec = world.node_caches[node].spec.as_ref().unwrap();
    spec.deferred.iter().map(|image| image.image.clone()).collect()
}

fn counts(world: &World) -> NodeCounts {
    world.status("web").nodes.unwrap()
}

#[test]
fn some_nodes_at_a_time_in_order_of_their_names_and_failures_do_not_block() {
    let mut world = world("2");
    world.put_cache("web", Ok(limited(spec(Some("a"), &["v2"], Delete), "2")));
    world.settle();
    assert_eq!((told(&world, "v2"), told(&world, "v1")), (vec!["n1", "n2"], vec!["n3", "n4", "n5"]));
    assert_eq!(deferred(&world, "n3"), [] as [String; 0], "who waits is not even written to");
    assert_eq!(world.condition("web", "Ready"), ("False".into(), "RollingOut".into()));
    assert_eq!(world.condition("web", "Reconciling"), ("True".into(), "RollingOut".into()));
    assert_eq!(
        counts(&world),
        NodeCounts { selected: 5, progressing: 2, waiting: 3, ..NodeCounts::default() }
    );
    fetch(&mut world, "n1");
    assert_eq!(told(&world, "v2"), ["n1", "n2"], "on its way is not there");
    done(&mut world, "n1");
    assert_eq!(told(&world, "v2"), ["n1", "n2", "n3"]);
    world.run_agent_with("n2", |_| failed(FailureReason::NotFound, "no such tag"));
    world.settle();
    assert_eq!(told(&world, "v2"), ["n1", "n2", "n3", "n4"], "what fails frees its place");
    assert_eq!(world.condition("web", "Stalled").0, "False", "the others go on");
    done(&mut world, "n3");
    done(&mut world, "n4");
    done(&mut world, "n5");
    assert_eq!(world.condition("web", "Stalled"), ("True".into(), "ImagesUnavailable".into()));
    done(&mut world, "n2");
    assert_eq!(world.condition("web", "Ready").0, "True");
    let writes = world.writes;
    world.restart();
    world.settle();
    assert_eq!(world.writes, writes, "a restarted operator finds nothing to write");
}

#[test]
fn a_percentage_is_of_the_nodes_that_there_are() {
    let mut world = world("30%");
    world.put_cache("web", Ok(limited(spec(Some("a"), &["v2"], Delete), "30%")));
    world.settle();
    assert_eq!(told(&world, "v2"), ["n1", "n2"], "30% of 5, rounded up");
    world.put_node("n5", "b");
    world.put_node("n4", "b");
    done(&mut world, "n1");
    assert_eq!(told(&world, "v2"), ["n1", "n2"], "30% of 3");
    done(&mut world, "n2");
    assert_eq!(told(&world, "v2"), ["n1", "n2", "n3"]);
}

#[test]
fn an_edit_in_the_middle_reaches_busy_nodes_first_and_leaves_the_others() {
    let mut world = world("2");
    let edit = |world: &mut World, image| {
        world.put_cache("web", Ok(limited(spec(Some("a"), &[image], Delete), "2")));
        world.settle();
    };
    edit(&mut world, "v2");
    edit(&mut world, "v3");
    assert_eq!(told(&world, "v3"), [] as [&str; 0], "their agents have not answered to v2 yet");
    fetch(&mut world, "n1");
    fetch(&mut world, "n2");
    assert_eq!((told(&world, "v3"), told(&world, "v2")), (vec!["n1", "n2"], vec![]), "no turn is lost");
    assert_eq!(told(&world, "v1"), ["n3", "n4", "n5"]);
    finish(&mut world);
    assert_eq!((told(&world, "v3"), told(&world, "v1")), (NODES.to_vec(), vec![]));
}

#[test]
fn what_is_only_taken_off_the_list_goes_everywhere_at_once() {
    let mut world = world("1");
    world.put_cache("web", Ok(limited(spec(Some("a"), &["v1", "tool"], Delete), "1")));
    finish(&mut world);
    world.put_cache("web", Ok(limited(spec(Some("a"), &["tool"], Delete), "1")));
    world.settle();
    assert_eq!((told(&world, "v1"), told(&world, "tool")), (vec![], NODES.to_vec()));
    world.put_cache("web", Ok(limited(spec(Some("b"), &["tool"], Delete), "1")));
    world.settle();
    assert_eq!(told(&world, "tool"), [] as [&str; 0]);
}

/// The agent may have taken the image away meanwhile: what it reported before says nothing.
#[test]
fn what_is_put_back_on_the_list_waits_for_the_agents() {
    let mut world = world("1");
    for images in [&[] as &[&str], &["v1"]] {
        world.put_cache("web", Ok(limited(spec(Some("a"), images, Delete), "1")));
        world.settle();
    }
    assert_eq!(told(&world, "v1"), [] as [&str; 0]);
    for name in NODES {
        fetch(&mut world, name);
    }
    assert_eq!(told(&world, "v1"), ["n1"]);
    finish(&mut world);
    assert_eq!(told(&world, "v1"), NODES);
}

#[test]
fn a_pause_holds_everything_and_is_no_failure() {
    let mut world = world("1");
    let v2 = || limited(spec(Some("a"), &["v2"], Delete), "1");
    world.put_cache("web", Ok(v2()));
    world.settle();
    world.put_cache("web", Ok(paused(v2())));
    done(&mut world, "n1");
    assert_eq!((told(&world, "v2"), told(&world, "v1").len()), (vec!["n1"], 4), "what was begun goes on");
    for (kind, status) in
        [("Ready", "False"), ("Reconciling", "False"), ("Stalled", "False"), ("Degraded", "False")]
    {
        assert_eq!(world.condition("web", kind).0, status, "{kind}");
    }
    assert_eq!(world.condition("web", "Ready").1, "Paused");
    assert_eq!(counts(&world), NodeCounts { selected: 5, ready: 1, waiting: 4, ..NodeCounts::default() });
    // Neither a selector nor a label takes anything away meanwhile; an agent that is new is told to wait.
    world.put_cache("web", Ok(paused(limited(spec(Some("b"), &["v2"], Delete), "1"))));
    world.put_node("n6", "b");
    world.settle();
    assert_eq!(told(&world, "v1").len(), 4);
    assert_eq!((world.desired("n6").len(), deferred(&world, "n6")), (0, vec![canonical("v2")]));
    let writes = world.writes;
    world.restart();
    world.settle();
    assert_eq!(world.writes, writes, "a restarted operator finds nothing to write");
    world.delete_cache("web");
    world.settle();
    assert_eq!(told(&world, "v1"), [] as [&str; 0], "a deletion takes effect all the same");
}

#[test]
fn nodes_out_of_service_are_counted_and_not_waited_for() {
    let mut world = world("1");
    world.set_available("n1", false);
    world.set_available("n5", false);
    world.put_cache("web", Ok(limited(spec(Some("a"), &["v2"], Delete), "1")));
    world.settle();
    assert_eq!(told(&world, "v2"), ["n2"], "the first in service");
    // It leaves in the middle: its place is free, and it has not been given anything to fetch when it comes back.
    fetch(&mut world, "n2");
    world.set_available("n2", false);
    world.settle();
    assert_eq!((told(&world, "v2"), deferred(&world, "n2")), (vec!["n3"], vec![canonical("v2")]));
    done(&mut world, "n3");
    done(&mut world, "n4");
    assert_eq!(counts(&world), NodeCounts { selected: 5, ready: 2, unavailable: 3, ..NodeCounts::default() });
    assert_eq!(world.condition("web", "Ready"), ("True".into(), "AllImagesReady".into()));
    for name in ["n1", "n2", "n5"] {
        world.set_available(name, true);
    }
    world.settle();
    assert_eq!(told(&world, "v2"), ["n1", "n3", "n4"], "one at a time, also for those that come back");
    assert_eq!(world.condition("web", "Ready"), ("False".into(), "RollingOut".into()));
    finish(&mut world);
    assert_eq!(told(&world, "v2"), NODES);
}

#[test]
fn a_node_without_an_agent_takes_no_place() {
    let mut world = world("1");
    world.put_node("n0", "a");
    world.put_cache("web", Ok(limited(spec(Some("a"), &["v2"], Delete), "1")));
    world.settle();
    assert_eq!((world.desired("n0").len(), told(&world, "v2")), (0, vec!["n1"]));
    done(&mut world, "n0");
    done(&mut world, "n1");
    assert_eq!(world.desired("n0"), [canonical("v2")]);
    assert_eq!(told(&world, "v2"), ["n1"]);
}

#[test]
fn an_object_that_somebody_deleted_does_not_empty_its_node() {
    let mut world = world("1");
    for name in NODES {
        world.delete_node_cache(name);
    }
    world.settle();
    assert_eq!((told(&world, "v1").len(), deferred(&world, "n4")), (0, vec![canonical("v1")]));
    finish(&mut world);
    assert_eq!(told(&world, "v1"), NODES);
}

#[test]
fn what_waits_is_kept_or_goes_with_its_cache_as_everywhere_else() {
    for restarts in [false, true] {
        let mut world = world("1");
        world.put_cache("web", Ok(limited(spec(Some("a"), &["v1", "v2"], Retain), "1")));
        world.settle();
        // The other policy is told to all at once; when the agents have heard of it, the turns begin.
        for name in NODES {
            fetch(&mut world, name);
        }
        done(&mut world, "n1");
        world.put_cache("web", Ok(limited(spec(Some("a"), &["v2", "v3"], Retain), "1")));
        world.settle();
        if restarts {
            // The next operator sees the object no more.
            world.caches.remove("web");
            world.restart();
        } else {
            world.delete_cache("web");
        }
        finish(&mut world);
        assert_eq!(
            world.kept("n1"),
            [canonical("v2")],
            "v1 had been taken off the list; restarts: {restarts}"
        );
        assert_eq!(world.kept("n5"), [] as [String; 0]);
    }
}

#[test]
fn caches_with_limits_of_their_own_share_nodes() {
    let mut world = world("1");
    world.put_cache("two", Ok(limited(spec(Some("a"), &["base", "tool"], Delete), "2")));
    world.put_cache("all", Ok(spec(Some("a"), &["base"], Delete)));
    world.put_cache("web", Ok(limited(spec(Some("a"), &["v2", "base"], Delete), "1")));
    world.settle();
    assert_eq!(told(&world, "base"), NODES, "the one without a limit has its images at once");
    for name in NODES {
        done(&mut world, name);
    }
    assert_eq!((told(&world, "tool").len(), told(&world, "v2").len()), (2, 1), "each has a limit of its own");
    finish(&mut world);
    assert_eq!((told(&world, "tool"), told(&world, "v2")), (NODES.to_vec(), NODES.to_vec()));
}

/// A write is on its way, and the plan changes: whoever gets a turn then, the one on its way counts.
#[test]
fn a_start_on_its_way_counts() {
    let mut world = world("1");
    world.put_cache("web", Ok(limited(spec(Some("a"), &["v2"], Delete), "1")));
    while !world.dirty.contains(&common::node("n1"))
        || world.dirty.iter().any(|key| *key == common::rollout("web"))
    {
        assert!(world.work());
    }
    world.send("n1");
    world.set_available("n1", false);
    world.put_node("n0", "a");
    world.settle();
    assert_eq!(told(&world, "v2"), [] as [&str; 0]);
    world.land("n1", Landing::Unanswered);
    world.settle();
    assert!(world.busy("web") <= 1);
    world.set_available("n1", true);
    finish(&mut world);
    done(&mut world, "n0");
    finish(&mut world);
    assert_eq!(told(&world, "v2"), NODES);
}

#[allow(clippy::large_enum_variant, reason = "a few of them, in a test")]
#[derive(Debug, Clone)]
enum Step {
    Put(&'static str, ImageCacheSpec),
    Break(&'static str),
    Delete(&'static str),
    PutNode(&'static str, &'static str),
    Available(&'static str, bool),
    DeleteNode(&'static str),
    DeleteNodeCache(&'static str),
    Agent(&'static str, u8),
    Settle { backwards: bool },
    Restart { lands: bool },
    Work(u8),
    Send(&'static str),
    Land(&'static str, Landing),
}

const CACHES: [&str; 3] = ["c1", "c2", "c3"];
const IMAGES: [&str; 4] = ["i1", "i2", "i3", "i4"];

fn content() -> impl Strategy<Value = ImageCacheSpec> {
    let pool = select(vec![None, Some("a"), Some("b")]);
    let images =
        btree_set(select(&IMAGES[..]), 0..4).prop_map(|images| images.into_iter().collect::<Vec<_>>());
    (pool, images, select(vec![Delete, Retain]))
        .prop_map(|(pool, images, policy)| spec(pool, &images, policy))
}

fn any_pace() -> impl Strategy<Value = ImageCacheSpec> {
    (content(), select(vec!["1", "2", "3", "40%", "100%", "", "paused"])).prop_map(
        |(spec, pace)| match pace {
            "" => spec,
            "paused" => paused(spec),
            limit => limited(spec, limit),
        },
    )
}

fn common_step() -> impl Strategy<Value = Step> {
    let node = || select(&NODES[..]);
    prop_oneof![
        2 => select(&CACHES[..]).prop_map(Step::Delete),
        6 => (node(), select(vec!["a", "b"])).prop_map(|(name, pool)| Step::PutNode(name, pool)),
        3 => (node(), any::<bool>()).prop_map(|(name, is)| Step::Available(name, is)),
        1 => node().prop_map(Step::DeleteNode),
        1 => node().prop_map(Step::DeleteNodeCache),
        10 => (node(), any::<u8>()).prop_map(|(name, seed)| Step::Agent(name, seed)),
        5 => any::<bool>().prop_map(|backwards| Step::Settle { backwards }),
        1 => any::<bool>().prop_map(|lands| Step::Restart { lands }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (select(&CACHES[..]), any_pace()).prop_map(|(name, spec)| Step::Put(name, spec)),
        1 => select(&CACHES[..]).prop_map(Step::Break),
        24 => common_step(),
    ]
}

/// Each cache keeps its limit, so that it is known which one holds when a write arrives.
fn step_with_writes_on_their_way() -> impl Strategy<Value = Step> {
    let (node, cache) = (|| select(&NODES[..]), select(vec![("c1", "1"), ("c2", "2"), ("c3", "3")]));
    let landing = select(vec![Landing::Answered, Landing::Answered, Landing::Unanswered, Landing::Refused]);
    prop_oneof![
        6 => (cache, content()).prop_map(|((name, limit), spec)| Step::Put(name, limited(spec, limit))),
        24 => common_step(),
        6 => any::<u8>().prop_map(|number| Step::Work(number % 4)),
        6 => node().prop_map(Step::Send),
        12 => (node(), landing).prop_map(|(name, landing)| Step::Land(name, landing)),
    ]
}

/// How an image stands next. What is there stays there, and what has failed stays so, unless they may relapse.
fn next(before: Option<&NodeImageStatus>, seed: u8, relapses: bool) -> NodeImageStatus {
    match before {
        Some(before) if !relapses && matches!(before.state, ImageState::Ready | ImageState::Failed) => {
            before.clone()
        }
        _ => match seed % 5 {
            0 | 1 => pulling(Some(10), 1),
            2 => failed(FailureReason::RegistryUnreachable, "down"),
            _ => ready(10),
        },
    }
}

fn take(world: &mut World, step: &Step, relapses: bool) {
    match step {
        Step::Put(name, spec) => drop(world.put_cache(name, Ok(spec.clone()))),
        Step::Break(name) => drop(world.put_cache(name, Err("unreadable".to_owned()))),
        Step::Delete(name) => drop(world.delete_cache(name)),
        Step::PutNode(name, pool) => drop(world.put_node(name, pool)),
        Step::Available(name, is) => drop(world.set_available(name, *is)),
        Step::DeleteNode(name) => drop(world.delete_node(name)),
        Step::DeleteNodeCache(name) => drop(world.delete_node_cache(name)),
        Step::Agent(name, seed) => {
            let before = world.node_caches.get(*name).map(|object| object.status.images.clone());
            let before = before.unwrap_or_default();
            world.run_agent_with(name, |image| {
                let seed = seed.wrapping_add(image.image.as_bytes()[19]);
                next(before.iter().find(|found| found.image == image.image), seed, relapses)
            });
        }
        Step::Settle { backwards } => {
            world.backwards = *backwards;
            world.settle();
        }
        Step::Restart { lands } => {
            for name in NODES.iter().filter(|_| *lands) {
                world.land(name, Landing::Unanswered);
            }
            world.restart();
        }
        Step::Work(number) => (0..*number).for_each(|_| {
            world.work();
        }),
        Step::Send(name) if !world.under_way.contains_key(*name) => world.send(name),
        Step::Send(_) => {}
        Step::Land(name, landing) => world.land(name, *landing),
    }
}

/// In the end everybody in service has what all caches ask for, but for those that are paused or broken.
fn assert_arrives(world: &mut World) {
    for name in NODES {
        world.land(name, Landing::Answered);
    }
    finish(world);
    for (name, node) in world.nodes.iter().filter(|(_, node)| node.is_available) {
        let desired = world.desired(name);
        for cache in world.caches.values() {
            let Ok(spec) = &cache.spec else { continue };
            let labels = spec.node_selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
            let matches = labels.is_none_or(|labels| labels["pool"] == node.labels["pool"]);
            let lacks = spec.images.iter().find(|image| !desired.contains(&canonical(&image.image)));
            assert!(!matches || spec.paused || lacks.is_none(), "{name} lacks {lacks:?} of {}", cache.name);
        }
        assert!(world.busy_with_anything(name).is_none(), "{name} is busy");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order, no write makes more nodes busy than may be; nothing is left undone.
    #[test]
    fn never_too_many_nodes_are_made_busy(steps in vec(step(), 1..60)) {
        let mut world = World::default();
        for step in &steps {
            take(&mut world, step, true);
        }
        world.settle();
        let writes = world.writes;
        world.restart();
        world.settle();
        prop_assert_eq!(world.writes, writes, "a restarted operator finds nothing to write");
        assert_arrives(&mut world);
    }

    /// The same where writes take their time, answers get lost, and the plan changes meanwhile. Where agents do not relapse,
    /// the limit holds at every instant.
    #[test]
    fn never_too_many_nodes_are_busy_whatever_becomes_of_writes(steps in vec(step_with_writes_on_their_way(), 1..80)) {
        let mut world = World::default();
        for step in &steps {
            take(&mut world, step, false);
            for (name, limit) in [("c1", 1), ("c2", 2), ("c3", 3)] {
                prop_assert!(!world.caches.contains_key(name) || world.busy(name) <= limit, "{} after {:?}", name, step);
            }
        }
        assert_arrives(&mut world);
    }
}

/// A list is read page by page, and every page shows how things stood when the first was asked for.
#[test]
fn a_list_that_is_older_than_our_own_write_frees_no_place() {
    let mut world = world("1");
    let before = world.node_caches.clone();
    world.set_available("n1", false);
    world.index.begin_node_caches();
    world.put_cache("web", Ok(limited(spec(Some("a"), &["v2"], Delete), "1")));
    world.settle();
    assert_eq!(told(&world, "v2"), ["n2"], "started while the first page was on its way");
    world.set_available("n1", true);
    for object in before.into_values() {
        let dirty = world.index.list_node_cache(object);
        world.dirty.extend(dirty);
    }
    let listed = NODES.into_iter().map(str::to_owned).collect();
    let dirty = world.index.end_node_caches(&listed);
    world.dirty.extend(dirty);
    world.settle();
    assert_eq!(told(&world, "v2"), ["n2"], "it is still busy, whatever the list says");
    done(&mut world, "n2");
    assert_eq!(told(&world, "v2"), ["n1", "n2"]);
}
