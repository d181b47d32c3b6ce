//! A node: containerd, kubelet and kube-proxy on a machine of their own.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::ground::Ground;
use super::images::PAUSE;
use super::options::{ContainerdVersion, NodeOptions};
use super::plane::Site;
use super::{addresses, settings};
use crate::machine::Machine;
use crate::process::{Program, Ran};
use crate::tools::Tool;
use crate::wait::{PATIENCE, until};
use crate::{Error, Image, Registry, Result, Scratch};

/// A node of a cluster. It ends with the cluster, or when it is removed from it.
#[derive(Debug)]
pub struct Node {
    kube_proxy: Program,
    kubelet: Program,
    containerd: Program,
    machine: Machine,
    options: NodeOptions,
    number: u8,
}

impl Node {
    /// Its name in the cluster, which is its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Its address in the cluster's network.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        addresses::node(self.number)
    }

    /// How it was set up.
    #[must_use]
    pub fn options(&self) -> &NodeOptions {
        &self.options
    }

    /// containerd. Its containers go on when it is killed. To have it back: [`Self::start_containerd`].
    #[must_use]
    pub fn containerd(&self) -> &Program {
        &self.containerd
    }

    /// kubelet. Its pods go on when it is killed. To have it back: `kubelet().start()`.
    #[must_use]
    pub fn kubelet(&self) -> &Program {
        &self.kubelet
    }

    /// kube-proxy.
    #[must_use]
    pub fn kube_proxy(&self) -> &Program {
        &self.kube_proxy
    }

    /// Its namespaces and files.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where a path of the node, such as `/var/lib/larder`, is to be found from outside.
    #[must_use]
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.machine.path(inside)
    }

    /// Starts containerd, and waits until it answers.
    pub fn start_containerd(&self) -> Result<()> {
        self.containerd.start_until(&format!("containerd on {} to answer", self.name()), || {
            self.try_ctr(&["--connect-timeout", "1s", "version"], b"").is_ok_and(|ran| ran.status.success())
        })
    }

    /// Has kubelet collect images, and waits until it has. The node must be [`NodeOptions::short_of_disk`].
    ///
    /// kubelet collects when it starts, if it knows the disk by then, and not again for five minutes: so it is started
    /// anew until its log says that it did.
    pub fn collect_images(&self) -> Result<()> {
        const COLLECTS: &str = "Disk usage on image filesystem is over the high threshold";
        // Logged at the end of a collection too: less is freed than there is disk.
        const ENDED: &str = "Image garbage collection failed once";
        until(&format!("kubelet on {} to collect images", self.name()), PATIENCE * 2, || {
            let seen = self.kubelet.log().unwrap_or_default().len();
            self.kubelet.restart().ok()?;
            let log = until("kubelet to try a collection", PATIENCE, || {
                let log = self.kubelet.log().ok()?.split_off(seen);
                log.contains(ENDED).then_some(log)
            });
            log.ok()?.contains(COLLECTS).then_some(())
        })
    }

    /// Runs one of this machine's programs on the node to its end. Its failure is an error.
    pub fn run(&self, program: &Path, args: &[&str]) -> Result<Ran> {
        self.machine.run(program, args, b"")?.ok()
    }

    /// Runs a command line in a shell on the node, and gives what it prints.
    pub fn sh(&self, command: &str) -> Result<String> {
        Ok(self.run(Path::new("/bin/sh"), &["-ec", command])?.stdout)
    }

    /// `ctr --namespace k8s.io`: containerd as kubelet sees it.
    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        Ok(self.try_ctr(args, b"")?.ok()?.stdout)
    }

    /// The same, failed or not, with something on standard input.
    pub fn try_ctr(&self, args: &[&str], input: &[u8]) -> Result<Ran> {
        self.machine.run(&Tool::Ctr.path()?, &[&["--namespace", "k8s.io"], args].concat(), input)
    }

    /// `crictl`, on the node's containerd: images, containers and pods as kubelet sees them.
    pub fn crictl(&self, args: &[&str]) -> Result<Ran> {
        let endpoint = "unix:///run/containerd/containerd.sock";
        let own = ["--runtime-endpoint", endpoint, "--image-endpoint", endpoint, "--timeout", "60s"];
        self.machine.run(&Tool::Crictl.path()?, &[&own, args].concat(), b"")
    }

    /// The images that kubelet sees: `images[]` of `crictl images --output json`.
    pub fn images(&self) -> Result<Vec<serde_json::Value>> {
        let answer = self.crictl(&["images", "--output", "json"])?.ok()?.json()?;
        Ok(answer["images"].as_array().cloned().unwrap_or_default())
    }

    /// Imports an image under this full name, unpacked: a pod can use it with `imagePullPolicy: Never`.
    pub fn import(&self, image: &Image, name: &str) -> Result<()> {
        let scratch = Scratch::new("import")?;
        let archive = scratch.path().join("image.tar");
        image.write_archive(&archive, name)?;
        self.import_archive(&archive)
    }

    /// Lets containerd, and whatever else reads `/etc/containerd/certs.d`, use a registry.
    pub fn trust(&self, registry: &Registry) -> Result<()> {
        self.write_all(&trust(registry)?)
    }

    /// Writes files, by their places on the node.
    pub(super) fn write_all(&self, files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
        files.iter().try_for_each(|(place, content)| self.machine.write(place, content))
    }

    /// What a person types to get a shell on the node.
    #[must_use]
    pub fn shell_command(&self) -> String {
        self.machine.shell_command()
    }

    fn import_archive(&self, archive: &Path) -> Result<()> {
        let content = std::fs::read(archive).map_err(Error::file("read", archive))?;
        self.try_ctr(&["images", "import", "--local", "-"], &content)?.ok().map(drop)
    }
}

