//! One change after another: exactly these keys are dirty, exactly this is planned.

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use common::{World, cache, canonical, failed, node, pulling, ready, spec};
use larder_crds::{
    DeletionPolicy::{Delete, Retain},
    FailureReason, ImageCacheSpec, MAX_FAILURES, MAX_MESSAGE, NodeCounts, PullPolicy,
};
use larder_plan::{Index, index::NodeAction};

/// Two nodes of pool a, one of pool b, agents on all, and a cache of two images on pool a.
fn world() -> World {
    let mut world = World::default();
    for (name, pool) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
        world.put_node(name, pool);
    }
    world.put_cache("web", Ok(spec(Some("a"), &["app", "base"], Delete)));
    rest(&mut world);
    world
}

fn rest(world: &mut World) {
    for _ in 0..3 {
        world.settle();
        for name in ["n1", "n2", "n3", "n4"] {
            world.run_agent(name);
        }
    }
    world.settle();
}

fn images(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| canonical(name)).collect()
}

#[test]
fn a_cache_reaches_the_nodes_that_it_selects_and_becomes_ready() {
    let mut world = world();
    assert_eq!(world.desired("n1"), images(&["app", "base"]));
    assert_eq!(world.desired("n3"), images(&[]));
    assert_eq!(world.condition("web", "Ready"), ("True".into(), "AllImagesReady".into()));
    assert_eq!(
        world.status("web").nodes,
        Some(NodeCounts { selected: 2, ready: 2, ..NodeCounts::default() })
    );
    let summary = world.status("web").summary.clone().unwrap();
    assert_eq!((summary.nodes.as_str(), summary.progress.as_str()), ("2/2", "100%"));
    let writes = world.writes;
    world.restart();
    world.settle();
    assert_eq!(world.writes, writes, "a restarted operator finds nothing to write");
}

#[test]
fn every_node_has_an_object_to_report_itself_in() {
    let mut world = World::default();
    assert_eq!(world.put_node("n1", "a"), [node("n1")].into());
    world.settle();
    assert!(world.node_caches["n1"].spec.as_ref().unwrap().images.is_empty());
    assert_eq!(world.node_caches["n1"].node_uids, [world.nodes["n1"].uid.clone()]);
}

#[test]
fn a_new_cache_soils_itself_and_the_nodes_that_it_selects() {
    let mut world = world();
    let dirty = world.put_cache("b", Ok(spec(Some("b"), &["base"], Delete)));
    assert_eq!(dirty, [cache("b"), node("n3")].into());
}

#[test]
fn an_edit_soils_the_nodes_that_were_or_are_selected() {
    let mut world = world();
    let dirty = world.put_cache("web", Ok(spec(Some("b"), &["app", "base"], Delete)));
    assert_eq!(dirty, [cache("web"), node("n1"), node("n2"), node("n3")].into());
    rest(&mut world);
    assert_eq!((world.desired("n1"), world.desired("n3")), (images(&[]), images(&["app", "base"])));
    assert_eq!(world.status("web").nodes.unwrap().selected, 1);
}

#[test]
fn an_edit_of_the_images_adds_and_removes() {
    let mut world = world();
    world.put_cache("web", Ok(spec(Some("a"), &["base", "new"], Retain)));
    world.settle();
    assert_eq!(world.desired("n1"), images(&["base", "new"]));
    assert_eq!(
        world.released("n1"),
        images(&[]),
        "taken out of the list is not released, whatever the policy"
    );
    assert_eq!(world.condition("web", "Ready"), ("False".into(), "ImagesProgressing".into()));
    rest(&mut world);
    assert_eq!(world.condition("web", "Ready").0, "True");
}

#[test]
fn the_same_object_again_soils_nothing() {
    let mut world = world();
    let object = world.caches["web"].clone();
    assert_eq!(world.index.apply_cache(object), [].into());
    assert_eq!(world.put_node("n1", "a"), [].into(), "a heartbeat");
    let object = world.node_caches["n1"].clone();
    assert_eq!(world.index.apply_node_cache(object), [].into());
}

#[test]
fn labels_matter_when_a_selector_sees_them() {
    let mut world = world();
    assert_eq!(world.put_node("n1", "c"), [cache("web"), node("n1")].into());
    assert_eq!(world.put_node("n3", "d"), [].into(), "no selector tells b from d");
    rest(&mut world);
    assert_eq!(world.desired("n1"), images(&[]));
    assert_eq!(world.status("web").nodes.unwrap().selected, 1);
    assert_eq!(world.put_node("n1", "a"), [cache("web"), node("n1")].into());
}

