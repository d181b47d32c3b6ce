//! The short form of `cargo xtask cluster-faults`: each fault once, from a seed that is new each time and printed.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "tests")]

use larder_tests::{larder::binary, process::run, tools::is_root};

fn tried(args: &[&str]) -> String {
    let args = [&["cluster-faults", "--built"], args].concat();
    let ran = run(&binary("xtask").unwrap(), &args, &[], b"").unwrap();
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

#[test]
fn whatever_fails_in_the_control_plane_all_is_well_in_the_end_and_no_status_lies() {
    let told = tried(&["--rounds", "12", "--deliveries", "0", "--away", "13"]);
    // What it says that it did, it did: one round of each fault, and nearly every fault came about. An operator's reconcile may
    // have taken fewer writes than the one at which it was to be killed.
    assert!(told.contains("\n| all | 12 | "), "{told}");
}

#[test]
fn a_containerd_that_is_killed_costs_no_second_pull() {
    assert!(is_root(), "this test runs a real containerd, which mounts: run the tests as root");
    let told = tried(&["--rounds", "0", "--deliveries", "6"]);
    assert!(told.contains("\n| all | 8 | "), "{told}");
}