/// The files that let a node use a registry.
pub(super) fn trust(registry: &Registry) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = Path::new("/etc/containerd/certs.d").join(registry.host());
    let ca = folder.join("ca.crt");
    let mut files = vec![(folder.join("hosts.toml"), registry.hosts_toml(&ca).into_bytes())];
    if let Some(file) = registry.ca_file() {
        files.push((ca, std::fs::read(file).map_err(Error::file("read", file))?));
    }
    Ok(files)
}

/// What a node is made of, besides its options.
pub(super) struct Materials<'a> {
    pub site: &'a Site,
    pub ground: &'a Ground,
    pub archives: &'a [(&'static str, PathBuf)],
}

impl Node {
    /// A machine in the cluster's network, with containerd running and the images that every node has. kubelet and
    /// kube-proxy are not started yet: the API server may not be there.
    pub(super) fn prepare(options: NodeOptions, number: u8, from: &Materials<'_>) -> Result<Self> {
        let name = &options.name;
        let logs = from.ground.logs().join(name);
        std::fs::create_dir_all(&logs).map_err(Error::file("make", &logs))?;
        let disk = from.ground.scratch()?.folder(&format!("nodes/{name}"))?;
        let machine = Machine::start(name, &disk, &logs)?;
        plug_in(&machine, number, from.site)?;
        write_settings(&machine, &options, number, from)?;
        let node = Self {
            kube_proxy: kube_proxy(&machine, &logs)?,
            kubelet: kubelet(&machine, &options, number, &logs)?,
            containerd: containerd(&machine, options.containerd, &logs)?,
            machine,
            options,
            number,
        };
        node.start_containerd()?;
        for (name, archive) in from.archives {
            node.import_archive(archive)?;
            if *name == PAUSE {
                node.ctr(&["images", "label", name, "io.cri-containerd.pinned=pinned"])?;
            }
        }
        Ok(node)
    }

    /// Has it join: kubelet registers it by itself.
    pub(super) fn join(&self) -> Result<()> {
        self.kubelet.start()?;
        self.kube_proxy.start()
    }

    /// Its interface is gone with its machine; this is what the control plane's network still knows of it.
    pub(super) fn unplug(&self, site: &Site) -> Result<()> {
        self.machine.kill();
        site.network().ip(&format!("route del {}\n", addresses::pods(self.number)))
    }
}

