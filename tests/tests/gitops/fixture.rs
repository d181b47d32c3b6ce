//! The tools, and objects in a form in which they can be compared.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use larder_tests::{ControlPlane, Ran, Scratch, process::run, tools::Tool};
use serde_json::{Value, json};

/// The operator's namespace.
pub const SYSTEM: &str = "larder-system";
/// The agents' namespace.
pub const AGENTS: &str = "larder-agents";

/// A file or folder of `manifests`, as an argument.
pub fn manifests(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("manifests").join(path).to_str().unwrap().to_owned()
}

/// What a tool calls the state of an object, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub status: String,
    pub message: String,
}

/// What both tools make of an object.
#[derive(Debug, Clone)]
pub struct Verdicts {
    pub kstatus: Verdict,
    pub argocd: Verdict,
}

impl Verdicts {
    fn read(line: &Value) -> Self {
        let verdict = |tool: &str| {
            let text = |field: &str| line[tool][field].as_str().unwrap().to_owned();
            Verdict { status: text("status"), message: text("message") }
        };
        Self { kstatus: verdict("kstatus"), argocd: verdict("argocd") }
    }

    /// Whether the two say the same. Argo CD counts what is being deleted as work in progress, and alone has a word for
    /// what a person has paused.
    pub fn agree(&self) -> bool {
        matches!(
            (self.kstatus.status.as_str(), self.argocd.status.as_str()),
            ("Current", "Healthy")
                | ("InProgress", "Progressing" | "Suspended")
                | ("Failed", "Degraded")
                | ("Terminating", "Progressing")
        )
    }
}

/// Runs the program that asks both tools, and gives the lines of JSON that it prints.
pub fn gitops(args: &[&str], input: &str) -> Vec<Value> {
    let ran = run(&Tool::Gitops.path().unwrap(), args, &[], input.as_bytes()).unwrap();
    let ran = ran.ok().unwrap();
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What both tools make of each of these objects.
pub fn judge<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Vec<Verdicts> {
    let mut input = String::new();
    let mut count = 0;
    for object in objects {
        input.push_str(&object.to_string());
        input.push('\n');
        count += 1;
    }
    let verdicts = gitops(&["verdicts", &manifests("argocd/resource_customizations")], &input);
    assert_eq!(verdicts.len(), count);
    verdicts.iter().map(Verdicts::read).collect()
}

/// What Argo CD's health tests ran on and came to: the file, what was expected, and what both tools say.
pub fn health_tests() -> Vec<(PathBuf, Verdict, Verdicts)> {
    let lines = gitops(&["tests", &manifests("argocd/resource_customizations")], "");
    let read = |line: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let expected = &line["expected"];
        let expected = Verdict { status: text(&expected["status"]), message: text(&expected["message"]) };
        (PathBuf::from(text(&line["file"])), expected, Verdicts::read(line))
    };
    lines.iter().map(read).collect()
}

/// The differences that Argo CD sees, without being told to ask the API server, between manifests and what is there.
pub fn argocd_sees(pairs: &[(Value, Value)]) -> Vec<Value> {
    let lines =
        pairs.iter().map(|(manifest, live)| json!({"manifest": manifest, "live": live}).to_string() + "\n");
    let seen = gitops(&["diff"], &lines.collect::<String>());
    assert_eq!(seen.len(), pairs.len());
    seen.into_iter().filter(|seen| seen["modified"] != false).collect()
}

/// Helm, with all that it keeps in a folder of the test.
pub struct Helm {
    scratch: Scratch,
    kubeconfig: PathBuf,
}

impl Helm {
    /// For a cluster; without one, for what needs none.
    pub fn new(cluster: Option<&ControlPlane>) -> Self {
        let kubeconfig =
            cluster.map_or_else(|| "/dev/null".into(), |cluster| cluster.kubeconfig().to_owned());
        Self { scratch: Scratch::new("helm").unwrap(), kubeconfig }
    }

    /// Runs it, whether it fails or not.
    pub fn try_run(&self, args: &[&str]) -> Ran {
        let folders = ["HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR"];
        let folder = self.scratch.path().as_os_str();
        let mut env: Vec<(&str, &OsStr)> = folders.map(|name| (name, folder)).to_vec();
        env.push(("KUBECONFIG", self.kubeconfig.as_os_str()));
        run(&Tool::Helm.path().unwrap(), args, &env, b"").unwrap()
    }

    /// Runs it, and it has to succeed.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.try_run(args).ok().unwrap()
    }

    /// What the chart gives with these further arguments, such as `--set`.
    pub fn template(&self, args: &[&str]) -> String {
        let chart = manifests("helm/larder");
        let common = ["template", "larder", &chart, "--namespace", SYSTEM];
        self.run(&[&common[..], args].concat()).stdout
    }
}

/// What an overlay of kustomize gives.
pub fn kustomize(cluster: &ControlPlane, folder: &str) -> String {
    cluster.kubectl(&["kustomize", &manifests(folder)]).unwrap().stdout
}

/// Objects, by kind, namespace and name.
pub type Objects = BTreeMap<String, Value>;

/// What the API server would make of these manifests: every object accepted, without a warning, and with all defaults.
/// The namespaces that they name have to be there.
pub fn dry_run(cluster: &ControlPlane, manifests: &str) -> Objects {
    let apply = ["apply", "--server-side", "--dry-run=server", "-o", "json", "-f", "-"];
    let ran = cluster.try_kubectl(&apply, manifests).unwrap().ok().unwrap();
    assert_eq!(ran.stderr, "");
    let items = match ran.json().unwrap() {
        mut list if list["kind"] == "List" => list["items"].take().as_array().unwrap().clone(),
        one => vec![one],
    };
    items.into_iter().map(|object| (name(&object), normal(object))).collect()
}

/// `Kind namespace/name`.
pub fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

/// An object without what the API server adds, and without what Helm's conventions ask for; what has no order, by name.
fn normal(mut object: Value) -> Value {
    for list in ["/spec/template/spec/volumes", "/spec/template/spec/containers/0/volumeMounts"] {
        if let Some(list) = object.pointer_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(|entry| entry["name"].to_string());
        }
    }
    let helm = [
        "app.kubernetes.io/instance",
        "app.kubernetes.io/managed-by",
        "app.kubernetes.io/version",
        "helm.sh/chart",
    ];
    let fields = object.as_object_mut().unwrap();
    fields.remove("status");
    let metadata = fields["metadata"].as_object_mut().unwrap();
    for field in ["creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"] {
        metadata.remove(field);
    }
    let mut remove = |map: &str, keys: &[&str]| {
        let Some(entries) = metadata.get_mut(map).and_then(Value::as_object_mut) else { return };
        for key in keys {
            entries.remove(*key);
        }
        if entries.is_empty() {
            metadata.remove(map);
        }
    };
    remove("labels", &helm);
    remove("annotations", &["helm.sh/resource-policy"]);
    object
}

/// The places at which two sets of objects differ, as a person would look for them.
pub fn differences(left: &Objects, right: &Objects) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &json!(left), &json!(right), &mut found);
    found
}

fn compare(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let of = |side: &serde_json::Map<String, Value>| side.get(key).cloned().unwrap_or_default();
                compare(&format!("{path}.{key}"), &of(left), &of(right), found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                compare(&format!("{path}[{index}]"), left, right, found);
            }
        }
        _ if left != right => found.push(format!("{path}: {left} ≠ {right}")),
        _ => {}
    }
}