#[test]
fn a_node_joins_and_goes() {
    let mut world = world();
    assert_eq!(world.put_node("n4", "a"), [cache("web"), node("n4")].into());
    world.settle();
    assert_eq!(world.desired("n4"), images(&["app", "base"]), "its images come with the first write");
    assert_eq!(world.condition("web", "Ready"), ("False".into(), "ImagesProgressing".into()));
    assert_eq!(world.delete_node("n4"), [cache("web"), node("n4")].into());
    world.settle();
    assert!(!world.node_caches.contains_key("n4"), "deleted even where no garbage collector runs");
    assert_eq!(world.condition("web", "Ready").0, "True");
}

#[test]
fn a_node_of_the_same_name_starts_afresh() {
    let mut world = world();
    world.nodes.remove("n1");
    let dirty = world.put_node("n1", "a");
    assert_eq!(dirty, [cache("web"), node("n1")].into());
    let Some(NodeAction::Delete { .. }) = world.index.plan_node("n1") else {
        panic!("the old node's is deleted")
    };
    world.settle();
    assert_eq!(world.status("web").nodes.unwrap().ready, 1, "what the old node held does not count");
    assert_eq!(world.node_caches["n1"].node_uids, [world.nodes["n1"].uid.clone()]);
    assert_eq!(world.desired("n1"), images(&["app", "base"]));
}

#[test]
fn orphans_are_deleted() {
    let mut world = world();
    let orphan = larder_plan::object::NodeCacheObject {
        name: "stray".to_owned(),
        uid: "x".to_owned(),
        ..world.node_caches["n1"].clone()
    };
    assert_eq!(world.write_node_cache(orphan), [node("stray")].into());
    world.settle();
    assert!(!world.node_caches.contains_key("stray"));
}

#[test]
fn what_somebody_wrote_into_a_node_image_cache_is_put_right() {
    let mut world = world();
    let mut object = world.node_caches["n1"].clone();
    object.spec = Ok(larder_crds::NodeImageCacheSpec::default());
    object.generation = object.generation.map(|generation| generation + 1);
    object.node_uids = Vec::new();
    assert_eq!(world.write_node_cache(object), [cache("web"), node("n1")].into());
    world.settle();
    assert_eq!(world.desired("n1"), images(&["app", "base"]));
    let mut object = world.node_caches["n1"].clone();
    let owner = std::mem::take(&mut object.node_uids);
    assert_eq!(world.write_node_cache(object), [node("n1")].into());
    world.settle();
    assert_eq!(world.node_caches["n1"].node_uids, owner);
    assert_eq!(world.delete_node_cache("n2"), [cache("web"), node("n2")].into());
    world.settle();
    assert_eq!(world.desired("n2"), images(&["app", "base"]));
}

#[test]
fn a_report_soils_the_caches_whose_images_it_changes() {
    let mut world = world();
    world.put_cache("other", Ok(spec(Some("a"), &["else"], Delete)));
    rest(&mut world);
    world.run_agent_with(
        "n1",
        |image| {
            if image.image.contains("else") { pulling(Some(100), 10) } else { ready(10) }
        },
    );
    assert_eq!(world.dirty, [cache("other")].into());
}

#[test]
fn without_a_selector_agents_count_and_every_node_is_told() {
    let mut world = World::default();
    world.put_node("n1", "a");
    world.put_node("n2", "a");
    world.put_cache("all", Ok(spec(None, &["app"], Delete)));
    world.settle();
    assert_eq!(world.condition("all", "Ready"), ("False".into(), "NoAgents".into()));
    assert_eq!(world.desired("n1"), images(&["app"]), "an agent that comes finds its images at once");
    world.run_agent_with("n1", |_| pulling(Some(100), 67));
    assert_eq!(world.dirty, [cache("all")].into());
    world.settle();
    assert_eq!(world.status("all").nodes.unwrap().selected, 1);
    let message = &world.status("all").conditions[0].message;
    assert_eq!(message, "0 of 1 node holds the image; 1 is fetching (67%)");
}

