//! A Kubernetes control plane on loopback: etcd and kube-apiserver. Needs no root.

use std::ffi::OsStr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use serde_json::json;

use crate::audit::{self, AuditLog};
use crate::certificates::{Authority, Identity};
use crate::port::Port;
use crate::process::Program;
use crate::runtime::block_on;
use crate::tools::Tool;
use crate::{Error, Kubectl, Result, Scratch};

/// Where the API server logs what it is asked.
const AUDIT_LOG: &str = "audit.log";

/// Who a kubeconfig stands for.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// May do everything.
    Admin,
    /// A user that RBAC knows nothing of yet.
    User(&'a str),
    /// A service account, by namespace and name: the user that it is, and in the group of all of them. (Its token would say
    /// the pod and the node besides.)
    ServiceAccount(&'a str, &'a str),
}

/// How a control plane is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct ControlPlaneOptions {
    /// Have the API server log what it is asked: [`ControlPlane::audit_log`].
    pub audit: bool,
}

/// etcd and kube-apiserver, running. Dropping it ends both.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: the API server before its database, files last.
    apiserver: Program,
    etcd: Program,
    kubectl: Kubectl,
    authority: Authority,
    port: Port,
    etcd_ports: [Port; 2],
    scratch: Scratch,
}

impl ControlPlane {
    /// Starts both and waits until the API server is ready: about three seconds on an idle machine.
    pub fn start() -> Result<Self> {
        Self::start_with(ControlPlaneOptions::default())
    }

    /// The same with other options.
    pub fn start_with(options: ControlPlaneOptions) -> Result<Self> {
        // Ports are reserved among harnesses; a foreign program may still get in between.
        let mut attempts = 0;
        loop {
            attempts += 1;
            match Self::start_once(options) {
                Err(Error::Ended { tail, .. }) if attempts < 5 && tail.contains("address already in use") => {
                }
                other => return other,
            }
        }
    }

    fn start_once(options: ControlPlaneOptions) -> Result<Self> {
        let scratch = Scratch::new("cluster")?;
        let authority = Authority::new("larder-tests")?;
        let port = Port::free()?;
        let etcd_ports = [Port::free()?, Port::free()?];
        let etcd = etcd(&scratch, &etcd_ports)?;
        let mut apiserver = apiserver(&scratch, &authority, &port, &etcd_ports[0])?;
        if options.audit {
            let arguments = audit::arguments(&scratch, &scratch.path().join(AUDIT_LOG))?;
            apiserver = apiserver.args(arguments.map(|(name, value)| format!("--{name}={value}")));
        }
        let admin = authority.client("admin", Some("system:masters"))?;
        let kubeconfig = scratch
            .write("admin.kubeconfig", kubeconfig(&format!("https://{}", port.host()), &authority, &admin))?;
        let plane = Self {
            apiserver,
            etcd,
            kubectl: Kubectl::new(&kubeconfig, scratch.path())?,
            authority,
            port,
            etcd_ports,
            scratch,
        };
        plane.etcd.start()?;
        plane.start_apiserver()?;
        Ok(plane)
    }

    /// Kills the API server. What it has confirmed is in etcd.
    pub fn stop_apiserver(&self) {
        self.apiserver.kill();
    }

    /// Starts the API server and waits until it is ready.
    pub fn start_apiserver(&self) -> Result<()> {
        start_until_ready(&self.apiserver, &self.url(), &self.authority)?;
        self.etcd.ensure_running()
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.port.host())
    }

    /// Writes a further kubeconfig.
    pub fn kubeconfig_for(&self, access: Access<'_>) -> Result<PathBuf> {
        match access {
            Access::Admin => Ok(self.kubeconfig().to_owned()),
            Access::User(user) => self.write_kubeconfig(user, None),
            Access::ServiceAccount(namespace, name) => {
                let user = format!("system:serviceaccount:{namespace}:{name}");
                self.write_kubeconfig(&user, Some("system:serviceaccounts"))
            }
        }
    }

    fn write_kubeconfig(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let identity = self.authority.client(user, group)?;
        let name = format!("{}.kubeconfig", user.replace([':', '/'], "-"));
        self.scratch.write(&name, kubeconfig(&self.url(), &self.authority, &identity))
    }

    /// The log of what the API server was asked, from its beginning; see [`ControlPlaneOptions::audit`].
    #[must_use]
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::new(&self.scratch.path().join(AUDIT_LOG))
    }

    /// A folder that lasts as long as the control plane, for the logs of what works with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// The API server's process.
    #[must_use]
    pub fn apiserver(&self) -> &Program {
        &self.apiserver
    }

    /// etcd's process.
    #[must_use]
    pub fn etcd(&self) -> &Program {
        &self.etcd
    }

    /// Where etcd answers its clients.
    #[must_use]
    pub fn etcd_url(&self) -> String {
        format!("http://{}", self.etcd_ports[0].host())
    }

    /// Who signs the certificates of the API server and its clients.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// Starts an API server and waits until it is ready. `url` is where this process reaches it.
