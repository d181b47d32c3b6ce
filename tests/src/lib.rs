//! The test harness: real parts, started as a test needs them and gone when it ends.
//!
//! A test starts a [`ControlPlane`] (etcd and kube-apiserver), a [`Registry`] (Debian's docker-registry), a
//! [`Proxy`] that injects faults before it, pushes [`Image`]s made of this machine's own files, and runs
//! `larder-operator` and `larder-agent` as [`Program`]s. Where pods have to run it starts a [`Cluster`], whose [`Node`]s
//! have kubelet and containerd, and which needs root. Each part owns its folder, ports and processes; dropping
//! it ends them. After a panic the folders stay, and the end of each log is printed.
//!
//! The functions block, so that a test is a plain function. They may be called from within a tokio runtime too:
//! what needs one runs on the harness' own.

#![forbid(unsafe_code)]

pub mod api;
pub mod audit;
pub mod certificates;
pub mod cleanup;
pub mod cluster;
pub mod containerd;
pub mod error;
pub mod gate;
pub mod image;
pub mod kubectl;
pub mod kubernetes;
pub mod larder;
pub mod machine;
pub mod port;
pub mod process;
pub mod proxy;
pub mod registry;
mod runtime;
pub mod scratch;
pub mod testdata;
pub mod tools;
pub mod wait;

pub use api::Api;
pub use audit::{ApiRequest, AuditLog};
pub use cluster::{Access, ControlPlane, ControlPlaneOptions};
pub use containerd::Containerd;
pub use error::{Error, Result};
pub use gate::{Gate, Moment};
pub use image::{Blob, Image, ImageBuilder, Layer, MachineFiles, Pushed};
pub use kubectl::Kubectl;
pub use kubernetes::{Cluster, ClusterOptions, ContainerdVersion, Node, NodeOptions, Pod, PodOptions};
pub use process::{Killer, Program, Ran};
pub use proxy::{Answer, Fault, Hook, Proxy, Rule};
pub use registry::{Registry, RegistryOptions, Request, Requests};
pub use scratch::Scratch;
pub use wait::until;
