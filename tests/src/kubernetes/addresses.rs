//! Addresses in a cluster's network. Each cluster has a network of its own, so they may be the same in all.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The control plane, and the registries beside it; also the nodes' gateway.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);

/// The API server.
pub const API_SERVER: SocketAddrV4 = SocketAddrV4::new(CONTROL_PLANE, 6443);

/// The addresses of services.
pub const SERVICES: &str = "10.96.0.0/16";

/// The API server as a service: `kubernetes.default`.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Where pods would find a name server. There is none: kube-proxy refuses what is sent there, and a lookup fails at once.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The addresses of all pods.
pub const PODS: &str = "10.244.0.0/16";

/// The address of node number `number`.
#[must_use]
pub const fn node(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + number)
}

/// The addresses of that node's pods.
#[must_use]
pub fn pods(number: u8) -> String {
    format!("10.244.{number}.0/24")
}
