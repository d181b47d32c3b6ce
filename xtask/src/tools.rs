//! `cargo xtask tools`: builds Kubernetes, etcd, containerd and the peers from their Go modules, once.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use larder_tests::Scratch;
use larder_tests::tools::{
    DEBIAN_PROGRAMS, DebianProgram, GO_MODULES, GoModule, NODE_PROGRAMS, Tool, cache_dir, in_path,
};

use crate::debian;
use crate::steps::{root, run_command, step};

/// What a control plane without nodes consists of.
const CONTROL_PLANE: [Tool; 3] = [Tool::Etcd, Tool::KubeApiserver, Tool::Kubectl];

/// Makes sure that every program is there that the tests need, and the archives that others made.
pub fn ensure() -> anyhow::Result<()> {
    ensure_these(|_| true, &[DEBIAN_PROGRAMS, NODE_PROGRAMS].concat())?;
    for (module, folder) in larder_tests::testdata::folders()? {
        println!("  {:<23} {}", module.rsplit('/').next().unwrap_or(&module), folder.display());
    }
    Ok(())
}

/// Makes sure that what a control plane needs is there: for the demo, where nobody should wait for more.
pub fn ensure_control_plane() -> anyhow::Result<()> {
    ensure_these(|tool| CONTROL_PLANE.contains(&tool), DEBIAN_PROGRAMS)
}

/// Makes sure that what a cluster with nodes needs is there: no peers to compare with.
pub fn ensure_cluster() -> anyhow::Result<()> {
    let peers = [Tool::Crane, Tool::Oras, Tool::Regctl, Tool::Helm, Tool::Gitops];
    ensure_these(|tool| !peers.contains(&tool), &[DEBIAN_PROGRAMS, NODE_PROGRAMS].concat())
}

fn ensure_these(wanted: impl Fn(Tool) -> bool, programs: &[DebianProgram]) -> anyhow::Result<()> {
    debian::ensure(programs)?;
    for module in GO_MODULES {
        ensure_module(module, &wanted)?;
    }
    let tools = GO_MODULES.iter().flat_map(|module| module.programs).map(|(tool, _)| *tool);
    for tool in tools.filter(|tool| wanted(*tool)) {
        println!("  {:<23} {}", tool.file_name(), tool.path()?.display());
    }
    for program in programs {
        println!("  {:<23} {}", program.package, program.path()?.display());
    }
    Ok(())
}

fn missing(module: &GoModule, wanted: impl Fn(Tool) -> bool) -> Vec<&'static (Tool, &'static str)> {
    module.programs.iter().filter(|(tool, _)| wanted(*tool) && tool.path().is_err()).collect()
}

fn ensure_module(module: &GoModule, wanted: impl Fn(Tool) -> bool) -> anyhow::Result<()> {
    if missing(module, &wanted).is_empty() {
        return Ok(());
    }
    let cache = cache_dir()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let lock_path = cache.join("lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot open {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        println!("waiting for another build of the tools ({} is locked)", lock_path.display());
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    }
    // Somebody else may just have built it.
    let missing = missing(module, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(tool, _)| tool.file_name()).collect();
    let what = format!(
        "building {} from the Go module {} {}: minutes, the first time (xtask/tools/{})",
        names.join(" and "),
        module.upstream,
        module.version()?,
        module.name,
    );
    step(what, || build(module, &missing, &cache))
}

/// Builds into a folder of its own and moves the finished programs to their place: what is there is whole.
fn build(module: &GoModule, missing: &[&(Tool, &str)], cache: &Path) -> anyhow::Result<()> {
    if in_path("go").is_err() {
        bail!(
            "Go is missing: install 1.21 or later (https://go.dev/doc/install), or set KUBEBUILDER_ASSETS to a \
             folder with etcd, kube-apiserver and kubectl"
        );
    }
    let scratch = Scratch::in_folder(cache, "build")?;
    let folder = module.folder()?;
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (tool, package) in missing {
        let name = tool.file_name();
        let built = scratch.path().join(name);
        go_build(module, package, &built)?;
        let place = folder.join(name);
        std::fs::rename(&built, &place)
            .with_context(|| format!("cannot move {name} to {}", place.display()))?;
    }
    Ok(())
}

fn go_build(module: &GoModule, package: &str, output: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("go");
    command
        .args(["build", "-mod=readonly", "-buildvcs=false", "-ldflags", &link_flags(module)?, "-o"])
        .arg(output)
        .arg(package)
        .current_dir(root().join("xtask/tools").join(module.name))
        .env("GOWORK", "off");
    run_command(&mut command).with_context(|| {
        format!(
            "Go's own message is above. Where it could not download modules, it needs a module proxy (GOPROXY={}), or a \
             module cache that holds them already",
            std::env::var("GOPROXY").unwrap_or_else(|_| "go's default".to_owned())
        )
    })
}

/// Without symbols; Kubernetes' programs also learn their version this way, and say v0.0.0 otherwise. Helm learns which
/// Kubernetes charts are rendered for where no cluster is asked: the tests' own, not 1.20.
fn link_flags(module: &GoModule) -> anyhow::Result<String> {
    let mut flags = vec!["-s -w".to_owned()];
    if module.name == "kubernetes" {
        let version = module.version()?;
        let (major, minor) = major_and_minor(version);
        flags.extend(
            [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)]
                .map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}")),
        );
    }
    if module.name == "helm" {
        let kubernetes = GO_MODULES.iter().find(|module| module.name == "kubernetes");
        let (major, minor) = major_and_minor(kubernetes.context("no module of Kubernetes")?.version()?);
        flags.push(format!("-X helm.sh/helm/v3/internal/version.version={}", module.version()?));
        for package in ["pkg/chartutil", "pkg/lint/rules"] {
            flags.push(format!("-X helm.sh/helm/v3/{package}.k8sVersionMajor={major}"));
            flags.push(format!("-X helm.sh/helm/v3/{package}.k8sVersionMinor={minor}"));
        }
    }
    Ok(flags.join(" "))
}

/// Of a version such as `v1.35.4`.
fn major_and_minor(version: &str) -> (&str, &str) {
    let (major, rest) = version.trim_start_matches('v').split_once('.').unwrap_or((version, ""));
    (major, rest.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_learns_its_version() {
        let module = GO_MODULES.iter().find(|module| module.name == "kubernetes").unwrap();
        let flags = link_flags(module).unwrap();
        assert!(flags.contains(&format!("version.gitVersion={}", module.version().unwrap())), "{flags}");
        assert!(flags.contains("version.gitMajor=1 "), "{flags}");
    }

    #[test]
    fn helm_renders_for_the_same_kubernetes() {
        let module = GO_MODULES.iter().find(|module| module.name == "helm").unwrap();
        let flags = link_flags(module).unwrap();
        assert!(flags.contains("chartutil.k8sVersionMinor=35 "), "{flags}");
    }
}
