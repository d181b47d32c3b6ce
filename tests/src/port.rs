//! Loopback ports that nobody else takes, not even while the program that listens on them is down.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::{Error, Result};

/// Below the range from which the kernel picks ports for outgoing connections: a port of ours that is free for a
/// moment (a registry that restarts) would be lost to one of those.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port on 127.0.0.1, ours until this value is dropped.
///
/// Tests in other processes look for ports at the same time. A socket in Linux' abstract namespace stands for each
/// port that is ours; the kernel takes it away with the process, however that ends.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UnixListener,
}

impl Port {
    /// Finds a free port.
    pub fn free() -> Result<Self> {
        let mut last = RANGE.start;
        for _ in 0..1000 {
            last = fastrand::u16(RANGE);
            if let Ok(port) = Self::exactly(last) {
                return Ok(port);
            }
        }
        Err(Error::PortTaken(last))
    }

    /// Takes this port, or fails when somebody else has it.
    pub fn exactly(number: u16) -> Result<Self> {
        let taken = |_| Error::PortTaken(number);
        let name = SocketAddr::from_abstract_name(format!("larder-tests-port-{number}")).map_err(taken)?;
        let reservation = UnixListener::bind_addr(&name).map_err(taken)?;
        TcpListener::bind(("127.0.0.1", number)).map_err(taken)?;
        Ok(Self { number, _reservation: reservation })
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