/// A cable from the node's `eth0` to the bridge, and routes: the control plane's network is the gateway for all.
fn plug_in(machine: &Machine, number: u8, site: &Site) -> Result<()> {
    let (address, pods) = (addresses::node(number), addresses::pods(number));
    let (gateway, init) = (addresses::CONTROL_PLANE, machine.id());
    site.network().ip(&format!(
        "link add node{number} type veth peer name eth0 netns {init}\n\
         link set node{number} master larder0 up\n"
    ))?;
    machine.network().ip(&format!(
        "addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n"
    ))?;
    site.network().ip(&format!("route add {pods} via {address}\n"))
}

fn write_settings(machine: &Machine, options: &NodeOptions, number: u8, from: &Materials<'_>) -> Result<()> {
    let (name, address) = (&options.name, addresses::node(number));
    let cgroup = from.ground.cgroup()?.child(name)?;
    let serving = from.site.authority.server(&[name, &address.to_string()])?;
    let kubelet = settings::kubelet(&cgroup, address, &options.taints, &options.kubelet);
    machine.write("/etc/containerd/config.toml", settings::containerd(options.containerd))?;
    machine.write("/etc/cni/net.d/10-pods.conflist", settings::cni(number).to_string())?;
    machine.write("/etc/kubernetes/kubelet.yaml", format!("{kubelet:#}\n"))?;
    machine.write("/etc/kubernetes/pki/ca.crt", from.site.authority.pem())?;
    machine.write("/etc/kubernetes/pki/kubelet.crt", &serving.certificate)?;
    machine.write_secret("/etc/kubernetes/pki/kubelet.key", &serving.key)?;
    let own = from.site.kubeconfig(&format!("system:node:{name}"), Some("system:nodes"))?;
    machine.write_secret("/etc/kubernetes/kubelet.kubeconfig", own)?;
    let proxy = from.site.kubeconfig("system:kube-proxy", None)?;
    machine.write_secret("/etc/kubernetes/kube-proxy.kubeconfig", proxy)
}

fn containerd(machine: &Machine, version: ContainerdVersion, logs: &Path) -> Result<Program> {
    let (containerd, shim) = match version {
        ContainerdVersion::V2 => (Tool::Containerd, Tool::ContainerdShim),
        ContainerdVersion::V17 => (Tool::Containerd17, Tool::ContainerdShim17),
    };
    let program = machine.program("containerd", &containerd.path()?, logs)?;
    // The shim comes first: a containerd that Debian has installed has one of the same name.
    Ok(program.env("PATH", search_path(&[shim.path()?])))
}

fn kubelet(machine: &Machine, options: &NodeOptions, number: u8, logs: &Path) -> Result<Program> {
    let labels: Vec<String> = options.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Ok(machine.program("kubelet", &Tool::Kubelet.path()?, logs)?.env("PATH", search_path(&[])).args([
        "--config=/etc/kubernetes/kubelet.yaml".to_owned(),
        "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig".to_owned(),
        "--root-dir=/var/lib/kubelet".to_owned(),
        format!("--hostname-override={}", options.name),
        format!("--node-ip={}", addresses::node(number)),
        format!("--node-labels={}", labels.join(",")),
    ]))
}

fn kube_proxy(machine: &Machine, logs: &Path) -> Result<Program> {
    Ok(machine.program("kube-proxy", &Tool::KubeProxy.path()?, logs)?.env("PATH", search_path(&[])).args([
        "--kubeconfig=/etc/kubernetes/kube-proxy.kubeconfig".to_owned(),
        "--proxy-mode=nftables".to_owned(),
        format!("--hostname-override={}", machine.name()),
        format!("--cluster-cidr={}", addresses::PODS),
        // Limits of the kernel's connection table, which are this machine's.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
    ]))
}

/// The folders of these programs, and those of the system.
fn search_path(first: &[PathBuf]) -> OsString {
    let folders = first.iter().filter_map(|program| program.parent().map(Path::to_owned));
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    // No folder here has a colon in its name, but for one that its owner could not use in PATH anyway.
    std::env::join_paths(folders.chain(system.map(PathBuf::from))).unwrap_or_default()
}