pub(crate) fn start_until_ready(apiserver: &Program, url: &str, authority: &Authority) -> Result<()> {
    let url = format!("{url}/readyz");
    let ca = authority.pem().to_owned();
    let client = block_on(async move {
        let ca = reqwest::Certificate::from_pem(ca.as_bytes()).map_err(Error::data("CA certificate"))?;
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([ca])
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(Error::data("HTTP client"))
    })?;
    apiserver.start_until("kube-apiserver to be ready", || {
        let request = client.get(&url);
        let answer = block_on(async move { Ok(request.send().await.is_ok_and(|r| r.status().is_success())) });
        answer.unwrap_or(false)
    })
}

/// With what is in it one can use `kubectl`.
impl Deref for ControlPlane {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

fn etcd(scratch: &Scratch, [client, peer]: &[Port; 2]) -> Result<Program> {
    let (client, peer) = (format!("http://{}", client.host()), format!("http://{}", peer.host()));
    let data = scratch.path().join("etcd");
    let program = Program::new("etcd", &Tool::Etcd.path()?, scratch.path()).args([
        OsStr::new("--name=larder"),
        OsStr::new("--data-dir"),
        data.as_os_str(),
        OsStr::new("--listen-client-urls"),
        OsStr::new(&client),
        OsStr::new("--advertise-client-urls"),
        OsStr::new(&client),
        OsStr::new("--listen-peer-urls"),
        OsStr::new(&peer),
        OsStr::new("--initial-advertise-peer-urls"),
        OsStr::new(&peer),
        OsStr::new("--initial-cluster"),
        OsStr::new(&format!("larder={peer}")),
        // The data is worth nothing after the test; fsync would make every write wait for the disk.
        OsStr::new("--unsafe-no-fsync"),
        OsStr::new("--log-level=warn"),
    ]);
    Ok(program)
}

fn apiserver(scratch: &Scratch, authority: &Authority, port: &Port, etcd: &Port) -> Result<Program> {
    let serving = authority.server(&["127.0.0.1", "localhost", "kubernetes.default.svc"])?;
    let tokens = rcgen::KeyPair::generate().map_err(Error::data("service account key"))?;
    let file = |name: &str, content: &str| -> Result<String> {
        Ok(scratch.write(name, content)?.to_string_lossy().into_owned())
    };
    let args = [
        ("etcd-servers", format!("http://{}", etcd.host())),
        ("bind-address", "127.0.0.1".to_owned()),
        ("advertise-address", "127.0.0.1".to_owned()),
        ("secure-port", port.number().to_string()),
        ("tls-cert-file", file("apiserver.crt", &serving.certificate)?),
        ("tls-private-key-file", file("apiserver.key", &serving.key)?),
        ("client-ca-file", file("ca.crt", authority.pem())?),
        ("service-account-signing-key-file", file("sa.key", &tokens.serialize_pem())?),
        ("service-account-key-file", file("sa.pub", &tokens.public_key_pem())?),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
        ("authorization-mode", "RBAC".to_owned()),
        // A loopback address is no valid endpoint, and nothing looks for this one.
        ("endpoint-reconciler-type", "none".to_owned()),
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("profiling", "false".to_owned()),
    ];
    let args = args.iter().map(|(name, value)| format!("--{name}={value}"));
    Ok(Program::new("kube-apiserver", &Tool::KubeApiserver.path()?, scratch.path()).args(args))
}

/// JSON, which is YAML too. Certificates are inside, so that the one file can be handed on.
pub(crate) fn kubeconfig(server: &str, authority: &Authority, identity: &Identity) -> String {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "larder", "cluster": {
            "server": server,
            "certificate-authority-data": base64(authority.pem()),
        }}],
        "users": [{"name": "user", "user": {
            "client-certificate-data": base64(&identity.certificate),
            "client-key-data": base64(&identity.key),
        }}],
        "contexts": [{"name": "larder", "context": {"cluster": "larder", "user": "user"}}],
        "current-context": "larder",
    });
    format!("{config:#}\n")
}
