//! A mount namespace of the test's own: what it mounts is gone with it, however it ends.

use std::process::{Command, Stdio};

const INSIDE: &str = "LARDER_TORTURE_INSIDE";

/// Runs an ignored test of this program in such a namespace; it must pass. `name` is its path.
pub fn run(name: &str) {
    let mut command = Command::new("unshare");
    // Without rights, in a user namespace, where one may mount.
    if !larder_tests::tools::is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let ran = command
        .args(["--mount", "--propagation", "private", "--", "setpriv", "--pdeathsig", "KILL", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [&ran.stdout, &ran.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned()).concat();
    print!("{said}");
    assert!(ran.status.success() && said.contains("1 passed"), "{name}: {}", ran.status);
}

/// Whether this is the namespace. Whoever asks for ignored tests runs these too, outside.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}
