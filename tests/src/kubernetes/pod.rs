//! Pods, as a test wants them.

use serde_json::{Value, json};

use super::images::BUSYBOX;
use crate::process::Ran;
use crate::wait::{PATIENCE, until};
use crate::{Error, Kubectl, Result};

/// A pod to be: one container that sleeps, unless told otherwise.
#[derive(Debug, Clone)]
pub struct PodOptions {
    name: String,
    image: String,
    command: Vec<String>,
    pull_policy: &'static str,
    node: Option<String>,
    pull_secret: Option<String>,
    spec: Value,
}

impl PodOptions {
    /// A pod in the namespace `default`, with busybox, which every node of a [`Cluster`](super::Cluster) has. No image is
    /// pulled: see [`Self::pull_policy`].
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: BUSYBOX.to_owned(),
            command: ["/bin/sleep", "2147483647"].map(str::to_owned).to_vec(),
            pull_policy: "Never",
            node: None,
            pull_secret: None,
            spec: json!({}),
        }
    }

    /// Another image. Its containers need `/bin/sleep` unless they get a command too:
    /// [`busybox`](super::images::busybox) makes such.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        image.clone_into(&mut self.image);
        self
    }

    /// What the container runs.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// `Never`, `IfNotPresent` or `Always`.
    #[must_use]
    pub fn pull_policy(mut self, policy: &'static str) -> Self {
        self.pull_policy = policy;
        self
    }

    /// The node that it has to run on.
    #[must_use]
    pub fn node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// The name of a Secret with the login of the image's registry.
    #[must_use]
    pub fn pull_secret(mut self, name: &str) -> Self {
        self.pull_secret = Some(name.to_owned());
        self
    }

    /// Further fields of the pod's `spec`. Those given here come instead of what there would be.
    #[must_use]
    pub fn spec(mut self, spec: Value) -> Self {
        self.spec = spec;
        self
    }

    fn manifest(&self) -> Value {
        let mut spec = json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": self.image,
                "imagePullPolicy": self.pull_policy,
                "command": self.command,
            }],
        });
        if let Some(node) = &self.node {
            spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        }
        if let Some(secret) = &self.pull_secret {
            spec["imagePullSecrets"] = json!([{"name": secret}]);
        }
        for (key, value) in self.spec.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name}, "spec": spec})
    }
}

/// A pod. Dropping it deletes it, and does not wait for that.
#[derive(Debug)]
pub struct Pod {
    kubectl: Kubectl,
    name: String,
}

impl Pod {
    /// Creates it.
    pub fn create(kubectl: &Kubectl, options: &PodOptions) -> Result<Self> {
        kubectl.try_kubectl(&["create", "-f", "-"], &options.manifest().to_string())?.ok()?;
        Ok(Self { kubectl: kubectl.clone(), name: options.name.clone() })
    }

    /// Creates it and waits until it runs.
    pub fn start(kubectl: &Kubectl, options: &PodOptions) -> Result<Self> {
        let pod = Self::create(kubectl, options)?;
        pod.wait_phase("Running")?;
        Ok(pod)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The object.
    pub fn get(&self) -> Result<Value> {
        self.kubectl.get(&["pod", &self.name])
    }

    /// The node that it is on.
    pub fn node(&self) -> Result<String> {
        Ok(self.get()?["spec"]["nodeName"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until it is `Running`, `Succeeded` or `Failed`. In vain when it ends otherwise.
    pub fn wait_phase(&self, wanted: &str) -> Result<()> {
        let outcome = until(&format!("pod {} to be {wanted}", self.name), PATIENCE, || {
            let pod = self.get().ok()?;
            match pod["status"]["phase"].as_str()? {
                phase if phase == wanted => Some(Ok(())),
                phase @ ("Failed" | "Succeeded") => {
                    Some(Err(Error::Data { what: "pod", problem: format!("it has {phase}") }))
                }
                _ => None,
            }
        });
        outcome.and_then(|ended| ended).map_err(|error| {
            let problem = format!("{error}\n{}", self.describe());
            Error::Data { what: "pod", problem }
        })
    }

    /// Waits until its container waits for this reason, such as `ErrImageNeverPull`, and gives the message.
    pub fn wait_reason(&self, reason: &str) -> Result<String> {
        until(&format!("pod {} to wait because of {reason}", self.name), PATIENCE, || {
            let pod = self.get().ok()?;
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            (waiting["reason"] == reason).then(|| waiting["message"].as_str().unwrap_or_default().to_owned())
        })
    }

    /// What it has printed.
    pub fn logs(&self) -> Result<String> {
        Ok(self.kubectl.kubectl(&["logs", &self.name])?.stdout)
    }

    /// Runs a command in its container.
    pub fn exec(&self, command: &[&str]) -> Result<Ran> {
        self.kubectl.kubectl(&[&["exec", &self.name, "--"], command].concat())
    }

    /// Deletes it and waits until it is gone.
    pub fn delete(self) -> Result<()> {
        self.kubectl.kubectl(&["delete", "pod", &self.name, "--now"]).map(drop)
    }

    /// `kubectl describe`, for a person to read.
    #[must_use]
    pub fn describe(&self) -> String {
        let described = self.kubectl.try_kubectl(&["describe", "pod", &self.name], "");
        described.map_or_else(|error| error.to_string(), |ran| ran.stdout)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let delete = ["delete", "pod", &self.name, "--now", "--wait=false", "--ignore-not-found"];
        self.kubectl.try_kubectl(&delete, "").ok();
    }
}
