//! A network namespace: interfaces, addresses and routes of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{Program, Ran, run};
use crate::tools::in_path;
use crate::wait::{PATIENCE, until};
use crate::{Error, Result};

/// A handle on a network namespace. Clones stand for the same one; it lasts while one of them, or a process in it, does.
#[derive(Debug, Clone)]
pub struct Network {
    handle: Arc<File>,
}

/// A network namespace with a process that keeps it, and no other: what a control plane needs.
#[derive(Debug)]
pub struct NetworkHolder {
    network: Network,
    _holder: Program,
}

impl NetworkHolder {
    /// Makes one, with its loopback interface up, that forwards packets.
    pub fn start(name: &str, logs: &Path) -> Result<Self> {
        const SET_UP: &str =
            "ip link set lo up; echo 1 >/proc/sys/net/ipv4/ip_forward; echo up; exec sleep infinity";
        let holder =
            Program::new(name, &in_path("unshare")?, logs).args(["--net", "--", "sh", "-ec", SET_UP]);
        holder.start_until("a network namespace", || holder.log().is_ok_and(|log| log.starts_with("up")))?;
        let id = holder
            .id()
            .ok_or_else(|| Error::Data { what: "network namespace", problem: holder.log_tail() })?;
        Ok(Self { network: Network::of(id)?, _holder: holder })
    }

    /// The namespace.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }
}

impl Network {
    /// The namespace that a process of ours is in.
    pub(crate) fn of(process: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{process}/ns/net"));
        let handle = File::open(&path).map_err(Error::file("open", &path))?;
        Ok(Self { handle: Arc::new(handle) })
    }

    /// A program that is to run in it, not started yet. Its log is `<folder>/<name>.log`.
    pub fn program(&self, name: &str, program: &Path, folder: &Path) -> Result<Program> {
        Ok(Program::new(name, &in_path("nsenter")?, folder).args([&self.flag(), "--"]).args([program]))
    }

    /// Runs a command in it to its end.
    pub fn run(&self, program: &Path, args: &[&str], input: &[u8]) -> Result<Ran> {
        let program = program.to_string_lossy();
        let none: [(&str, &OsStr); 0] = [];
        run(&in_path("nsenter")?, &[&[&self.flag(), "--", &*program], args].concat(), &none, input)
    }

    /// Runs lines of `ip -batch` in it: `link add …`, `route add …`.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.run(&in_path("ip")?, &["-batch", "-"], lines.as_bytes())?.ok().map(drop)
    }

    /// Runs a function in it, on a thread of its own. A socket made there stays there, whoever uses it.
    pub fn enter<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let handle = Arc::clone(&self.handle);
        // The thread ends with the function: no other work can find itself in the namespace.
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().map_err(|_| std::io::Error::other("a thread in a network namespace panicked"))?
    }

    /// Waits until something listens there.
    pub fn wait_for(&self, address: SocketAddr) -> Result<()> {
        until(&format!("something to listen on {address}"), PATIENCE, || {
            self.enter(move || std::net::TcpStream::connect(address)).ok().map(drop)
        })
    }

    /// By our own handle, and not by the process that it was opened of: when that has ended, its number may be another's,
    /// one that is in this machine's own network.
    fn flag(&self) -> String {
        format!("--net=/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }
}
