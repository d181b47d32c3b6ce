//! What holds whatever happens, in whatever order.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{World, canonical, failed, pulling, ready, spec};
use jiff::Timestamp;
use larder_crds::{DeletionPolicy, FailureReason, ImageCacheSpec, MAX_FAILURES, NodeCounts, NodeImageStatus};
use proptest::{
    collection::{btree_set, vec},
    prelude::*,
    sample::select,
};

const CACHES: [&str; 3] = ["c1", "c2", "c3"];
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const IMAGES: [&str; 4] = ["i1", "i2", "i3", "i4"];

#[allow(clippy::large_enum_variant, reason = "a few of them, in a test")]
#[derive(Debug, Clone)]
enum Step {
    PutCache(&'static str, ImageCacheSpec),
    BreakCache(&'static str),
    DeleteCache(&'static str),
    PutNode(&'static str, &'static str),
    DeleteNode(&'static str),
    DeleteNodeCache(&'static str),
    RunAgent(&'static str, u8),
    Settle { backwards: bool },
    Restart,
}

fn policy() -> impl Strategy<Value = DeletionPolicy> {
    select(vec![DeletionPolicy::Delete, DeletionPolicy::Retain])
}

fn a_spec() -> impl Strategy<Value = ImageCacheSpec> {
    let pool = select(vec![None, Some("a"), Some("b")]);
    let images =
        btree_set(select(&IMAGES[..]), 0..4).prop_map(|images| images.into_iter().collect::<Vec<_>>());
    (pool, images, policy()).prop_map(|(pool, images, policy)| spec(pool, &images, policy))
}

fn step() -> impl Strategy<Value = Step> {
    let (cache, node) = (|| select(&CACHES[..]), || select(&NODES[..]));
    prop_oneof![
        6 => (cache(), a_spec()).prop_map(|(name, spec)| Step::PutCache(name, spec)),
        1 => cache().prop_map(Step::BreakCache),
        3 => cache().prop_map(Step::DeleteCache),
        4 => (node(), select(vec!["a", "b"])).prop_map(|(name, pool)| Step::PutNode(name, pool)),
        1 => node().prop_map(Step::DeleteNode),
        1 => node().prop_map(Step::DeleteNodeCache),
        5 => (node(), any::<u8>()).prop_map(|(name, seed)| Step::RunAgent(name, seed)),
        4 => any::<bool>().prop_map(|backwards| Step::Settle { backwards }),
        1 => Just(Step::Restart),
    ]
}

fn standing(seed: u8) -> NodeImageStatus {
    match seed % 5 {
        0 => pulling(Some(100), i64::from(seed)),
        1 => pulling(None, 5),
        2 => failed(FailureReason::NotFound, "gone"),
        3 => failed(FailureReason::RegistryUnreachable, "down"),
        _ => ready(i64::from(seed)),
    }
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::PutCache(name, spec) => drop(world.put_cache(name, Ok(spec.clone()))),
        Step::BreakCache(name) => drop(world.put_cache(name, Err("unreadable".to_owned()))),
        Step::DeleteCache(name) => drop(world.delete_cache(name)),
        Step::PutNode(name, pool) => drop(world.put_node(name, pool)),
        Step::DeleteNode(name) => drop(world.delete_node(name)),
        Step::DeleteNodeCache(name) => drop(world.delete_node_cache(name)),
        Step::RunAgent(name, seed) => {
            world.run_agent_with(name, |image| standing(seed.wrapping_add(image.image.as_bytes()[19])));
        }
        Step::Settle { backwards } => {
            world.backwards = *backwards;
            world.settle();
        }
        Step::Restart => world.restart(),
    }
}

/// What the sum of all usable caches asks of each node.
fn union(world: &World) -> BTreeMap<String, BTreeSet<String>> {
    let wants = |pool: &String, spec: &ImageCacheSpec| {
        let labels = spec.node_selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
        labels.is_none_or(|labels| labels["pool"] == *pool)
    };
    let of = |pool: &String| {
        let specs = world.caches.values().filter_map(|cache| cache.spec.as_ref().ok());
        specs
            .filter(|spec| wants(pool, spec))
            .flat_map(|spec| &spec.images)
            .map(|image| canonical(&image.image))
            .collect()
    };
    world.nodes.iter().map(|(name, node)| (name.clone(), of(&node.labels["pool"]))).collect()
}

/// What caches that cannot be used had asked of a node when they still could.
fn claimed_by_broken(world: &World, node: &str) -> BTreeSet<String> {
    let spec = world.node_caches.get(node).and_then(|object| object.spec.as_ref().ok());
    let images = spec.into_iter().flat_map(|spec| &spec.images);
    let is_broken = |uid: &str| world.caches.values().any(|cache| cache.uid == uid && cache.spec.is_err());
    images
        .filter(|image| image.wanted_by.iter().any(|claim| is_broken(&claim.uid)))
        .map(|image| image.image.clone())
        .collect()
}

fn assert_sound(world: &World) {
    let now = Timestamp::from_second(world.now).unwrap();
    for name in NODES {
        assert_eq!(world.index.plan_node(name), None, "node {name} was dirty, and nobody said so");
    }
    for name in CACHES {
        assert_eq!(world.index.plan_status(name, now), None, "cache {name} was dirty, and nobody said so");
    }
    assert_eq!(world.nodes.keys().collect::<Vec<_>>(), world.node_caches.keys().collect::<Vec<_>>());
    for (name, mut wanted) in union(world) {
        wanted.extend(claimed_by_broken(world, &name));
        assert_eq!(world.desired(&name), wanted.iter().cloned().collect::<Vec<_>>(), "node {name}");
        assert!(world.released(&name).iter().all(|image| !wanted.contains(image)));
        for image in &world.node_caches[&name].spec.as_ref().unwrap().images {
            assert!(!image.wanted_by.is_empty() && image.wanted_by.is_sorted_by(|a, b| a < b), "{image:?}");
        }
    }
    for cache in world.caches.values().filter(|cache| cache.spec.is_ok()) {
        assert_status_adds_up(cache);
    }
}

fn assert_status_adds_up(cache: &larder_plan::object::CacheObject) {
    let status = &cache.status;
    let NodeCounts { selected, ready, progressing, failed, waiting, unavailable } = status.nodes.unwrap();
    assert_eq!(ready + progressing + failed + waiting + unavailable, selected);
    let bytes = status.bytes.unwrap();
    assert!(0 <= bytes.present && bytes.present <= bytes.total);
    let total = usize::try_from(status.failures_total.unwrap()).unwrap();
    assert_eq!(status.failures.len(), total.min(MAX_FAILURES));
    assert_eq!(
        status.images.iter().map(|image| image.nodes_failed).sum::<i32>(),
        status.failures_total.unwrap()
    );
    assert!(status.images.iter().all(|image| image.nodes_ready + image.nodes_failed <= selected));
    let holds = |kind| {
        status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let waits_for_agents = selected == 0 && cache.spec.as_ref().unwrap().node_selector.is_none();
    let is_done = ready + unavailable == selected && (ready > 0 || selected == 0);
    assert_eq!(holds("Ready"), is_done && !waits_for_agents);
    assert_eq!(holds("Degraded"), failed > 0);
    assert!(
        [holds("Ready"), holds("Reconciling"), holds("Stalled")].iter().filter(|&&holds| holds).count() == 1
    );
    assert_eq!(status.summary.as_ref().unwrap().progress == "100%", holds("Ready"));
    assert_eq!(status.conditions.len(), 4);
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == cache.generation));
    assert_eq!(status.observed_generation, cache.generation);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The plan is the union of what all usable caches ask, plus what unusable ones had; it comes to rest; and every
    /// change names all keys that it made dirty, or something would be left to plan at the end.
    #[test]
    fn whatever_happens_the_plan_is_the_union_and_comes_to_rest(steps in vec(step(), 1..40)) {
        let mut world = World::default();
        for step in &steps {
            take(&mut world, step);
        }
        world.settle();
        assert_sound(&world);
        let writes = world.writes;
        world.restart();
        world.settle();
        prop_assert_eq!(world.writes, writes, "a restarted operator finds nothing to write");
        assert_sound(&world);
    }

    /// Whoever is deleted first: nothing is wanted in the end, and what a cache with Retain had asked for is kept.
    #[test]
    fn caches_may_be_deleted_in_any_order(
        specs in vec(a_spec(), 3),
        order in Just(CACHES.to_vec()).prop_shuffle(),
        pauses in vec(any::<(bool, bool, bool)>(), 3),
    ) {
        let mut world = World::default();
        for (name, pool) in [("n1", "a"), ("n2", "b")] {
            world.put_node(name, pool);
        }
        for (name, spec) in CACHES.iter().zip(&specs) {
            world.put_cache(name, Ok(spec.clone()));
        }
        rest(&mut world);
        let kept = kept(&specs);
        for (name, (settle, restart, agents)) in order.iter().zip(pauses) {
            world.delete_cache(name);
            if settle {
                world.settle();
            }
            if restart {
                world.restart();
            }
            if agents {
                rest(&mut world);
            }
        }
        rest(&mut world);
        for name in ["n1", "n2"] {
            prop_assert!(world.desired(name).is_empty() && world.released(name).is_empty());
            prop_assert_eq!(world.kept(name), kept[name].iter().cloned().collect::<Vec<_>>());
        }
    }
}

fn kept(specs: &[ImageCacheSpec]) -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut world = World::default();
    for (name, pool) in [("n1", "a"), ("n2", "b")] {
        world.put_node(name, pool);
    }
    for (name, spec) in
        CACHES.iter().zip(specs).filter(|(_, spec)| spec.deletion_policy == DeletionPolicy::Retain)
    {
        world.put_cache(name, Ok(spec.clone()));
    }
    let mut union = union(&world);
    ["n1", "n2"].into_iter().map(|name| (name, union.remove(name).unwrap_or_default())).collect()
}

fn rest(world: &mut World) {
    for _ in 0..3 {
        world.settle();
        for name in NODES {
            world.run_agent(name);
        }
    }
    world.settle();
}