#[test]
fn two_caches_may_want_one_image() {
    let mut world = world();
    let mut second = spec(None, &["docker.io/library/app"], Delete);
    second.images[0].pull_policy = PullPolicy::Always;
    world.put_cache("also", Ok(second));
    world.settle();
    let app = world.node_caches["n1"].spec.as_ref().unwrap().images[0].clone();
    let names: Vec<_> = app.wanted_by.iter().map(|claim| claim.name.as_str()).collect();
    assert_eq!((names, app.pull_policy), (vec!["also", "web"], PullPolicy::Always));
    world.delete_cache("web");
    world.settle();
    assert_eq!(world.desired("n1"), images(&["app"]));
    world.delete_cache("also");
    world.settle();
    assert_eq!(world.desired("n1"), images(&[]));
}

#[test]
fn delete_takes_images_away_and_retain_leaves_them() {
    for restart in [false, true] {
        let mut world = world();
        world.put_cache("keep", Ok(spec(Some("a"), &["base", "data"], Retain)));
        rest(&mut world);
        world.delete_cache("web");
        world.delete_cache("keep");
        if restart {
            world.restart();
        }
        world.settle();
        assert_eq!(world.desired("n1"), images(&[]));
        assert_eq!(world.released("n1"), images(&["base", "data"]));
        assert_eq!(world.released("n3"), images(&[]));
        if restart {
            world.restart();
            world.settle();
            assert_eq!(
                world.released("n1"),
                images(&["base", "data"]),
                "it stands until the agent has seen it"
            );
        }
        rest(&mut world);
        assert_eq!((world.released("n1"), world.kept("n1")), (images(&[]), images(&["base", "data"])));
    }
}

#[test]
fn an_image_that_is_wanted_again_is_no_longer_released() {
    let mut world = world();
    world.put_cache("web", Ok(spec(Some("a"), &["app", "base"], Retain)));
    rest(&mut world);
    world.delete_cache("web");
    world.settle();
    assert_eq!(world.released("n1"), images(&["app", "base"]));
    world.put_cache("new", Ok(spec(Some("a"), &["base"], Delete)));
    world.settle();
    assert_eq!((world.desired("n1"), world.released("n1")), (images(&["base"]), images(&["app"])));
}

#[test]
fn the_last_policy_counts_even_if_no_node_has_heard_of_it() {
    let mut world = world();
    world.put_cache("web", Ok(spec(Some("a"), &["app"], Retain)));
    world.put_cache("passer-by", Ok(spec(Some("c"), &["app"], Delete)));
    world.delete_cache("web");
    world.delete_cache("passer-by");
    world.settle();
    assert_eq!(world.released("n1"), images(&["app"]), "and base had been taken out of the list");
}

#[test]
fn it_makes_no_difference_which_of_two_caches_is_deleted_first() {
    for restart in [false, true] {
        let mut world = world();
        world.put_cache("keep", Ok(spec(Some("a"), &["base"], Delete)));
        world.settle();
        world.put_cache("keep", Ok(spec(Some("a"), &["base"], Retain)));
        world.delete_cache("keep");
        world.settle();
        assert_eq!(world.desired("n1"), images(&["app", "base"]));
        if restart {
            world.restart();
        }
        world.delete_cache("web");
        world.settle();
        assert_eq!(world.released("n1"), images(&["base"]));
    }
}

#[test]
fn an_edit_that_changes_no_plan_is_observed() {
    let mut world = world();
    // Somebody writes down what holds anyway.
    let edit = ImageCacheSpec { pin: Some(true), ..spec(Some("a"), &["app", "base"], Delete) };
    let dirty = world.put_cache("web", Ok(edit));
    assert_eq!(dirty, [cache("web")].into());
    world.settle();
    assert_eq!(world.status("web").observed_generation, Some(2));
    assert_eq!(world.status("web").images.len(), 2);
}

#[test]
fn a_cache_made_anew_under_the_same_name_takes_over() {
    let mut world = world();
    world.put_cache("web", Ok(spec(Some("a"), &["app", "base"], Retain)));
    rest(&mut world);
    world.delete_cache("web");
    world.put_cache("web", Ok(spec(Some("a"), &["app"], Delete)));
    world.settle();
    assert_eq!((world.desired("n1"), world.released("n1")), (images(&["app"]), images(&["base"])));
    let claims = &world.node_caches["n1"].spec.as_ref().unwrap().images[0].wanted_by;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].uid, world.caches["web"].uid);
}

#[test]
fn a_cache_that_waits_for_its_finalizers_counts_as_gone() {
    let mut world = world();
    world.caches.get_mut("web").unwrap().deleting = true;
    world.put_cache("web", Ok(spec(Some("a"), &["app", "base"], Retain)));
    world.settle();
    assert_eq!((world.desired("n1"), world.released("n1")), (images(&[]), images(&["app", "base"])));
}

