//! Programs in a PID namespace of their own: `nsenter` and `unshare` have to fork, and wait for the one child.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// A launcher's child.
pub(super) struct Launched {
    /// Its process id, as this process sees it.
    pub(super) id: u32,
    handle: OwnedFd,
}

/// The child of a launcher that has not been reaped. Fails before the launcher has forked.
pub(super) fn child(launcher: u32) -> std::io::Result<Launched> {
    let none = || std::io::Error::other("it does not run yet");
    let id = first_child(launcher)?.ok_or_else(none)?;
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(none)?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    // Still the launcher's child: so the handle isn't for a stranger that got the number in between.
    if first_child(launcher)? == Some(id) { Ok(Launched { id, handle }) } else { Err(none()) }
}

/// Signals a launcher's child.
pub(super) fn signal(launcher: u32, signal: Signal) -> std::io::Result<()> {
    pidfd_send_signal(&child(launcher)?.handle, signal)?;
    // When its child is stopped, nsenter stops itself too.
    if [Signal::CONT, Signal::KILL, Signal::TERM].contains(&signal)
        && let Some(launcher) = i32::try_from(launcher).ok().and_then(Pid::from_raw)
    {
        kill_process(launcher, Signal::CONT)?;
    }
    Ok(())
}

fn first_child(launcher: u32) -> std::io::Result<Option<u32>> {
    let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"))?;
    Ok(children.split_whitespace().next().and_then(|id| id.parse().ok()))
}
