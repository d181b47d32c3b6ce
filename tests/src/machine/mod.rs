//! Machines within this machine: namespaces that look to programs like a computer of their own.

mod cgroup;
mod janitor;
mod network;
mod relay;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::process::{Program, Ran, run};
use crate::tools::in_path;
use crate::{Error, Result};

pub use cgroup::{
    Cgroup, Version as CgroupVersion, hierarchies as cgroup_hierarchies, version as cgroup_version,
};
pub use janitor::{Janitor, label, sweep};
pub use network::{Network, NetworkHolder};
pub use relay::Relay;

/// A network, mount, PID, UTS and IPC namespace, with this machine's programs and libraries in it. `/run`, `/var` and
/// `/etc` are its own: whatever is written there, no other machine sees. All in it ends, and is unmounted, with its first
/// process, which ends with ours.
#[derive(Debug)]
pub struct Machine {
    name: String,
    init: Program,
    network: Network,
    id: u32,
}

/// What the first process sets up before it becomes the one that reaps orphans. Its arguments: the machine's name, a
/// folder for what is to be on disk rather than in memory.
const SET_UP: &str = r#"
name=$1 disk=$2 logs=$3
# Before anything else is mounted, so that the mounts of containers may propagate, as kubelet expects it.
mount --make-rshared /
echo "$name" >/proc/sys/kernel/hostname
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
mkdir -p /run/machine/etc /run/machine/work /run/tmp /run/lock
mount -t overlay -o lowerdir=/etc,upperdir=/run/machine/etc,workdir=/run/machine/work overlay /etc
mount --bind "$disk/var" /var
mount --bind "$logs/var-log" /var/log
# Settings of the one kernel that kubelet would change for all: it finds here what it looks for, and changes nothing.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=/proc/sys/${setting%=*}
    [ -e "$file" ] || continue
    copy=/run/machine/${setting%=*}
    mkdir -p "${copy%/*}"
    echo "${setting#*=}" >"$copy"
    mount --bind "$copy" "$file"
done
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
echo up
while :; do sleep 86400 & wait $!; done
"#;

impl Machine {
    /// Starts one. `disk` is an empty folder for its files, `logs` one for the logs of its programs, and for its
    /// `/var/log`.
    pub fn start(name: &str, disk: &Path, logs: &Path) -> Result<Self> {
        make_var(&disk.join("var"))?;
        let own_logs = logs.join("var-log");
        std::fs::create_dir_all(&own_logs).map_err(Error::file("make", &own_logs))?;
        let init = Program::new(name, &in_path("unshare")?, logs)
            .args([
                "--net",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
            ])
            .args(["sh", "-ec", SET_UP, "machine", name])
            .args([disk, logs])
            .launched();
        init.start_until("a machine's namespaces", || init.log().is_ok_and(|log| log.starts_with("up")))?;
        let id = init.id().ok_or_else(|| Error::Data { what: "machine", problem: init.log_tail() })?;
        let machine = Self { name: name.to_owned(), network: Network::of(id)?, init, id };
        machine.write("etc/hosts", "127.0.0.1 localhost\n")?;
        // No name server. An empty file means one on this machine: a lookup fails at once.
        machine.write("etc/resolv.conf", "")?;
        machine.write("etc/machine-id", format!("{:032x}\n", fastrand::u128(..)))?;
        Ok(machine)
    }

    /// Its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The process id of its first process, as this machine sees it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Where a path of its file system is to be found from outside, for as long as it runs; afterwards one that does not
    /// exist. (An absolute symbolic link on the way leads astray: it is this machine's.)
    #[must_use]
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        // No process has the number 0.
        Path::new("/proc")
            .join(if self.is_up() { self.id } else { 0 }.to_string())
            .join("root")
            .join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Writes a file in it that everybody there may read, with the folders that lead there.
    pub fn write(&self, inside: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        self.write_with_mode(inside.as_ref(), content.as_ref(), 0o644)
    }

    /// The same, for root alone.
    pub fn write_secret(&self, inside: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        self.write_with_mode(inside.as_ref(), content.as_ref(), 0o600)
    }

    fn write_with_mode(&self, inside: &Path, content: &[u8], mode: u32) -> Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(inside);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::file("make", folder))?;
        }
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(mode).open(&path);
        opened.and_then(|mut file| file.write_all(content)).map_err(Error::file("write", &path))
    }

    /// A program that is to run in it, not started yet.
    pub fn program(&self, name: &str, program: &Path, logs: &Path) -> Result<Program> {
        Ok(Program::new(name, &in_path("nsenter")?, logs)
            .args(self.enter())
            // nsenter forks, and would leave the program behind when it is killed.
            .args(["setpriv", "--pdeathsig", "KILL", "--"])
            .args([program])
            .env("HOME", "/run/tmp")
            .env("TMPDIR", "/run/tmp")
            .launched())
    }

    /// Runs a command in it, with this on its standard input, to its end.
    pub fn run(&self, program: &Path, args: &[&str], input: &[u8]) -> Result<Ran> {
        if !self.is_up() {
            return Err(Error::Data { what: "machine", problem: format!("{} has ended", self.name) });
        }
        let enter = self.enter();
        let program = program.to_string_lossy();
        let mut all: Vec<&str> = enter.iter().map(String::as_str).collect();
        all.extend(["setpriv", "--pdeathsig", "KILL", "--", &program]);
        all.extend(args);
        let env = [("HOME", OsStr::new("/run/tmp")), ("TMPDIR", OsStr::new("/run/tmp"))];
        run(&in_path("nsenter")?, &all, &env, input)
    }

    /// What a person types to get a shell in it.
    #[must_use]
    pub fn shell_command(&self) -> String {
        format!("nsenter {} sh", self.enter().join(" "))
    }

    /// Ends it, and all that runs in it, at once: what a power cut does.
    pub fn kill(&self) {
        self.init.kill();
    }

    /// Whether its first process still runs. When it has ended, its number may become that of any process of this
    /// machine, whose files and namespaces are not for tests.
    fn is_up(&self) -> bool {
        self.init.id() == Some(self.id)
    }

    fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.id);
        [&target, "--net", "--mount", "--uts", "--ipc", "--pid", "--"].map(str::to_owned).to_vec()
    }
}

/// A `/var` as an installer of an operating system leaves it.
fn make_var(var: &Path) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for folder in ["lib", "log", "cache", "spool", "tmp"].map(|name| var.join(name)) {
        std::fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
    }
    let tmp = var.join("tmp");
    std::fs::set_permissions(&tmp, PermissionsExt::from_mode(0o1777))
        .map_err(Error::file("open up", &tmp))?;
    for (name, target) in [("run", "/run"), ("lock", "/run/lock")] {
        let link = var.join(name);
        symlink(target, &link).map_err(Error::file("make", &link))?;
    }
    Ok(())
}