#[test]
fn a_cache_that_cannot_be_used_keeps_what_it_had() {
    let invalid = Ok(spec(Some("a"), &["App"], Delete));
    for broken in [invalid, Err("unknown variant `Archive`".to_owned())] {
        let mut world = world();
        let mut usable = spec(Some("a"), &["app", "base"], Delete);
        usable.images[0].pull_policy = PullPolicy::Always;
        world.put_cache("web", Ok(usable));
        world.settle();
        let before = world.node_caches["n1"].spec.clone();
        world.put_cache("web", broken);
        world.put_node("n4", "a");
        world.put_node("n1", "c");
        rest(&mut world);
        assert_eq!(world.node_caches["n1"].spec, before);
        assert_eq!(world.desired("n4"), images(&[]), "it asks for nothing new");
        assert_eq!(world.condition("web", "Ready"), ("False".into(), "InvalidSpec".into()));
        assert_eq!(world.condition("web", "Stalled"), ("True".into(), "InvalidSpec".into()));
        world.put_cache("web", Ok(spec(Some("a"), &["app"], Delete)));
        rest(&mut world);
        assert_eq!((world.desired("n1"), world.desired("n4")), (images(&[]), images(&["app"])));
        assert_eq!(world.condition("web", "Ready").0, "True");
        world.put_cache("web", Err("unreadable".to_owned()));
        world.delete_cache("web");
        world.settle();
        assert_eq!((world.desired("n2"), world.released("n2")), (images(&[]), images(&[])));
    }
}

#[test]
fn an_invalid_cache_says_what_is_wrong_where() {
    let mut world = world();
    world.put_cache("web", Ok(spec(Some("a"), &["ubuntu", "App"], Delete)));
    world.settle();
    let message = &world.status("web").conditions[0].message;
    assert!(message.starts_with("spec.images[1].image: invalid image name \"App\""), "{message}");
    assert!(message.ends_with("Nodes keep what they hold until this is mended"), "{message}");
}

#[test]
fn a_node_image_cache_that_cannot_be_read_is_left_alone() {
    let mut world = world();
    let mut object = world.node_caches["n1"].clone();
    object.spec = Err("unreadable".to_owned());
    world.write_node_cache(object);
    assert_eq!(world.index.plan_node("n1"), None);
    world.settle();
    assert_eq!(world.status("web").nodes.unwrap().ready, 1);
}

#[test]
fn failures_are_sampled_and_named_as_the_specification_names_them() {
    let mut world = World::default();
    for number in 0..30 {
        world.put_node(&format!("n{number:02}"), "a");
    }
    world.put_cache("web", Ok(spec(Some("a"), &["zoo", "app"], Delete)));
    world.settle();
    let long = "é".repeat(1_000);
    for number in 0..30 {
        world.run_agent_with(&format!("n{number:02}"), |_| failed(FailureReason::NotFound, &long));
    }
    world.settle();
    let status = world.status("web");
    assert_eq!((status.failures.len(), status.failures_total), (MAX_FAILURES, Some(60)));
    let first: Vec<_> = status
        .failures
        .iter()
        .take(3)
        .map(|failure| (failure.node.as_str(), failure.image.as_str()))
        .collect();
    assert_eq!(first, [("n00", "app"), ("n00", "zoo"), ("n01", "app")]);
    assert!(status.failures.iter().all(|failure| failure.message.len() <= MAX_MESSAGE));
    assert_eq!(status.images.iter().map(|image| image.image.as_str()).collect::<Vec<_>>(), ["zoo", "app"]);
    assert_eq!(world.condition("web", "Stalled"), ("True".into(), "ImagesUnavailable".into()));
}

#[test]
fn a_failure_that_mends_itself_does_not_stall() {
    let mut world = world();
    world.run_agent_with("n1", |_| failed(FailureReason::RegistryUnreachable, "connection refused"));
    world.settle();
    assert_eq!(world.condition("web", "Stalled").0, "False");
    assert_eq!(world.condition("web", "Reconciling"), ("True".into(), "ImagesFailing".into()));
    assert_eq!(world.condition("web", "Degraded"), ("True".into(), "ImagesFailing".into()));
    let message = &world.status("web").conditions[0].message;
    assert_eq!(
        message,
        "1 of 2 nodes hold all 2 images; 1 failed. First failure: app on n1: connection refused"
    );
    rest(&mut world);
    assert_eq!(world.condition("web", "Degraded"), ("False".into(), "NoFailures".into()));
}

