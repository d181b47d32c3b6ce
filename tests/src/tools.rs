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
    /// The controllers: deployments, endpoints, service accounts, garbage collection.
    KubeControllerManager,
    /// The scheduler.
    KubeScheduler,
    /// Services, on each node.
    KubeProxy,
    /// A node's agent.
    Kubelet,
    /// Kubernetes' command line.
    Kubectl,
    /// The container runtime of most nodes.
    Containerd,
    /// What keeps its containers while it is restarted. containerd looks for it in `PATH`.
    ContainerdShim,
    /// containerd's own command line: reads and writes archives.
    Ctr,
    /// containerd 1.7, which many nodes still have.
    Containerd17,
    /// The shim of containerd 1.7; its file has the same name as that of 2.
    ContainerdShim17,
    /// The command line for any runtime that kubelet can use.
    Crictl,
    /// go-containerregistry's command line: reads and writes archives and layouts.
    Crane,
    /// The command line of the OCI registry client of the same name.
    Oras,
    /// regclient's command line.
    Regctl,
    /// Helm.
    Helm,
    /// A program of ours that says what kstatus and Argo CD make of an object (`xtask/tools/gitops`).
    Gitops,
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
    /// Go code of our own, where a program is not somebody else's.
    source: Option<&'static str>,
}

/// All of them.
pub const GO_MODULES: &[GoModule] = &[
    GoModule {
        name: "etcd",
        upstream: "go.etcd.io/etcd/server/v3",
        programs: &[(Tool::Etcd, "go.etcd.io/etcd/server/v3")],
        go_mod: include_str!("../../xtask/tools/etcd/go.mod"),
        source: None,
    },
    GoModule {
        name: "kubernetes",
        upstream: "k8s.io/kubernetes",
        programs: &[
            (Tool::KubeApiserver, "k8s.io/kubernetes/cmd/kube-apiserver"),
            (Tool::KubeControllerManager, "k8s.io/kubernetes/cmd/kube-controller-manager"),
            (Tool::KubeScheduler, "k8s.io/kubernetes/cmd/kube-scheduler"),
            (Tool::KubeProxy, "k8s.io/kubernetes/cmd/kube-proxy"),
            (Tool::Kubelet, "k8s.io/kubernetes/cmd/kubelet"),
            (Tool::Kubectl, "k8s.io/kubernetes/cmd/kubectl"),
        ],
        go_mod: include_str!("../../xtask/tools/kubernetes/go.mod"),
        source: None,
    },
    GoModule {
        name: "containerd",
        upstream: "github.com/containerd/containerd/v2",
        programs: &[
            (Tool::Containerd, "github.com/containerd/containerd/v2/cmd/containerd"),
            (Tool::ContainerdShim, "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            (Tool::Ctr, "github.com/containerd/containerd/v2/cmd/ctr"),
        ],
        go_mod: include_str!("../../xtask/tools/containerd/go.mod"),
        source: None,
    },
    GoModule {
        name: "containerd17",
        upstream: "github.com/containerd/containerd",
        programs: &[
            (Tool::Containerd17, "github.com/containerd/containerd/cmd/containerd"),
            (Tool::ContainerdShim17, "github.com/containerd/containerd/cmd/containerd-shim-runc-v2"),
        ],
        go_mod: include_str!("../../xtask/tools/containerd17/go.mod"),
        source: None,
    },
    GoModule {
        name: "cri-tools",
        upstream: "sigs.k8s.io/cri-tools",
        programs: &[(Tool::Crictl, "sigs.k8s.io/cri-tools/cmd/crictl")],
        go_mod: include_str!("../../xtask/tools/cri-tools/go.mod"),
        source: None,
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
        source: None,
    },
    GoModule {
        name: "helm",
        upstream: "helm.sh/helm/v3",
        programs: &[(Tool::Helm, "helm.sh/helm/v3/cmd/helm")],
        go_mod: include_str!("../../xtask/tools/helm/go.mod"),
        source: None,
    },
    GoModule {
        name: "gitops",
        upstream: "github.com/argoproj/argo-cd/v3",
        programs: &[(Tool::Gitops, ".")],
        go_mod: include_str!("../../xtask/tools/gitops/go.mod"),
        source: Some(include_str!("../../xtask/tools/gitops/main.go")),
    },
];

/// A program that comes as a Debian package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebianProgram {
    /// A program's name, or an absolute path where it is not in `PATH`.
    pub program: &'static str,
    /// The package.
    pub package: &'static str,
}

