//! Ports that lead from this machine's loopback into a network namespace, or from there to loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use tokio::io::copy_bidirectional;
use tokio::task::{AbortHandle, JoinSet};

use super::Network;
use crate::port::Port;
use crate::runtime::{block_on, runtime};
use crate::{Error, Result};

/// Passes connections on, for as long as it lives.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    // Ours as long as we listen there.
    _port: Option<Port>,
    server: AbortHandle,
}

/// Where connections are passed on to.
#[derive(Debug, Clone)]
enum Target {
    Inside(Network, SocketAddr),
    Outside(SocketAddr),
}

impl Relay {
    /// Listens on 127.0.0.1, on a free port or on this one, and leads to an address inside a namespace.
    pub fn start(network: &Network, target: SocketAddr, port: Option<u16>) -> Result<Self> {
        let port = port.map_or_else(Port::free, Port::exactly)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let listener = TcpListener::bind(address).map_err(Error::data("relay's socket"))?;
        let server = spawn(listener, Target::Inside(network.clone(), target))?;
        Ok(Self { address, _port: Some(port), server })
    }

    /// Listens on an address inside a namespace, and leads to one outside: a [`Proxy`](crate::Proxy), say, that listens on
    /// loopback as all of the harness does.
    pub fn outward(network: &Network, address: SocketAddr, target: SocketAddr) -> Result<Self> {
        let listener = network.enter(move || TcpListener::bind(address));
        let listener = listener.map_err(Error::data("relay's socket in a network namespace"))?;
        Ok(Self { address, _port: None, server: spawn(listener, Target::Outside(target))? })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as text: `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The connections' tasks belong to the server's and end with it.
        self.server.abort();
    }
}

fn spawn(listener: TcpListener, target: Target) -> Result<AbortHandle> {
    let listener = block_on(async move {
        let socket =
            listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
        socket.map_err(Error::data("relay's socket"))
    })?;
    Ok(runtime()?.spawn(serve(listener, target)).abort_handle())
}

async fn serve(listener: tokio::net::TcpListener, target: Target) {
    let mut connections = JoinSet::new();
    loop {
        // Out of files, most likely: those that end make room.
        let Ok((near, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        connections.spawn(pass_on(near, target.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// A connection that cannot be passed on is closed: to the client, a server that is down.
async fn pass_on(mut near: tokio::net::TcpStream, target: Target) -> std::io::Result<()> {
    let dial = move || match target {
        Target::Inside(network, address) => network.enter(move || TcpStream::connect(address)),
        Target::Outside(address) => TcpStream::connect(address),
    };
    let far = tokio::task::spawn_blocking(dial).await.map_err(std::io::Error::other)??;
    far.set_nonblocking(true)?;
    let mut far = tokio::net::TcpStream::from_std(far)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    copy_bidirectional(&mut near, &mut far).await.map(drop)
}
