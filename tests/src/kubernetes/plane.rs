//! The cluster's control plane, in a network of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::addresses;
use crate::certificates::{Authority, Identity};
use crate::cluster::{kubeconfig, start_until_ready};
use crate::machine::{Network, NetworkHolder, Relay};
use crate::process::Program;
use crate::tools::Tool;
use crate::{Error, Kubectl, Result, Scratch};

/// etcd, the API server, the controllers and the scheduler.
#[derive(Debug)]
pub(super) struct Plane {
    pub scheduler: Program,
    pub controllers: Program,
    pub apiserver: Program,
    pub etcd: Program,
    pub kubectl: Kubectl,
    relay: Relay,
}

/// The network that joins nodes and control plane, and the keys that they know each other by.
#[derive(Debug)]
pub(super) struct Site {
    pub authority: Authority,
    holder: NetworkHolder,
}

impl Site {
    /// A namespace with a bridge, to which nodes are to be plugged.
    pub fn start(logs: &Path) -> Result<Self> {
        let holder = NetworkHolder::start("network", logs)?;
        let address = addresses::CONTROL_PLANE;
        holder.network().ip(&format!(
            "link add larder0 type bridge\naddr add {address}/24 dev larder0\nlink set larder0 up\n"
        ))?;
        Ok(Self { authority: Authority::new("larder-tests cluster")?, holder })
    }

    pub fn network(&self) -> &Network {
        self.holder.network()
    }

    /// A kubeconfig for use within the network.
    pub fn kubeconfig(&self, user: &str, group: Option<&str>) -> Result<String> {
        let server = format!("https://{}", addresses::API_SERVER);
        Ok(kubeconfig(&server, &self.authority, &self.authority.client(user, group)?))
    }
}

impl Plane {
    /// Starts all of it, and waits until the API server is ready.
    pub fn start(site: &Site, scratch: &Scratch, logs: &Path) -> Result<Self> {
        let network = site.network();
        let relay = Relay::start(network, addresses::API_SERVER.into(), None)?;
        let url = format!("https://{}", relay.host());
        let admin = site.authority.client("admin", Some("system:masters"))?;
        let admin = scratch.write("admin.kubeconfig", kubeconfig(&url, &site.authority, &admin))?;
        let tokens = rcgen::KeyPair::generate().map_err(Error::data("service account key"))?;
        let keys = Keys {
            ca: text(scratch, "ca.crt", site.authority.pem())?,
            token_signer: text(scratch, "sa.key", &tokens.serialize_pem())?,
            token_verifier: text(scratch, "sa.pub", &tokens.public_key_pem())?,
        };
        let client = |name: &str| -> Result<String> {
            text(scratch, &format!("{name}.kubeconfig"), &site.kubeconfig(&format!("system:{name}"), None)?)
        };
        let program = |tool: Tool, args: Vec<(&str, String)>| -> Result<Program> {
            let args = args.into_iter().map(|(name, value)| format!("--{name}={value}"));
            Ok(network.program(tool.file_name(), &tool.path()?, logs)?.args(args))
        };
        let plane = Self {
            etcd: program(Tool::Etcd, etcd(scratch))?,
            apiserver: program(Tool::KubeApiserver, apiserver(scratch, site, &keys)?)?,
            controllers: program(
                Tool::KubeControllerManager,
                controllers(&keys, client("kube-controller-manager")?, scratch),
            )?,
            scheduler: program(Tool::KubeScheduler, scheduler(client("kube-scheduler")?))?,
            kubectl: Kubectl::new(&admin, scratch.path())?,
            relay,
        };
        plane.etcd.start()?;
        start_until_ready(&plane.apiserver, &plane.url(), &site.authority)?;
        plane.controllers.start()?;
        plane.scheduler.start()?;
        plane.etcd.ensure_running()?;
        Ok(plane)
    }

