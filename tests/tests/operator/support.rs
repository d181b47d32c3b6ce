//! A control plane, replicas of the operator, and statuses as agents write them.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use larder_tests::{ControlPlane, Program, Scratch, larder, port::Port, until, wait::PATIENCE};
use serde_json::{Value, json};

/// The namespace of the Lease.
pub const NAMESPACE: &str = "larder-system";

/// A control plane with Larder's definitions.
pub struct Cluster {
    pub plane: ControlPlane,
    pub scratch: Scratch,
}

/// One process of the operator, with its port for probes.
pub struct Replica {
    pub program: Program,
    port: Port,
}

/// An answer over HTTP.
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: String,
}

impl Cluster {
    pub fn start() -> Self {
        let plane = ControlPlane::start().unwrap();
        plane.install_crds().unwrap();
        Self::on(plane)
    }

    /// On a control plane that knows nothing of Larder yet.
    pub fn on(plane: ControlPlane) -> Self {
        plane.kubectl(&["create", "namespace", NAMESPACE]).unwrap();
        Self { plane, scratch: Scratch::new("operator").unwrap() }
    }

    /// A replica that takes part in the election, not started yet.
    pub fn replica(&self, name: &str) -> Replica {
        self.operator(name, &["--leader-election-namespace", NAMESPACE])
    }

    /// An operator that is alone, not started yet.
    pub fn alone(&self) -> Replica {
        self.operator("alone", &["--leader-elect=false"])
    }

    fn operator(&self, name: &str, args: &[&str]) -> Replica {
        let folder: PathBuf = self.scratch.folder(name).unwrap();
        let port = Port::free().unwrap();
        let program = larder::operator(self.plane.kubeconfig(), &folder).unwrap();
        Replica { program: program.args(args).args(["--listen", &port.host()]), port }
    }

    pub fn apply(&self, name: &str, spec: &Value) {
        let object = json!({"apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
            "metadata": {"name": name}, "spec": spec});
        self.plane.apply(&object.to_string()).unwrap();
    }

    /// Waits until something is true of an object.
    pub fn wait(&self, object: &[&str], what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = until(&format!("{object:?}: {what}"), PATIENCE, || {
            last = self.plane.get(object).ok()?;
            is(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|error| panic!("{error}\n{last:#}"))
    }

    /// Waits until the ImageCache's Ready condition has this reason, for its present generation.
    pub fn wait_reason(&self, name: &str, reason: &str) -> Value {
        self.wait(&["imagecache", name], reason, |object| {
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned();
            let ready = ready.unwrap_or_default();
            ready["reason"] == reason && ready["observedGeneration"] == object["metadata"]["generation"]
        })
    }

    /// Waits until a node has been told to hold just these images.
    pub fn wait_told(&self, node: &str, images: &[&str]) -> Value {
        self.wait(&["nodeimagecache", node], &format!("to hold {images:?}"), |object| {
            let told = object["spec"]["images"].as_array().cloned().unwrap_or_default();
            told.iter().map(|image| image["image"].as_str().unwrap_or_default()).eq(images.iter().copied())
        })
    }

    /// Reports as the node's agent would: that it has taken the specification up, and how each image stands.
    pub fn report(&self, node: &str, images: &Value) {
        let object = self.plane.get(&["nodeimagecache", node]).unwrap();
        let status = json!({
            "observedGeneration": object["metadata"]["generation"],
            "agent": {"version": "0.1.0", "platform": "linux/amd64"},
            "images": images,
        });
        self.patch_status(node, &status);
    }

    /// Writes a part of what the node's agent says.
    pub fn patch_status(&self, node: &str, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        let args = ["patch", "nodeimagecache", node, "--subresource=status", "--type=merge", "-p", &patch];
        self.plane.kubectl(&args).unwrap();
    }

    /// The Lease's specification.
    pub fn lease(&self) -> Value {
        self.plane.get(&["lease", "larder-operator", "--namespace", NAMESPACE]).unwrap()["spec"].clone()
    }
}

impl Replica {
    /// Asks over HTTP; nothing where it does not answer.
    pub fn ask(&self, path: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.port.host()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { code, head: head.to_lowercase(), body: body.to_owned() })
    }

    /// Waits until `/readyz` answers this.
    pub fn wait_ready(&self, code: u16, word: &str) {
        let mut last = String::new();
        let found = until(&format!("/readyz to answer {code} {word}"), PATIENCE, || {
            self.program.ensure_running().unwrap();
            let answer = self.ask("/readyz")?;
            last.clone_from(&answer.body);
            (answer.code == code && answer.body.trim() == word).then_some(())
        });
        found.unwrap_or_else(|error| panic!("{error}; the last answer was {last:?}"));
    }

    /// The port on which it answers.
    pub fn host(&self) -> String {
        self.port.host()
    }

    /// What `/readyz` says, in a word.
    pub fn readiness(&self) -> String {
        self.ask("/readyz").map(|answer| answer.body.trim().to_owned()).unwrap_or_default()
    }

    /// The value of one series, as `name{label="value"}`; nothing where it is not there.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.ask("/metrics")?.body;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a series has this value.
    pub fn wait_metric(&self, series: &str, value: f64) {
        let mut last = None;
        let found = until(&format!("{series} to be {value}"), PATIENCE, || {
            last = self.metric(series);
            last.is_some_and(|last| (last - value).abs() < 0.001).then_some(())
        });
        found.unwrap_or_else(|error| panic!("{error}; it is {last:?}"));
    }

    /// How many lines of its log contain `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.program.log().unwrap().lines().filter(|line| line.contains(text)).count()
    }
}

/// A specification with just these images, on every node with the label `pool`.
pub fn images(pool: &str, images: &[&str]) -> Value {
    let images: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
    json!({"nodeSelector": {"matchLabels": {"pool": pool}}, "images": images})
}

/// An image as an agent that has it reports it.
pub fn ready(image: &str, size: u64) -> Value {
    json!({"image": image, "state": "Ready", "size": size, "bytesPresent": size,
        "digest": format!("sha256:{}", "1".repeat(64))})
}

/// An image as an agent reports it that could not get it.
pub fn failed(image: &str, reason: &str, message: &str) -> Value {
    json!({"image": image, "state": "Failed", "reason": reason, "message": message})
}