/// Folder of the CNI plugins, as Debian's package has it.
pub const CNI_PLUGINS: &str = "/usr/lib/cni";

const fn debian(program: &'static str, package: &'static str) -> DebianProgram {
    DebianProgram { program, package }
}

/// What the demo, and tests without nodes, need.
pub const DEBIAN_PROGRAMS: &[DebianProgram] = &[
    debian("bzip2", "bzip2"),
    debian("curl", "curl"),
    debian("docker-registry", "docker-registry"),
    debian("skopeo", "skopeo"),
    debian("umoci", "umoci"),
    debian("zstd", "zstd"),
];

/// What nodes need besides.
pub const NODE_PROGRAMS: &[DebianProgram] = &[
    debian("busybox", "busybox-static"),
    debian("conntrack", "conntrack"),
    debian("ip", "iproute2"),
    debian("nft", "nftables"),
    debian("runc", "runc"),
    debian("/usr/lib/cni/bridge", "containernetworking-plugins"),
];

impl DebianProgram {
    /// Finds it.
    pub fn path(self) -> Result<PathBuf> {
        in_path(self.program)
    }
}

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

    /// Where its programs are kept once built: `<cache>/<name>-<version>`, and a mark of our own code where there is some.
    pub fn folder(&self) -> Result<PathBuf> {
        let mark =
            self.source.map(|source| larder_oci::Digest::sha256(source.as_bytes()).hex()[..12].to_owned());
        let parts = [Some(self.name.to_owned()), Some(self.version()?.to_owned()), mark];
        Ok(cache_dir()?.join(parts.into_iter().flatten().collect::<Vec<_>>().join("-")))
    }
}

impl Tool {
    /// The program's file name.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::KubeProxy => "kube-proxy",
            Self::Kubelet => "kubelet",
            Self::Kubectl => "kubectl",
            Self::Containerd | Self::Containerd17 => "containerd",
            Self::ContainerdShim | Self::ContainerdShim17 => "containerd-shim-runc-v2",
            Self::Ctr => "ctr",
            Self::Crictl => "crictl",
            Self::Crane => "crane",
            Self::Oras => "oras",
            Self::Regctl => "regctl",
            Self::Helm => "helm",
            Self::Gitops => "gitops",
        }
    }

    /// Finds it: first, if it is one of those that envtest has there, in the folder `KUBEBUILDER_ASSETS` (the
    /// convention of Kubernetes' own test tools), then in the cache.
    pub fn path(self) -> Result<PathBuf> {
        let name = self.file_name();
        let assets = std::env::var_os("KUBEBUILDER_ASSETS")
            .filter(|_| matches!(self, Self::Etcd | Self::KubeApiserver | Self::Kubectl));
        if let Some(found) =
            assets.map(|assets| PathBuf::from(assets).join(name)).filter(|path| is_program(path))
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
        .ok_or_else(|| {
            let package = package_of(program);
            Error::Missing {
                program: program.to_owned(),
                advice: format!("install Debian's package {package}: `apt-get install {package}`"),
            }
        })
}

/// Most packages are named as their program is.
fn package_of(program: &str) -> &str {
    let mut known = DEBIAN_PROGRAMS.iter().chain(NODE_PROGRAMS);
    known.find(|known| known.program == program).map_or(program, |known| known.package)
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
        assert_eq!(package_of("nft"), "nftables");
    }
}
