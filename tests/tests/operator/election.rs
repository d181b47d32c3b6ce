//! Two replicas, of which one works.

use larder_tests::{until, wait::PATIENCE};
use rustix::process::Signal;

use crate::support::{Cluster, Replica, images};

/// Two replicas, the leader first.
fn pair(cluster: &Cluster) -> [Replica; 2] {
    let replicas = ["one", "two"].map(|name| cluster.replica(name));
    for replica in &replicas {
        replica.program.start().unwrap();
    }
    let [one, two] = replicas;
    until("one replica to lead and one to stand by", PATIENCE, || {
        match (one.readiness().as_str(), two.readiness().as_str()) {
            ("leading", "standby") => Some(true),
            ("standby", "leading") => Some(false),
            ("leading", "leading") => panic!("both lead"),
            _ => None,
        }
    })
    .map(|is_one| if is_one { [one, two] } else { [two, one] })
    .unwrap()
}

#[test]
fn the_other_takes_over_when_the_leader_is_killed() {
    let cluster = Cluster::start();
    cluster.plane.create_node("a", &[("pool", "web")]).unwrap();
    let [leader, standby] = pair(&cluster);
    assert_eq!(leader.metric("larder_leader_status"), Some(1.0));
    assert_eq!(standby.metric("larder_leader_status"), Some(0.0));
    cluster.apply("web", &images("web", &["quay.io/app:v1"]));
    cluster.wait_told("a", &["quay.io/app:v1"]);
    let first = cluster.lease();
    assert_eq!((&first["leaseDurationSeconds"], &first["leaseTransitions"]), (&15.into(), &0.into()));

    leader.program.kill();
    cluster.apply("web", &images("web", &["quay.io/app:v2"]));
    cluster.wait_told("a", &["quay.io/app:v2"]);
    standby.wait_ready(200, "leading");
    let second = cluster.lease();
    assert_ne!(first["holderIdentity"], second["holderIdentity"]);
    assert_eq!(second["leaseTransitions"], 1);

    // The one that was killed comes back, and stands by.
    leader.program.start().unwrap();
    leader.wait_ready(200, "standby");
    assert_eq!(cluster.lease()["holderIdentity"], second["holderIdentity"]);
}

#[test]
fn a_leader_that_stops_hands_over() {
    let cluster = Cluster::start();
    cluster.plane.create_node("a", &[("pool", "web")]).unwrap();
    let [leader, standby] = pair(&cluster);
    let held = cluster.lease()["holderIdentity"].clone();
    let status = leader.program.terminate().unwrap();
    assert_eq!(status.code(), Some(0), "{}", leader.program.log_tail());
    // Nobody waits for a term to run out: the Lease is free, or the other's already.
    assert_ne!(cluster.lease()["holderIdentity"], held);
    standby.wait_ready(200, "leading");
    cluster.apply("web", &images("web", &["quay.io/app:v1"]));
    cluster.wait_told("a", &["quay.io/app:v1"]);
    let status = standby.program.terminate().unwrap();
    assert_eq!(status.code(), Some(0), "{}", standby.program.log_tail());
    assert_eq!(cluster.lease()["holderIdentity"], "");
}

#[test]
fn a_replica_that_stands_by_stops_and_leaves_the_lease_alone() {
    let cluster = Cluster::start();
    let [leader, standby] = pair(&cluster);
    let held = cluster.lease()["holderIdentity"].clone();
    assert_eq!(standby.program.terminate().unwrap().code(), Some(0));
    assert_eq!(cluster.lease()["holderIdentity"], held);
    assert_eq!(leader.readiness(), "leading");
}

/// A leader that is frozen while its term runs out (a node under pressure, a virtual machine that is moved) wakes up
/// with work to do, and must not do it.
#[test]
fn a_leader_that_wakes_up_after_its_term_writes_nothing() {
    let cluster = Cluster::start();
    cluster.plane.create_node("a", &[("pool", "web")]).unwrap();
    let [frozen, standby] = pair(&cluster);
    cluster.apply("web", &images("web", &["quay.io/app:v1"]));
    cluster.wait_told("a", &["quay.io/app:v1"]);
    cluster.wait_reason("web", "ImagesProgressing");
    frozen.program.signal(Signal::STOP).unwrap();
    let before = frozen.logged("node's images applied");
    assert!(before > 0, "{}", frozen.program.log_tail());
    standby.wait_ready(200, "leading");
    standby.program.signal(Signal::STOP).unwrap();
    // Nobody has told the node of this yet: whoever wakes up first sees it undone.
    cluster.apply("web", &images("web", &["quay.io/app:v2"]));
    frozen.program.signal(Signal::CONT).unwrap();
    let status = frozen.program.wait(PATIENCE).unwrap();
    assert!(!status.success(), "it ended with {status}");
    assert_eq!(frozen.logged("node's images applied"), before, "{}", frozen.program.log_tail());
    assert!(frozen.logged("Lease larder-system/larder-operator") > 0, "{}", frozen.program.log_tail());
    let told = cluster.plane.get(&["nodeimagecache", "a"]).unwrap();
    assert_eq!(told["spec"]["images"][0]["image"], "quay.io/app:v1");
}

#[test]
fn a_leader_without_an_api_server_ends_with_the_reason_and_leads_again() {
    let cluster = Cluster::start();
    cluster.plane.create_node("a", &[("pool", "web")]).unwrap();
    let replica = cluster.replica("one");
    replica.program.start().unwrap();
    replica.wait_ready(200, "leading");
    cluster.plane.stop_apiserver();
    let status = replica.program.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(1));
    let last = replica.program.log().unwrap().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("could not be renewed within 10 seconds"), "{last}");

    // As kubelet would.
    replica.program.start().unwrap();
    replica.wait_ready(503, "waiting for the first list of ImageCaches, Nodes, NodeImageCaches");
    cluster.plane.start_apiserver().unwrap();
    replica.wait_ready(200, "leading");
    cluster.apply("web", &images("web", &["quay.io/app:v1"]));
    cluster.wait_told("a", &["quay.io/app:v1"]);
}

#[test]
fn an_operator_that_is_alone_outlives_the_api_server() {
    let cluster = Cluster::start();
    cluster.plane.create_node("a", &[("pool", "web")]).unwrap();
    let alone = cluster.alone();
    alone.program.start().unwrap();
    alone.wait_ready(200, "leading");
    let process = alone.program.id();
    cluster.plane.stop_apiserver();
    until("the operator to notice", PATIENCE, || (alone.logged("interrupted") > 0).then_some(())).unwrap();
    assert_eq!(alone.ask("/healthz").unwrap().code, 200);
    cluster.plane.start_apiserver().unwrap();
    cluster.apply("web", &images("web", &["quay.io/app:v1"]));
    cluster.wait_told("a", &["quay.io/app:v1"]);
    assert_eq!(alone.program.id(), process);
    assert!(cluster.plane.get(&["lease", "larder-operator", "--namespace", "larder-system"]).is_err());
}

/// An API server that accepts requests and never answers: what was asked to stop still stops.
#[test]
fn a_write_that_hangs_does_not_keep_the_operator_from_stopping() {
    let cluster = Cluster::start();
    cluster.plane.create_node("a", &[("pool", "web")]).unwrap();
    let replica = cluster.replica("one");
    replica.program.start().unwrap();
    replica.wait_ready(200, "leading");
    cluster.plane.apiserver().signal(Signal::STOP).unwrap();
    let status = replica.program.terminate().unwrap();
    cluster.plane.apiserver().signal(Signal::CONT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", replica.program.log_tail());
}