    /// The API server's URL for this process.
    pub fn url(&self) -> String {
        format!("https://{}", self.relay.host())
    }
}

/// Paths of files that several programs read.
struct Keys {
    ca: String,
    token_signer: String,
    token_verifier: String,
}

fn text(scratch: &Scratch, name: &str, content: &str) -> Result<String> {
    Ok(scratch.write(name, content)?.to_string_lossy().into_owned())
}

fn pair(scratch: &Scratch, name: &str, identity: &Identity) -> Result<[String; 2]> {
    let certificate = text(scratch, &format!("{name}.crt"), &identity.certificate)?;
    Ok([certificate, text(scratch, &format!("{name}.key"), &identity.key)?])
}

fn etcd(scratch: &Scratch) -> Vec<(&'static str, String)> {
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    vec![
        ("name", "larder".to_owned()),
        ("data-dir", scratch.path().join("etcd").display().to_string()),
        ("listen-client-urls", client.to_owned()),
        ("advertise-client-urls", client.to_owned()),
        ("listen-peer-urls", peer.to_owned()),
        ("initial-advertise-peer-urls", peer.to_owned()),
        ("initial-cluster", format!("larder={peer}")),
        // The data is worth nothing after the test; fsync would make every write wait for the disk.
        ("unsafe-no-fsync", "true".to_owned()),
        ("log-level", "warn".to_owned()),
    ]
}

fn apiserver(scratch: &Scratch, site: &Site, keys: &Keys) -> Result<Vec<(&'static str, String)>> {
    let own = addresses::CONTROL_PLANE.to_string();
    let service = addresses::API_SERVICE.to_string();
    let names = ["127.0.0.1", "localhost", &own, &service, "kubernetes", "kubernetes.default"];
    let serving = site.authority.server(&[&names[..], &["kubernetes.default.svc"]].concat())?;
    let [certificate, key] = pair(scratch, "apiserver", &serving)?;
    let kubelets = site.authority.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
    let [kubelet_certificate, kubelet_key] = pair(scratch, "apiserver-kubelet-client", &kubelets)?;
    Ok(vec![
        ("etcd-servers", "http://127.0.0.1:2379".to_owned()),
        ("bind-address", Ipv4Addr::UNSPECIFIED.to_string()),
        ("advertise-address", own),
        ("secure-port", SocketAddr::from(addresses::API_SERVER).port().to_string()),
        ("tls-cert-file", certificate),
        ("tls-private-key-file", key),
        ("client-ca-file", keys.ca.clone()),
        ("kubelet-client-certificate", kubelet_certificate),
        ("kubelet-client-key", kubelet_key),
        ("kubelet-certificate-authority", keys.ca.clone()),
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("service-account-signing-key-file", keys.token_signer.clone()),
        ("service-account-key-file", keys.token_verifier.clone()),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-cluster-ip-range", addresses::SERVICES.to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("allow-privileged", "true".to_owned()),
        // Webhooks are called at their pods' addresses: no kube-proxy stands beside the API server.
        ("enable-aggregator-routing", "true".to_owned()),
        ("profiling", "false".to_owned()),
    ])
}

fn controllers(keys: &Keys, kubeconfig: String, scratch: &Scratch) -> Vec<(&'static str, String)> {
    vec![
        ("kubeconfig", kubeconfig),
        ("root-ca-file", keys.ca.clone()),
        ("service-account-private-key-file", keys.token_signer.clone()),
        ("use-service-account-credentials", "true".to_owned()),
        // By default a folder in /usr, which it makes, on this machine.
        ("flex-volume-plugin-dir", scratch.path().join("volume-plugins").display().to_string()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("profiling", "false".to_owned()),
    ]
}

fn scheduler(kubeconfig: String) -> Vec<(&'static str, String)> {
    vec![
        ("kubeconfig", kubeconfig),
        ("bind-address", "127.0.0.1".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("profiling", "false".to_owned()),
    ]
}
