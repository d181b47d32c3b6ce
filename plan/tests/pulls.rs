//! What agents have fetched, added up over the nodes.

#![allow(clippy::unwrap_used, reason = "tests")]

use larder_crds::{NodeImageCacheSpec, NodeImageCacheStatus, PullCount};
use larder_plan::{AllowList, Index, object::NodeCacheObject};
use proptest::prelude::*;

fn count(images: i64, bytes: i64) -> PullCount {
    PullCount { images, failures: images / 2, bytes, milliseconds: images * 100 }
}

/// What a node's agent says, in the object's version `version`.
fn said(node: &str, version: u32, pulls: Option<PullCount>) -> NodeCacheObject {
    of(node, node, version, pulls)
}

fn of(node: &str, uid: &str, version: u32, pulls: Option<PullCount>) -> NodeCacheObject {
    NodeCacheObject {
        name: node.to_owned(),
        uid: uid.to_owned(),
        resource_version: Some(version.to_string()),
        generation: Some(1),
        deleting: false,
        node_uids: Vec::new(),
        spec: Ok(NodeImageCacheSpec::default()),
        status: NodeImageCacheStatus { pulls, ..Default::default() },
    }
}

fn pulls(index: &Index) -> PullCount {
    index.census().pulls
}

#[test]
fn what_was_fetched_before_is_nobodys() {
    let mut index = Index::allowing(AllowList::default());
    index.apply_node_cache(said("a", 1, Some(count(100, 1_000))));
    assert_eq!(pulls(&index), PullCount::default(), "another operator has counted these");
    index.apply_node_cache(said("a", 2, Some(count(102, 1_500))));
    // Its object is made before it fetches anything.
    index.apply_node_cache(said("b", 3, None));
    index.apply_node_cache(said("b", 4, Some(count(6, 50))));
    assert_eq!(pulls(&index).images, 8);
    assert_eq!(pulls(&index).bytes, 550);
    // Who comes to lead counts from there.
    index.count_pulls();
    assert_eq!(pulls(&index), PullCount::default());
    index.apply_node_cache(said("b", 5, Some(count(8, 60))));
    assert_eq!((pulls(&index).images, pulls(&index).bytes), (2, 10));
}

#[test]
fn an_object_that_is_made_anew_counts_anew() {
    let mut index = Index::allowing(AllowList::default());
    index.apply_node_cache(said("a", 1, None));
    index.apply_node_cache(said("a", 2, Some(count(10, 1_000))));
    // Its end may not have been seen.
    index.apply_node_cache(of("a", "other", 3, Some(count(2, 30))));
    assert_eq!((pulls(&index).images, pulls(&index).bytes), (12, 1_030));
    index.delete_node_cache("a");
    assert_eq!((pulls(&index).images, pulls(&index).bytes), (12, 1_030));
    index.apply_node_cache(of("a", "third", 4, None));
    index.apply_node_cache(of("a", "third", 5, Some(count(1, 7))));
    assert_eq!((pulls(&index).images, pulls(&index).bytes), (13, 1_037));
}

/// A status that somebody emptied, an etcd that was put back, an agent that lies.
#[test]
fn what_goes_back_counts_as_nothing_and_not_once_more() {
    let mut index = Index::allowing(AllowList::default());
    index.apply_node_cache(said("a", 1, None));
    index.apply_node_cache(said("a", 2, Some(count(10, 1_000))));
    for (version, wrong) in [(3, None), (4, Some(count(4, 400))), (5, Some(count(-8, -1)))] {
        index.apply_node_cache(said("a", version, wrong));
        assert_eq!((pulls(&index).images, pulls(&index).bytes), (10, 1_000));
    }
    index.begin_node_caches();
    index.list_node_cache(said("a", 2, Some(count(9, 900))));
    index.end_node_caches(&["a".to_owned()].into());
    index.apply_node_cache(said("a", 6, Some(count(11, 1_100))));
    assert_eq!((pulls(&index).images, pulls(&index).bytes), (11, 1_100));
}

proptest! {
    /// Whatever comes twice, late or in jumps: the sum is what the last of each node says.
    #[test]
    fn the_sum_is_that_of_the_nodes(steps in prop::collection::vec((0..3_usize, 0..5_i64, any::<bool>()), 1..40)) {
        let mut index = Index::allowing(AllowList::default());
        let nodes = ["a", "b", "c"];
        let mut last = [0; 3];
        for (number, node) in nodes.iter().enumerate() {
            index.apply_node_cache(said(node, u32::try_from(number).unwrap() + 1, None));
        }
        for (version, (node, more, again)) in (10..).zip(steps) {
            let before = said(nodes[node], version - 5, Some(count(0, last[node])));
            last[node] += more;
            index.apply_node_cache(said(nodes[node], version, Some(count(0, last[node]))));
            if again {
                index.apply_node_cache(before);
            }
        }
        prop_assert_eq!(pulls(&index).bytes, last.iter().sum::<i64>());
    }
}
