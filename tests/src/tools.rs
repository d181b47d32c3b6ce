//! Where the programs are that the harness runs. `cargo xtask tools` builds or installs what is missing.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A program built from a Go module, or taken from `KUBEBUILDER_ASSETS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The API server's database.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// Kubernetes' command line.
    Kubectl,
    /// The container runtime of most nodes.
    Containerd,
    /// containerd's own command line: reads and writes archives.
    Ctr,
    /// go-containerregistry's command line: reads and writes archives and layouts.
    Crane,
    /// The command line of the OCI registry client of the same name.
    Oras,
    /// regclient's command line.
    Regctl,
}

/// A Go module of ours (`xtask/tools/<name>`) whose `tool` dependencies are programs that tests need.
#[derive(Debug)]
pub struct GoModule {
    /// The folder under `xtask/tools`, and the first part of the cache folder's name.
    pub name: &'static str,
    /// The module whose version names the set.
    pub upstream: &'static str,
    /// The programs, and their packages.
    pub programs: &'static [(Tool, &'static str)],
    go_mod: &'static str,
}

/// All of them.
pub const GO_MODULES: &[GoModule] = &[
    GoModule {
        name: "etcd",
        upstream: "go.etcd.io/etcd/server/v3",
        programs: &[(Tool::Etcd, "go.etcd.io/etcd/server/v3")],
        go_mod: include_str!("../../xtask/tools/etcd/go.mod"),
    },
    GoModule {
        name: "kubernetes",
        upstream: "k8s.io/kubernetes",
        programs: &[
            (Tool::KubeApiserver, "k8s.io/kubernetes/cmd/kube-apiserver"),
            (Tool::Kubectl, "k8s.io/kubernetes/cmd/kubectl"),
        ],
        go_mod: include_str!("../../xtask/tools/kubernetes/go.mod"),
    },
    GoModule {
        name: "containerd",
        upstream: "github.com/containerd/containerd/v2",
        programs: &[
            (Tool::Containerd, "github.com/containerd/containerd/v2/cmd/containerd"),
            (Tool::Ctr, "github.com/containerd/containerd/v2/cmd/ctr"),
        ],
        go_mod: include_str!("../../xtask/tools/containerd/go.mod"),
    },
    GoModule {
        name: "peers",
        upstream: "github.com/google/go-containerregistry",
        programs: &[
            (Tool::Crane, "github.com/google/go-containerregistry/cmd/crane"),
            (Tool::Oras, "oras.land/oras/cmd/oras"),
            (Tool::Regctl, "github.com/regclient/regclient/cmd/regctl"),
        ],
        go_mod: include_str!("../../xtask/tools/peers/go.mod"),
    },
];

/// Programs that come as Debian packages, which are named as they are.
pub const DEBIAN_PACKAGES: &[&str] = &["bzip2", "curl", "docker-registry", "skopeo", "umoci", "zstd"];

impl GoModule {
    /// The version, such as `v1.35.4`, as the module's `go.mod` requires it.
    pub fn version(&self) -> Result<&'static str> {
        self.go_mod
            .lines()
            .filter_map(|line| {
                line.trim().trim_start_matches("require ").strip_prefix(self.upstream)?.strip_prefix(' ')
            })
            .filter_map(|rest| rest.split_whitespace().next())
            .find(|version| version.starts_with('v'))
            .ok_or_else(|| Error::Data {
                what: "go.mod",
                problem: format!("no version of {}", self.upstream),
            })
    }

    /// Where its programs are kept once built: `<cache>/<name>-<version>`.
    pub fn folder(&self) -> Result<PathBuf> {
        Ok(cache_dir()?.join(format!("{}-{}", self.name, self.version()?)))
    }
}

impl Tool {
    /// The program's file name.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::Kubectl => "kubectl",
            Self::Containerd => "containerd",
            Self::Ctr => "ctr",
            Self::Crane => "crane",
            Self::Oras => "oras",
            Self::Regctl => "regctl",
        }
    }

    /// Finds it: first in the folder `KUBEBUILDER_ASSETS` (the convention of Kubernetes' own test tools), then in
    /// the cache.
    pub fn path(self) -> Result<PathBuf> {
        let name = self.file_name();
        if let Some(found) = std::env::var_os("KUBEBUILDER_ASSETS")
            .map(|assets| PathBuf::from(assets).join(name))
            .filter(|path| is_program(path))
        {
            return Ok(found);
        }
        for module in GO_MODULES {
            if module.programs.iter().any(|(tool, _)| *tool == self) {
                let path = module.folder()?.join(name);
                if is_program(&path) {
                    return Ok(path);
                }
            }
        }
        Err(Error::Missing {
            program: name.to_owned(),
            advice: "run `cargo xtask tools`, or set KUBEBUILDER_ASSETS to a folder that holds it".to_owned(),
        })
    }
}

/// The folder in which built programs are kept: `LARDER_TOOLS`, else `larder/tools` in the user's cache folder.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("LARDER_TOOLS")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("larder/tools")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/larder/tools")))
        .ok_or_else(|| Error::Missing {
            program: "a cache folder".to_owned(),
            advice: "set HOME, XDG_CACHE_HOME or LARDER_TOOLS".to_owned(),
        })
}

/// Finds a program in `PATH`, and in the folders of system programs that a user's `PATH` may lack.
pub fn in_path(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| is_program(candidate))
        .ok_or_else(|| Error::Missing {
            program: program.to_owned(),
            advice: format!("install Debian's package {program}: `apt-get install {program}`"),
        })
}

/// Whether this process may install packages.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_modules_themselves() {
        for module in GO_MODULES {
            let version = module.version().unwrap();
            assert!(version.split('.').count() >= 3, "{}: {version}", module.name);
        }
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = in_path("no-such-program-here").unwrap_err().to_string();
        assert!(error.contains("apt-get install no-such-program-here"), "{error}");
    }
}
