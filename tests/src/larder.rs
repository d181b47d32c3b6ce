//! Larder's own programs, as a test or the demo runs them.

use std::path::{Path, PathBuf};

use crate::process::{Program, run};
use crate::{Error, Result};

/// Finds a program of this workspace: it stands beside the running one, in `target/<profile>`.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::file("find", Path::new("the running program")))?;
    own.ancestors()
        .skip(1)
        // A test executable is in `target/<profile>/deps`.
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Missing {
            program: name.to_owned(),
            advice: format!("build it first: `cargo build -p {name}`"),
        })
}

/// `larder-operator`, not started yet. Its log goes into `folder`.
pub fn operator(kubeconfig: &Path, folder: &Path) -> Result<Program> {
    let program = Program::new("larder-operator", &binary("larder-operator")?, folder);
    Ok(quiet_home(program, folder).args([Path::new("--kubeconfig"), kubeconfig]))
}

/// `larder-agent` for one node, not started yet. Its log is `<folder>/larder-agent-<node>.log`. Registries on
/// loopback are plain HTTP to it; others need `--insecure-registry` among `Program::args`. Unless they say `--runtime`, it
/// gives images to no runtime, whatever runs on this machine. Its folders for archives are `<folder>/import-<node>` and
/// `<folder>/export-<node>`, which are not there unless somebody makes them.
pub fn agent(kubeconfig: &Path, node: &str, store: &Path, folder: &Path) -> Result<Program> {
    let program = Program::new(&format!("larder-agent-{node}"), &binary("larder-agent")?, folder);
    let program = program
        .env("LARDER_RUNTIME", "none")
        .env("LARDER_LOGINS", folder.join("logins.json"))
        .env("LARDER_IMPORT_DIR", folder.join(format!("import-{node}")))
        .env("LARDER_EXPORT_DIR", folder.join(format!("export-{node}")));
    Ok(quiet_home(program, folder).args([Path::new("--kubeconfig"), kubeconfig]).args([
        Path::new("--node-name"),
        Path::new(node),
        Path::new("--store"),
        store,
    ]))
}

/// An image of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnImage {
    /// Its name, with the tag.
    pub name: String,
    /// The archive that holds it, and nothing else: for `larder load`, `ctr images import`, skopeo.
    pub archive: PathBuf,
}

/// The images of operator and agent, in this order, made by `cargo xtask image` of the programs as they have been
/// built. Takes seconds: a target makes them once and shares them. The archives are in `folder`; the names are
/// `<repository>/larder-operator:<tag>` and `<repository>/larder-agent:<tag>`.
pub fn images(folder: &Path, repository: &str, tag: &str) -> Result<[OwnImage; 2]> {
    let xtask = binary("xtask")?;
    let release = xtask.parent().is_some_and(|folder| folder.ends_with("release"));
    let profile = if release { "release" } else { "dev" };
    let output = folder.to_string_lossy();
    let args = ["image", "--built", "--profile", profile, "--output", &output];
    let names = ["--repository", repository, "--tag", tag];
    run(&xtask, &[&args[..], &names].concat(), &[], b"")?.ok()?;
    Ok(["larder-operator", "larder-agent"].map(|title| OwnImage {
        name: format!("{repository}/{title}:{tag}"),
        archive: folder.join(format!("{title}.tar")),
    }))
}

/// Whoever runs the tests may have logins, proxies and clusters of their own: none of them is a test's business.
fn quiet_home(program: Program, folder: &Path) -> Program {
    let level = std::env::var("LARDER_TEST_LOG").unwrap_or_else(|_| "info,larder=debug".to_owned());
    program
        .env("HOME", folder)
        .env("DOCKER_CONFIG", folder.join("docker"))
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("RUST_LOG", level)
}
