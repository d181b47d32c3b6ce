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
    let told = tried(&["--rounds", "13", "--deliveries", "0", "--away", "16"]);
    // One round of each fault. Those that can fail to come about did: kills, cut watches, a Lease that was lost.
    assert!(told.contains("\n| all | 13 | 13 | "), "{told}");
}

#[test]
fn a_containerd_that_is_killed_costs_no_second_pull() {
    assert!(is_root(), "this test runs a real containerd, which mounts: run the tests as root");
    let told = tried(&["--rounds", "0", "--deliveries", "6"]);
    assert!(told.contains("\n| all | 8 | "), "{told}");
}
