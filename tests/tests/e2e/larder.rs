//! Larder on the shared cluster, installed as its users install it, and what scenarios ask of it.

use std::path::Path;

use larder_tests::{
    Cluster, Image, Kubectl, Layer, Node, Pushed, Ran, Registry, Scratch,
    kubernetes::images::busybox,
    larder::{OwnImage, binary, images},
    until,
    wait::PATIENCE,
};
use serde_json::{Value, json};

/// The agents' namespace.
pub const AGENTS: &str = "larder-agents";
/// The operator's namespace.
pub const SYSTEM: &str = "larder-system";

/// Larder's own part of the shared cluster.
pub struct Larder {
    kubectl: Kubectl,
    images: [OwnImage; 2],
}

impl Larder {
    /// Installs it, and waits until every node's agent has reported. The images come to the nodes by `larder load` and
    /// `larder deliver`; all else is `kubectl apply -k manifests/base` as it stands, and the registry's login.
    pub fn install(cluster: &Cluster, registry: &Registry) -> Self {
        // It is never dropped, and goes with the cluster's folder.
        let folder = cluster.folder().unwrap().join("images");
        std::fs::create_dir(&folder).unwrap();
        // As the base names them.
        let tag = format!("v{}", env!("CARGO_PKG_VERSION"));
        let images = images(&folder, "ghcr.io/larder-dev", &tag).unwrap();
        let larder = Self { kubectl: Kubectl::clone(cluster), images };
        for node in cluster.nodes() {
            larder.bring_to(&node);
        }
        // Before the agents, which are told of a later change only when kubelet gets round to it.
        larder.kubectl.kubectl(&["apply", "-f", &manifests("base/namespaces.yaml")]).unwrap();
        larder.create_logins(&registry.docker_config());
        larder.kubectl.kubectl(&["apply", "-k", &manifests("base")]).unwrap();
        larder.wait_rolled_out();
        for node in cluster.nodes() {
            larder.wait_reported(node.name());
        }
        larder
    }

    /// Brings the images of operator and agent to a node, which cannot pull them from anywhere.
    pub fn bring_to(&self, node: &Node) {
        for image in &self.images {
            larder_on(node, &["load", "--quiet", "--input", text(&image.archive)]).ok().unwrap();
            larder_on(node, &["deliver", "--pin", &image.name]).ok().unwrap();
        }
    }

    /// The names of Larder's own images.
    pub fn own_images(&self) -> [&str; 2] {
        [&self.images[0].name, &self.images[1].name]
    }

    /// Waits until the operator and all agents are there.
    pub fn wait_rolled_out(&self) {
        for (namespace, program) in
            [(SYSTEM, "deployment/larder-operator"), (AGENTS, "daemonset/larder-agent")]
        {
            let status = ["rollout", "status", "--namespace", namespace, program, "--timeout=180s"];
            if let Err(error) = self.kubectl.kubectl(&status) {
                panic!("{error}\n{}", self.describe());
            }
        }
    }

    /// Waits until a node's agent has written its status.
    pub fn wait_reported(&self, node: &str) {
        let reported = until(&format!("the agent on {node} to report"), PATIENCE, || {
            self.node(node)?["status"]["agent"]["runtime"].as_str().map(drop)
        });
        reported.unwrap_or_else(|error| panic!("{error}\n{}", self.describe()));
    }

    /// A node's `NodeImageCache`, if there is one.
    pub fn node(&self, node: &str) -> Option<Value> {
        self.kubectl.get(&["nodeimagecache", node]).ok()
    }

    /// What a node's agent says of an image, if anything.
    pub fn image_on(&self, node: &str, image: &str) -> Option<Value> {
        let images = self.node(node)?["status"]["images"].as_array()?.clone();
        images.into_iter().find(|found| found["image"] == image)
    }

    /// The agent's pod on a node, once there is one.
    pub fn agent_pod(&self, node: &str) -> Option<Value> {
        let on_node = format!("--field-selector=spec.nodeName={node}");
        let agents = "--selector=app.kubernetes.io/component=agent";
        let pods = self.kubectl.get(&["pods", "--namespace", AGENTS, &on_node, agents]).ok()?;
        pods["items"].as_array()?.iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned()
    }

    /// What the agent on a node has logged.
    pub fn agent_log(&self, node: &str) -> String {
        let pod = self.agent_pod(node).unwrap();
        let name = pod["metadata"]["name"].as_str().unwrap();
        self.kubectl.kubectl(&["logs", "--namespace", AGENTS, name]).unwrap().stdout
    }

    /// The events about an object, by reason, with their notes.
    pub fn events(&self, kind: &str, name: &str) -> Vec<(String, String)> {
        let about = format!("--field-selector=involvedObject.kind={kind},involvedObject.name={name}");
        let events = self.kubectl.get(&["events", "--namespace=default", &about]).unwrap();
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let events = events["items"].as_array().unwrap().iter();
        events.map(|event| (text(event, "reason"), text(event, "message"))).collect()
    }

    /// Replaces the logins of registries. Agents that run are told of it when kubelet gets round to it.
    fn create_logins(&self, config: &str) {
        let scratch = Scratch::new("logins").unwrap();
        let file = scratch.write("config.json", config).unwrap();
        let from = format!("--from-file=.dockerconfigjson={}", text(&file));
        let create = ["create", "secret", "generic", "larder-registry-logins", "--namespace", AGENTS];
        let kind = ["--type=kubernetes.io/dockerconfigjson", &from];
        self.kubectl.kubectl(&[&create[..], &kind].concat()).unwrap();
    }

