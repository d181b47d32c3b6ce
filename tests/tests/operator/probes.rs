//! What probes see, and what a person sees who starts it wrongly.

use larder_tests::{ControlPlane, wait::PATIENCE};

use crate::support::Cluster;

/// Ready means that everything has been listed: not before the definitions are there.
#[test]
fn ready_once_all_is_listed_and_well_all_the_time() {
    let cluster = Cluster::on(ControlPlane::start().unwrap());
    let replica = cluster.replica("one");
    replica.program.start().unwrap();
    replica.wait_ready(503, "waiting for the first list of ImageCaches, NodeImageCaches");
    let health = replica.ask("/healthz").unwrap();
    assert_eq!((health.code, health.body.as_str()), (200, "ok\n"));
    assert!(replica.logged("are the CustomResourceDefinitions installed?") > 0);
    cluster.plane.install_crds().unwrap();
    replica.wait_ready(200, "leading");
    assert_eq!(replica.ask("/healthz").unwrap().code, 200);
    assert_eq!(replica.ask("/nothing").unwrap().code, 404);
}

#[test]
fn what_is_started_wrongly_says_what_to_do() {
    let cluster = Cluster::start();
    let elected = cluster.alone();
    let taken = cluster.alone();
    elected.program.start().unwrap();
    elected.wait_ready(200, "leading");

    let folder = cluster.scratch.folder("wrong").unwrap();
    for (args, message) in [
        (vec!["--listen".to_owned(), elected.host()], "answering probes and metrics on"),
        (vec!["--leader-elect".to_owned()], "give --leader-election-namespace"),
        (vec!["--workers=0".to_owned()], "1..=256"),
    ] {
        let program =
            larder_tests::larder::operator(cluster.plane.kubeconfig(), &folder).unwrap().args(&args);
        program.start().unwrap();
        assert!(!program.wait(PATIENCE).unwrap().success(), "{args:?}");
        assert!(program.log().unwrap().contains(message), "{args:?}: {}", program.log_tail());
    }
    // A namespace that does not exist is said again and again, and found once it is there.
    let lost = larder_tests::larder::operator(cluster.plane.kubeconfig(), &folder)
        .unwrap()
        .args(["--leader-election-namespace", "nowhere"]);
    lost.start().unwrap();
    let said = larder_tests::until("the operator to say what is missing", PATIENCE, || {
        lost.log().unwrap().contains("namespaces \\\"nowhere\\\" not found").then_some(())
    });
    said.unwrap_or_else(|error| panic!("{error}\n{}", lost.log_tail()));
    cluster.plane.kubectl(&["create", "namespace", "nowhere"]).unwrap();
    cluster.wait(&["lease", "larder-operator", "--namespace", "nowhere"], "held", |lease| {
        lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty())
    });
    drop(taken);
}
