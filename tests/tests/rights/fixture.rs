//! A control plane with `manifests/base` on it, and the identities that it gives.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use larder_tests::{ControlPlane, Ran, Scratch, process, until, wait::PATIENCE};
use serde_json::{Value, json};

/// The agents' namespace.
pub const AGENTS: &str = "larder-agents";
/// The operator's namespace.
pub const SYSTEM: &str = "larder-system";

/// A folder of `manifests`, as an argument.
pub fn manifests(folder: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("manifests").join(folder).to_str().unwrap().to_owned()
}

/// Larder's objects, installed.
pub struct Installed {
    pub cluster: ControlPlane,
    pub scratch: Scratch,
}

impl Installed {
    /// Installs the base, with two Nodes and their `NodeImageCache`s, and waits until the policies are in force.
    pub fn start() -> Self {
        let installed = Self::without_nodes();
        for node in ["n1", "n2"] {
            installed.cluster.create_node(node, &[]).unwrap();
            let create = ["create", "-f", "-"];
            let object = node_image_cache(node).to_string();
            installed.cluster.try_kubectl(&create, &object).unwrap().ok().unwrap();
        }
        let nameless = installed.agent(None);
        for (what, arguments, object) in [
            ("status", APPLY_STATUS, status("n1", "probe")),
            ("events", &["create", "--dry-run=server", "-f", "-"] as &[&str], event("probe", "n1")),
        ] {
            until(&format!("the policy on {what} to be in force"), PATIENCE, || {
                let ran = nameless.try_kubectl(arguments, &object);
                ran.stderr.contains("names no node").then_some(())
            })
            .unwrap();
        }
        installed
    }

    /// Installs the base alone.
    pub fn without_nodes() -> Self {
        let cluster = ControlPlane::start().unwrap();
        cluster.install_crds().unwrap();
        cluster.kubectl(&["apply", "--server-side", "-k", &manifests("base")]).unwrap();
        Self { cluster, scratch: Scratch::new("rights").unwrap() }
    }

    /// An agent, with the token that its pod on `node` gets; without a node, with one that is bound to no pod.
    pub fn agent(&self, node: Option<&str>) -> Identity<'_> {
        let Some(node) = node else {
            return self.identity("agent-nowhere", AGENTS, "larder-agent", &[]);
        };
        let name = format!("agent-on-{node}");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": AGENTS},
            "spec": {
                "nodeName": node,
                "serviceAccountName": "larder-agent",
                "containers": [{"name": "agent", "image": "larder-agent"}],
            },
        });
        self.cluster.apply(&pod.to_string()).unwrap();
        let uid = self.uid(&["pod", &name, "--namespace", AGENTS]);
        let bound = ["--bound-object-kind=Pod", &format!("--bound-object-name={name}"), &uid];
        self.identity(&name, AGENTS, "larder-agent", &bound)
    }

    /// The same with a token that is bound to the node itself.
    pub fn agent_bound_to_node(&self, node: &str) -> Identity<'_> {
        let uid = self.uid(&["node", node]);
        let bound = ["--bound-object-kind=Node", &format!("--bound-object-name={node}"), &uid];
        self.identity(&format!("agent-of-{node}"), AGENTS, "larder-agent", &bound)
    }

    /// The operator.
    pub fn operator(&self) -> Identity<'_> {
        self.identity("operator", SYSTEM, "larder-operator", &[])
    }

    /// Whoever has a token of this service account. `more` are arguments of `kubectl create token`.
    pub fn identity(&self, name: &str, namespace: &str, account: &str, more: &[&str]) -> Identity<'_> {
        let arguments = [&["create", "token", account, "--namespace", namespace], more].concat();
        let token = self.cluster.kubectl(&arguments).unwrap().stdout;
        let admin = std::fs::read(self.cluster.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_slice(&admin).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let kubeconfig = self.scratch.write(&format!("{name}.kubeconfig"), config.to_string()).unwrap();
        Identity { cluster: &self.cluster, kubeconfig }
    }

    fn uid(&self, object: &[&str]) -> String {
        let object = self.cluster.get(object).unwrap();
        format!("--bound-object-uid={}", object["metadata"]["uid"].as_str().unwrap())
    }
}

/// Somebody who talks to the API server.
pub struct Identity<'a> {
    cluster: &'a ControlPlane,
    pub kubeconfig: PathBuf,
}

impl Identity<'_> {
    /// Runs kubectl, whether it fails or not. `input`, if it is an object, goes to standard input.
    pub fn try_kubectl(&self, arguments: &[&str], input: &Value) -> Ran {
        let cache = self.cluster.folder().join("kubectl-cache");
        let env: [(&str, &OsStr); 2] =
            [("KUBECONFIG", self.kubeconfig.as_os_str()), ("KUBECACHEDIR", cache.as_os_str())];
        let input = if input.is_null() { String::new() } else { input.to_string() };
        process::run(self.cluster.kubectl_program(), arguments, &env, input.as_bytes()).unwrap()
    }

    /// Runs kubectl, which has to succeed.
    pub fn may(&self, arguments: &[&str], input: &Value) -> Ran {
        self.try_kubectl(arguments, input).ok().unwrap()
    }

    /// Runs kubectl, which has to be told that it may not, and why.
    pub fn may_not(&self, arguments: &[&str], input: &Value, why: &str) {
        let ran = self.try_kubectl(arguments, input);
        assert!(!ran.status.success(), "{} was allowed: {}", ran.command, ran.stdout);
        assert!(ran.stderr.contains("(Forbidden)") || ran.stderr.contains("forbidden"), "{}", ran.stderr);
        assert!(ran.stderr.contains(why), "{}: {:?} is not in {}", ran.command, why, ran.stderr);
    }
}

/// How an agent writes a status (`agent/src/cluster.rs`), said with kubectl.
pub const APPLY_STATUS: &[&str] = &[
    "apply",
    "--server-side",
    "--force-conflicts",
    "--field-manager=larder-agent",
    "--subresource=status",
    "-f",
    "-",
];

/// A status for a node, told by its agent's version.
pub fn status(node: &str, version: &str) -> Value {
    json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCache", "metadata": {"name": node},
        "status": {"agent": {"version": version, "platform": "linux/amd64"}},
    })
}

/// The `NodeImageCache` of a node, as the operator makes it.
pub fn node_image_cache(node: &str) -> Value {
    json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCache",
        "metadata": {"name": node}, "spec": {"images": []},
    })
}

/// An event on a node's `NodeImageCache`, as an agent writes it.
pub fn event(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Normal", "reason": "Pulled", "action": "Pull", "note": "an image is here",
        "reportingController": "larder-agent", "reportingInstance": node,
        "regarding": {"apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCache", "name": node},
    })
}