    /// For a person to read, when something did not come.
    pub fn describe(&self) -> String {
        let mut all = String::new();
        for args in [
            &["get", "imagecaches,nodeimagecaches", "--output=yaml"][..],
            &["describe", "pods", "--namespace", SYSTEM],
            &["describe", "pods", "--namespace", AGENTS],
            &["logs", "--namespace", SYSTEM, "--selector=app.kubernetes.io/component=operator", "--tail=50"],
            &["logs", "--namespace", AGENTS, "--selector=app.kubernetes.io/component=agent", "--tail=50"],
        ] {
            let ran = self.kubectl.try_kubectl(args, "").unwrap();
            all.extend(["\n# kubectl ", &args.join(" "), "\n", &ran.stdout, &ran.stderr]);
        }
        all
    }
}

/// An `ImageCache`. Dropping it deletes it, and does not wait for that.
pub struct ImageCache {
    kubectl: Kubectl,
    name: String,
    /// All of its `spec` but the images.
    spec: Value,
}

impl ImageCache {
    /// For every node.
    pub fn apply(kubectl: &Kubectl, name: &str, images: &[&str]) -> Self {
        Self::with_spec(kubectl, name, json!({}), images)
    }

    /// For the nodes of these labels.
    pub fn apply_to(kubectl: &Kubectl, name: &str, labels: &Value, images: &[&str]) -> Self {
        Self::with_spec(kubectl, name, json!({"nodeSelector": {"matchLabels": labels}}), images)
    }

    /// The same, with the deletion policy `Retain`.
    pub fn retaining(kubectl: &Kubectl, name: &str, labels: &Value, images: &[&str]) -> Self {
        let spec = json!({"nodeSelector": {"matchLabels": labels}, "deletionPolicy": "Retain"});
        Self::with_spec(kubectl, name, spec, images)
    }

    /// With all of its `spec` but the images.
    pub fn with_spec(kubectl: &Kubectl, name: &str, spec: Value, images: &[&str]) -> Self {
        let cache = Self { kubectl: kubectl.clone(), name: name.to_owned(), spec };
        cache.edit(images);
        cache
    }

    /// For one node.
    pub fn apply_on(kubectl: &Kubectl, name: &str, node: &str, images: &[&str]) -> Self {
        Self::apply_to(kubectl, name, &json!({"kubernetes.io/hostname": node}), images)
    }

    /// For every node, with entries of `images` as they are written.
    pub fn apply_images(kubectl: &Kubectl, name: &str, images: Value) -> Self {
        let cache = Self { kubectl: kubectl.clone(), name: name.to_owned(), spec: json!({}) };
        cache.edit_images(images);
        cache
    }

    /// Names other images.
    pub fn edit(&self, images: &[&str]) {
        self.edit_images(images.iter().map(|image| json!({"image": image})).collect());
    }

    /// The same, with entries as they are written.
    pub fn edit_images(&self, images: Value) {
        let mut spec = self.spec.clone();
        spec["images"] = images;
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
            "metadata": {"name": self.name}, "spec": spec,
        });
        self.kubectl.apply(&object.to_string()).unwrap();
    }

    /// `kubectl wait --for=condition=Ready`.
    pub fn wait_ready(&self, larder: &Larder) {
        let object = format!("imagecache/{}", self.name);
        let waited = self.kubectl.kubectl(&["wait", "--for=condition=Ready", &object, "--timeout=180s"]);
        waited.unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
    }

    /// The object.
    pub fn get(&self) -> Value {
        self.kubectl.get(&["imagecache", &self.name]).unwrap()
    }

    /// `kubectl delete`.
    pub fn delete(self) {
        self.kubectl.kubectl(&["delete", "imagecache", &self.name]).unwrap();
    }
}

impl Drop for ImageCache {
    fn drop(&mut self) {
        let delete = ["delete", "imagecache", &self.name, "--wait=false", "--ignore-not-found"];
        self.kubectl.try_kubectl(&delete, "").ok();
    }
}

/// Runs `larder` on a node, as its administrator does.
pub fn larder_on(node: &Node, args: &[&str]) -> Ran {
    node.machine().run(&binary("larder").unwrap(), args, b"").unwrap()
}

/// The image that kubelet finds on a node under a name, if it finds one: an entry of `crictl images --output json`.
pub fn runtime_image(node: &Node, name: &str) -> Option<Value> {
    let images = node.images().unwrap();
    let has = |image: &Value, field: &str| {
        image[field].as_array().is_some_and(|names| names.iter().any(|found| found == name))
    };
    images.into_iter().find(|image| has(image, "repoTags") || has(image, "repoDigests"))
}

/// The names in a node's layer store.
pub fn stored(node: &Node) -> Vec<String> {
    let listed = larder_on(node, &["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().unwrap();
    listed.stdout.lines().map(str::to_owned).collect()
}

/// An image that pods can run, with two layers of its own, pushed to a registry. Other seeds make other images.
pub fn push(registry: &Registry, repository: &str, seed: u64) -> Pushed {
    registry.push(&image(seed), repository, "v1").unwrap()
}

/// The same, not pushed.
pub fn image(seed: u64) -> Image {
    busybox(&[Layer::random(seed, 900_000).unwrap(), Layer::random(seed + 1, 40_000).unwrap()]).unwrap()
}

/// A file or folder of `manifests`, as an argument.
pub fn manifests(place: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    text(&root.join("manifests").join(place)).to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
