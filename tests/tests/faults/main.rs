//! The short form of `cargo xtask faults`: each fault once, from a seed that is new each time and printed.

use larder_tests::{larder::binary, process::run};

#[test]
fn pulls_from_a_registry_that_misbehaves_end_right_or_in_one_clear_error() {
    let args = ["faults", "--built", "--pulls", "40", "--jobs", "8"];
    let ran = run(&binary("xtask").unwrap(), &args, &[], b"").unwrap();
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    // What it says that it did, it did.
    assert!(ran.stdout.contains("| all | 40 |"), "{}", ran.stdout);
}