#[test]
fn sizes_that_one_node_knows_count_for_all() {
    let mut world = world();
    world.run_agent_with("n1", |_| pulling(Some(100), 50));
    world.run_agent_with("n2", |_| pulling(None, 30));
    world.settle();
    let bytes = world.status("web").bytes.unwrap();
    assert_eq!((bytes.total, bytes.present), (400, 160));
    assert_eq!(world.status("web").summary.as_ref().unwrap().progress, "40%");
}

#[test]
fn a_status_that_somebody_changed_is_put_right() {
    let mut world = world();
    let mut object = world.caches["web"].clone();
    object.status.failures_total = Some(7);
    object.resource_version = None;
    assert_eq!(world.index.apply_cache(object), [cache("web")].into());
    world.dirty = [cache("web")].into();
    world.settle();
    assert_eq!(world.status("web").failures_total, Some(0));
}

#[test]
fn different_digests_are_not_one() {
    let mut world = world();
    assert_eq!(world.status("web").images[0].digest.as_deref(), Some("sha256:1"));
    world.run_agent_with("n2", |_| larder_crds::NodeImageStatus {
        digest: Some("sha256:2".into()),
        ..ready(10)
    });
    world.settle();
    assert_eq!(world.status("web").images[0].digest, None);
}

#[test]
fn transition_times_survive_a_restart() {
    let mut world = world();
    let before = world.status("web").conditions.clone();
    world.now += 60;
    world.run_agent_with("n1", |_| pulling(Some(100), 50));
    world.restart();
    world.settle();
    let after = world.status("web").conditions.clone();
    let time = |conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition], kind: &str| {
        conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .map(|condition| condition.last_transition_time.0)
    };
    assert_eq!(time(&before, "Stalled"), time(&after, "Stalled"));
    assert_ne!(time(&before, "Ready"), time(&after, "Ready"));
}

#[test]
fn what_is_older_than_our_own_write_is_ignored_until_a_list_says_so() {
    let mut world = world();
    let (old_node, old_cache) = (world.node_caches["n1"].clone(), world.caches["web"].clone());
    world.put_cache("web", Ok(spec(Some("a"), &["app"], Delete)));
    rest(&mut world);
    assert_eq!(world.index.apply_node_cache(old_node), [].into());
    assert_eq!(world.index.apply_cache(old_cache.clone()), [].into());
    let dirty = world.index.list_cache(old_cache);
    assert_eq!(dirty, [cache("web"), node("n1"), node("n2")].into());
}

#[test]
fn a_list_tells_what_is_gone() {
    let mut world = world();
    let listed = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(world.index.end_caches(&listed(&["web"])), [].into());
    assert_eq!(world.index.end_caches(&listed(&[])), [node("n1"), node("n2")].into());
    assert_eq!(world.index.end_nodes(&listed(&["n1", "n2"])), [node("n3")].into());
    assert_eq!(world.index.end_node_caches(&listed(&[])), [node("n1"), node("n2")].into());
}

#[test]
fn a_list_takes_nothing_away_that_came_while_it_was_read() {
    let mut world = world();
    world.index.begin_node_caches();
    world.index.begin_caches();
    world.put_node("n4", "a");
    world.settle();
    let old = world.caches["web"].clone();
    world.put_cache("web", Ok(spec(Some("a"), &["app"], Delete)));
    rest(&mut world);
    let listed = ["n1", "n2", "n3"].map(str::to_owned).into();
    assert_eq!(world.index.end_node_caches(&listed), [].into(), "n4 has one, although it is not on the list");
    assert_eq!(world.index.list_cache(old.clone()), [].into(), "the edit stays");
    assert_eq!(world.index.end_caches(&["web".to_owned()].into()), [].into());
    // The next list is believed again.
    world.index.begin_caches();
    assert_eq!(world.index.list_cache(old), [cache("web"), node("n1"), node("n2"), node("n4")].into());
}

#[test]
fn everything_is_dirty_at_the_start() {
    let world = world();
    let (_, dirty) = Index::new(
        world.caches.values().cloned().collect(),
        world.nodes.values().cloned().collect(),
        world.node_caches.values().cloned().collect(),
    );
    assert_eq!(dirty, [cache("web"), node("n1"), node("n2"), node("n3")].into());
}
