//! One round: two new images, an ImageCache that asks for them, and what must be true in the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use larder_tests::registry::Mark;
use larder_tests::wait::PATIENCE;
use larder_tests::{Image, Layer, until};
use serde_json::{Value, json};

use super::stage::{NODES, Stage, held};

/// What a round works on.
pub struct Round {
    /// The ImageCache's name.
    pub name: String,
    /// Where it is in the API.
    pub path: String,
    /// Of the rounds of one fault, which this is; a seed says where they begin.
    pub turn: usize,
    /// By their names.
    pub images: BTreeMap<String, Image>,
    mark: Mark,
}

impl Round {
    /// Pushes images that nobody has seen before. They share a layer.
    pub fn new(stage: &Stage, number: usize, turn: usize) -> anyhow::Result<Self> {
        let name = format!("round-{number}");
        let seed = fastrand::u64(..);
        let mut images = BTreeMap::new();
        for (place, title) in ["a", "b"].into_iter().enumerate() {
            let layers = [(seed, 300_000), (seed.wrapping_add(1 + place as u64), 100_000)];
            let mut builder = Image::builder().label("title", title);
            for (seed, size) in layers {
                builder = builder.layer(&Layer::random(seed, size)?);
            }
            let image = builder.build()?;
            let pushed = stage.registry.push(&image, &format!("{name}/{title}"), "v1")?;
            images.insert(pushed.name, image);
        }
        let path = format!("/apis/larder.dev/v1alpha1/imagecaches/{name}");
        Ok(Self { name, path, turn, images, mark: stage.registry.mark()? })
    }

    /// Asks for the first image alone.
    pub fn ask_for_one(&self, stage: &Stage) -> anyhow::Result<()> {
        self.apply(stage, 1)
    }

    /// Asks for all images.
    pub fn ask_for_all(&self, stage: &Stage) -> anyhow::Result<()> {
        self.apply(stage, self.images.len())
    }

    /// Waits until the first image is ready on all nodes.
    pub fn one_is_ready(&self, stage: &Stage) -> anyhow::Result<()> {
        let is_it = || stage.api.get(&self.path).ok().flatten().filter(is_ready).map(drop);
        Ok(until("the first image to be ready", PATIENCE, is_it)?)
    }

    /// As kubectl would, which fails when the API server is away; so again until it works.
    fn apply(&self, stage: &Stage, number: usize) -> anyhow::Result<()> {
        let images: Vec<Value> = self.images.keys().take(number).map(|name| json!({"image": name})).collect();
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1",
            "kind": "ImageCache",
            "metadata": {"name": self.name},
            "spec": {"nodeSelector": {"matchLabels": {"pool": "web"}}, "images": images},
        });
        let mut last = None;
        let applied = until("kubectl apply to work", PATIENCE, || {
            stage.plane.apply(&object.to_string()).map_err(|error| last = Some(error)).ok().map(drop)
        });
        applied.with_context(|| last.map(|error| error.to_string()).unwrap_or_default())
    }

    /// Waits until it is ready on all nodes, by its status and in truth, and checks what it took.
    pub fn converge(&self, stage: &Stage, limit: Duration) -> anyhow::Result<()> {
        let mut last = Value::Null;
        let ready = until(&format!("{} to be ready on all nodes", self.name), limit, || {
            last = stage.api.get(&self.path).ok()??;
            (is_ready(&last) && last["status"]["nodes"]["ready"] == NODES.len()).then_some(())
        });
        if let Err(error) = ready {
            let nodes = stage.api.get("/apis/larder.dev/v1alpha1/nodeimagecaches")?.unwrap_or_default();
            bail!("{error}: {last:#}\n{nodes:#}");
        }
        for node in NODES {
            for (name, image) in &self.images {
                has(&stage.store(node), name, image)?;
            }
        }
        self.account(stage)
    }

    /// Nothing was fetched twice: of each blob and of each image's name there was one request a node.
    fn account(&self, stage: &Stage) -> anyhow::Result<()> {
        let requests = stage.registry.requests_since(self.mark)?;
        for (name, image) in &self.images {
            for blob in &image.blobs {
                let gets = requests.gets_of(&blob.digest.to_string());
                if gets != NODES.len() {
                    bail!("blob {} of {name} was fetched {gets} times by {} nodes", blob.digest, NODES.len());
                }
            }
            let repository = name.split_once('/').map_or(name.as_str(), |(_, path)| path);
            let path = format!("/v2/{}/manifests/", repository.trim_end_matches(":v1"));
            let asked = requests.count(|request| request.path.starts_with(&path));
            if asked != NODES.len() {
                bail!("{name} was resolved {asked} times by {} nodes", NODES.len());
            }
        }
        Ok(())
    }

    /// Deletes the ImageCache, and waits until nothing of it is left.
    pub fn remove(&self, stage: &Stage) -> anyhow::Result<()> {
        stage.plane.kubectl(&["delete", "imagecache", &self.name, "--wait=false"])?;
        for node in NODES {
            let is_gone = || {
                let held = held(&stage.store(node)).ok()?;
                self.images.keys().all(|name| !held.contains(name)).then_some(())
            };
            until(&format!("the images of {} to leave {node}", self.name), PATIENCE, is_gone)?;
        }
        Ok(())
    }
}

/// Whether an ImageCache says that it is ready as it is asked for now.
pub fn is_ready(cache: &Value) -> bool {
    let generation = &cache["metadata"]["generation"];
    let conditions = cache["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    cache["status"]["observedGeneration"] == *generation
        && ready.is_some_and(|ready| ready["status"] == "True" && ready["observedGeneration"] == *generation)
}

/// An error unless a store has an image, whole.
pub fn has(store: &Path, name: &str, image: &Image) -> anyhow::Result<()> {
    if !held(store)?.contains(name) {
        bail!("{} does not name {name}", store.display());
    }
    let path = |digest: &str| -> PathBuf { store.join("blobs").join(digest.replace(':', "/")) };
    for blob in image.blobs.iter().chain([&image.manifest]) {
        let path = path(&blob.digest.to_string());
        let length = std::fs::metadata(&path).with_context(|| format!("{}", path.display()))?.len();
        if length != blob.size() {
            bail!("{} has {length} of {} bytes", path.display(), blob.size());
        }
    }
    Ok(())
}
