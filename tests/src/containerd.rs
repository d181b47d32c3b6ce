//! containerd with its CRI plugin, as a node has it, without kubelet and without pods.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::process::{Program, Ran, run};
use crate::tools::{Tool, in_path, is_root};
use crate::{ContainerdVersion, Error, Result, Scratch};

/// The namespace that kubelet's images are in.
const NAMESPACE: &str = "k8s.io";

/// A containerd of the test's own, on a socket of its own. It runs in a mount namespace: what it mounts, and what it makes in
/// `/run`, is gone with it, however it ends. It does not run containers; `ctr container create` makes them.
#[derive(Debug)]
pub struct Containerd {
    program: Program,
    socket: PathBuf,
    scratch: Scratch,
}

impl Containerd {
    /// Starts one and waits until CRI answers. Needs root.
    pub fn start(version: ContainerdVersion) -> Result<Self> {
        if !is_root() {
            let problem = "it mounts file systems: run the tests as root".to_owned();
            return Err(Error::Data { what: "containerd", problem });
        }
        let scratch = Scratch::new("containerd")?;
        let socket = scratch.path().join("containerd.sock");
        let config = scratch.write("config.toml", configuration(version, scratch.path(), &socket))?;
        let tool = match version {
            ContainerdVersion::V2 => Tool::Containerd,
            ContainerdVersion::V17 => Tool::Containerd17,
        };
        let program = Program::new("containerd", &in_path("unshare")?, scratch.path())
            .args(["--mount", "--propagation", "private", "--", "sh", "-ec"])
            .args(["mount -t tmpfs tmpfs /run; exec \"$@\"", "sh"])
            .args([tool.path()?.as_os_str(), OsStr::new("--config"), config.as_os_str()])
            .env("HOME", scratch.path());
        let this = Self { program, socket, scratch };
        this.restart()?;
        Ok(this)
    }

    /// Kills it if it runs, starts it with the content that it had, and waits until CRI, which is the last to come up, answers.
    pub fn restart(&self) -> Result<()> {
        self.program.kill();
        let answers =
            || self.try_crictl(&["--timeout", "5s", "images"]).is_ok_and(|ran| ran.status.success());
        self.program.start_until("containerd to answer over CRI", answers)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The folder with its content, its configuration and its `certs.d`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// The process.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Runs `ctr` in the namespace of kubelet's images; what it prints.
    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        let socket = self.socket.to_string_lossy();
        let args = [&["--address", &socket, "--namespace", NAMESPACE][..], args].concat();
        let snapshotter = OsStr::new("overlayfs");
        let env = [("HOME", self.scratch.path().as_os_str()), ("CONTAINERD_SNAPSHOTTER", snapshotter)];
        Ok(run(&Tool::Ctr.path()?, &args, &env, b"")?.ok()?.stdout)
    }

    /// Runs `crictl`; what it prints.
    pub fn crictl(&self, args: &[&str]) -> Result<String> {
        Ok(self.try_crictl(args)?.ok()?.stdout)
    }

    fn try_crictl(&self, args: &[&str]) -> Result<Ran> {
        let endpoint = format!("unix://{}", self.socket.display());
        let own = ["--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint];
        let env = [("HOME", self.scratch.path().as_os_str())];
        run(&Tool::Crictl.path()?, &[&own[..], args].concat(), &env, b"")
    }
}

fn configuration(version: ContainerdVersion, folder: &Path, socket: &Path) -> String {
    let (folder, socket) = (folder.display(), socket.display());
    let common = format!(
        "root = '{folder}/root'\n\
         state = '{folder}/state'\n\
         temp = '{folder}/temp'\n\
         disabled_plugins = ['io.containerd.nri.v1.nri']\n\
         [grpc]\n\
         address = '{socket}'\n\
         [plugins.'io.containerd.internal.v1.opt']\n\
         path = '{folder}/opt'\n"
    );
    let registry = format!("config_path = '{folder}/certs.d'\n");
    let cni = format!("conf_dir = '{folder}/cni'\n");
    // Without CAP_SYS_RESOURCE, as in many containers, no process may make itself less likely to be killed.
    match version {
        ContainerdVersion::V2 => format!(
            "version = 3\n{common}\
             [plugins.'io.containerd.cri.v1.images'.registry]\n{registry}\
             [plugins.'io.containerd.cri.v1.runtime']\n\
             restrict_oom_score_adj = true\n\
             [plugins.'io.containerd.cri.v1.runtime'.cni]\n{cni}"
        ),
        ContainerdVersion::V17 => format!(
            "version = 2\n{common}\
             [plugins.'io.containerd.grpc.v1.cri']\n\
             restrict_oom_score_adj = true\n\
             [plugins.'io.containerd.grpc.v1.cri'.registry]\n{registry}\
             [plugins.'io.containerd.grpc.v1.cri'.cni]\n{cni}"
        ),
    }
}
