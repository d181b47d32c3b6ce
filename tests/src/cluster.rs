//! A Kubernetes control plane on loopback: etcd and kube-apiserver. Needs no root.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

use crate::certificates::{Authority, Identity};
use crate::port::Port;
use crate::process::{Program, Ran, run};
use crate::runtime::block_on;
use crate::tools::Tool;
use crate::wait::{PATIENCE, until};
use crate::{Error, Result, Scratch};

/// Who a kubeconfig stands for.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// May do everything.
    Admin,
    /// A user that RBAC knows nothing of yet.
    User(&'a str),
}

/// etcd and kube-apiserver, running. Dropping it ends both.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: the API server before its database, files last.
    apiserver: Program,
    etcd: Program,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    authority: Authority,
    port: Port,
    _etcd_ports: [Port; 2],
    scratch: Scratch,
}

impl ControlPlane {
    /// Starts both and waits until the API server is ready: about three seconds on an idle machine.
    pub fn start() -> Result<Self> {
        // Ports are reserved among harnesses; a foreign program may still get in between.
        let mut attempts = 0;
        loop {
            attempts += 1;
            match Self::start_once() {
                Err(Error::Ended { tail, .. }) if attempts < 5 && tail.contains("address already in use") => {
                }
                other => return other,
            }
        }
    }

    fn start_once() -> Result<Self> {
        let scratch = Scratch::new("cluster")?;
        let authority = Authority::new("larder-tests")?;
        let port = Port::free()?;
        let etcd_ports = [Port::free()?, Port::free()?];
        let etcd = etcd(&scratch, &etcd_ports)?;
        let apiserver = apiserver(&scratch, &authority, &port, &etcd_ports[0])?;
        let admin = authority.client("admin", Some("system:masters"))?;
        let kubeconfig = scratch.write("admin.kubeconfig", kubeconfig(&port, &authority, &admin))?;
        let plane = Self {
            apiserver,
            etcd,
            kubectl: Tool::Kubectl.path()?,
            kubeconfig,
            authority,
            port,
            _etcd_ports: etcd_ports,
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
        let url = format!("{}/readyz", self.url());
        let ca = self.authority.pem().to_owned();
        let client = block_on(async move {
            let ca = reqwest::Certificate::from_pem(ca.as_bytes()).map_err(Error::data("CA certificate"))?;
            reqwest::Client::builder()
                .no_proxy()
                .tls_certs_only([ca])
                .timeout(Duration::from_secs(5))
                .build()
                .map_err(Error::data("HTTP client"))
        })?;
        self.apiserver.start_until("kube-apiserver to be ready", || {
            let request = client.get(&url);
            let answer =
                block_on(async move { Ok(request.send().await.is_ok_and(|r| r.status().is_success())) });
            answer.unwrap_or(false)
        })?;
        self.etcd.ensure_running()
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.port.host())
    }

    /// The administrator's kubeconfig, self-contained, mode 0600.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Writes a further kubeconfig.
    pub fn kubeconfig_for(&self, access: Access<'_>) -> Result<PathBuf> {
        match access {
            Access::Admin => Ok(self.kubeconfig.clone()),
            Access::User(user) => {
                let identity = self.authority.client(user, None)?;
                let name = format!("{}.kubeconfig", user.replace([':', '/'], "-"));
                self.scratch.write(&name, kubeconfig(&self.port, &self.authority, &identity))
            }
        }
    }

    /// A folder that lasts as long as the control plane, for the logs of what works with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// The `kubectl` that fits.
    #[must_use]
    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    /// Runs kubectl as the administrator. A failure of kubectl is an error, with what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<Ran> {
        self.try_kubectl(args, "")?.ok()
    }

    /// Runs kubectl and gives what it printed, whether it failed or not.
    pub fn try_kubectl(&self, args: &[&str], input: &str) -> Result<Ran> {
        let cache = self.scratch.path().join("kubectl-cache");
        let env: [(&str, &OsStr); 2] =
            [("KUBECONFIG", self.kubeconfig.as_os_str()), ("KUBECACHEDIR", cache.as_os_str())];
        run(&self.kubectl, args, &env, input.as_bytes())
    }

    /// `kubectl get ARGS -o json`, parsed.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        self.kubectl(&[&["get"], args, &["-o", "json"]].concat())?.json()
    }

    /// `kubectl apply` of YAML or JSON text.
    pub fn apply(&self, text: &str) -> Result<Ran> {
        self.try_kubectl(&["apply", "-f", "-"], text)?.ok()
    }

    /// Installs Larder's resource definitions and waits until the API server serves and explains them. Gives
    /// what `kubectl apply` printed: the API server's warnings are on its standard error.
    pub fn install_crds(&self) -> Result<Ran> {
        let definitions = larder_crds::definitions();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": definitions});
        let applied = self.try_kubectl(&["apply", "--server-side", "-f", "-"], &list.to_string())?.ok()?;
        let names: Vec<String> = definitions
            .iter()
            .filter_map(|definition| definition.metadata.name.as_deref())
            .map(|name| format!("customresourcedefinition/{name}"))
            .collect();
        let mut wait = vec!["wait", "--for=condition=Established", "--timeout=120s"];
        wait.extend(names.iter().map(String::as_str));
        self.kubectl(&wait)?;
        // Established comes first; the paths and the OpenAPI document follow a moment later.
        let group = larder_crds::GROUP;
        until("the API server to publish the schemas", PATIENCE, || {
            let document =
                self.kubectl(&["get", "--raw", &format!("/openapi/v3/apis/{group}/v1alpha1")]).ok()?;
            definitions
                .iter()
                .all(|d| document.stdout.contains(&format!("\"{}\"", d.spec.names.kind)))
                .then_some(())
        })?;
        // The first request for a kind takes a second, in which the API server sets its cache up: both at once.
        std::thread::scope(|scope| {
            let probes = definitions.each_ref().map(|definition| {
                let path = format!("/apis/{group}/v1alpha1/{}", definition.spec.names.plural);
                scope.spawn(move || {
                    until("the API server to serve a definition", PATIENCE, || {
                        self.kubectl(&["get", "--raw", &path]).ok().map(drop)
                    })
                })
            });
            probes.into_iter().try_for_each(|probe| {
                probe
                    .join()
                    .map_err(|_| Error::Data { what: "definitions", problem: "a probe panicked".into() })?
            })
        })?;
        Ok(applied)
    }

    /// Creates a Node object. No kubelet stands behind it.
    pub fn create_node(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        self.try_kubectl(&["create", "-f", "-"], &node.to_string())?.ok().map(drop)
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
fn kubeconfig(port: &Port, authority: &Authority, identity: &Identity) -> String {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "larder", "cluster": {
            "server": format!("https://{}", port.host()),
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
