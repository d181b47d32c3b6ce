//! The short form of `cargo xtask bench fleet`: what is counted there, with few nodes and images.

use larder_tests::{larder::binary, process::run};

#[test]
fn each_change_is_written_once_a_node_and_nothing_is_done_twice() {
    let xtask = binary("xtask").unwrap();
    let programs = xtask.parent().unwrap().to_str().unwrap();
    let args = ["bench", "fleet", "--programs", programs, "--nodes", "25", "--images", "5", "--rest", "5"];
    let ran = run(&xtask, &args, &[], b"").unwrap();
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    // What it says that it looked at, it did.
    for goal in [
        "25: an ImageCache applied: 1 write of each specification: 25, 1 of one",
        "25: nothing: no writes: 0",
    ] {
        assert!(ran.stdout.contains(&format!("✓ {goal}")), "{}", ran.stdout);
    }
}
