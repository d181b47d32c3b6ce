//! `kubectl`, as tests use it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{Ran, run};
use crate::tools::Tool;
use crate::wait::{PATIENCE, until};
use crate::{Error, Result};

/// `kubectl` with a kubeconfig, and a cache folder that is not the user's.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// With this kubeconfig. `folder` is where its cache will be.
    pub fn new(kubeconfig: &Path, folder: &Path) -> Result<Self> {
        Ok(Self {
            program: Tool::Kubectl.path()?,
            kubeconfig: kubeconfig.to_owned(),
            cache: folder.join("kubectl-cache"),
        })
    }

    /// The kubeconfig. Those of the harness are self-contained, mode 0600.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The `kubectl` that fits.
    #[must_use]
    pub fn kubectl_program(&self) -> &Path {
        &self.program
    }

    /// Runs kubectl. A failure of kubectl is an error, with what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<Ran> {
        self.try_kubectl(args, "")?.ok()
    }

    /// Runs kubectl and gives what it printed, whether it failed or not.
    pub fn try_kubectl(&self, args: &[&str], input: &str) -> Result<Ran> {
        let env: [(&str, &OsStr); 2] =
            [("KUBECONFIG", self.kubeconfig.as_os_str()), ("KUBECACHEDIR", self.cache.as_os_str())];
        run(&self.program, args, &env, input.as_bytes())
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
}
