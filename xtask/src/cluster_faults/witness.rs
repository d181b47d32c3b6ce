//! What looks at every status all the time, and at what is really on the nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use larder_tests::{Api, Image};
use serde_json::Value;

use super::round::{has, is_ready};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

const CACHES: &str = "/apis/larder.dev/v1alpha1/imagecaches";
const NODE_CACHES: &str = "/apis/larder.dev/v1alpha1/nodeimagecaches";

/// Looks for as long as it exists.
pub struct Witness {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    api: Api,
    stores: BTreeMap<String, PathBuf>,
    ends: AtomicBool,
    images: Mutex<BTreeMap<String, Image>>,
    seen: Mutex<Seen>,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Looks that were answered, and that were not.
    pub looks: u64,
    pub unanswered: u64,
    /// How often something was said to be ready that was then looked for.
    pub claims: u64,
    /// Statuses that said more than was true.
    pub lies: Vec<String>,
}

impl Witness {
    /// `stores` are the nodes' layer stores.
    pub fn start(api: Api, stores: BTreeMap<String, PathBuf>) -> Self {
        let shared = Arc::new(Shared {
            api,
            stores,
            ends: AtomicBool::new(false),
            images: Mutex::default(),
            seen: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !own.ends.load(Ordering::SeqCst) {
                let answered = own.look();
                let mut seen = lock(&own.seen);
                seen.looks += 1;
                seen.unanswered += u64::from(answered.is_none());
                drop(seen);
                std::thread::sleep(PAUSE);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Says what the images are that statuses will speak of.
    pub fn know(&self, images: &BTreeMap<String, Image>) {
        lock(&self.shared.images).extend(images.iter().map(|(name, image)| (name.clone(), image.clone())));
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        lock(&self.shared.seen).clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    /// Nothing where the API server does not answer.
    fn look(&self) -> Option<()> {
        for cache in items(self.api.get(CACHES).ok()??) {
            self.judge(CACHES, &cache, || self.cache_lies(&cache));
        }
        for node_cache in items(self.api.get(NODE_CACHES).ok()??) {
            self.judge(NODE_CACHES, &node_cache, || self.node_lies(&node_cache));
        }
        Some(())
    }

    /// A status that is contradicted, and still stands as the answer to the same wish, is a lie. One that was overtaken by an
    /// edit while we looked is none.
    fn judge(&self, list: &str, object: &Value, lies: impl Fn() -> Option<String>) {
        let Some(lie) = lies() else { return };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let Ok(Some(now)) = self.api.get(&format!("{list}/{name}")) else { return };
        let same = |field: &str| now["metadata"][field] == object["metadata"][field];
        if same("uid") && same("generation") && same("deletionTimestamp") {
            lock(&self.seen).lies.push(format!("{name}: {lie}\n{:#}", object["status"]));
        }
    }

    /// Whether an ImageCache says that more nodes are ready than have its images.
    fn cache_lies(&self, cache: &Value) -> Option<String> {
        let status = &cache["status"];
        if status["observedGeneration"] != cache["metadata"]["generation"] {
            return None;
        }
        let images = cache["spec"]["images"].as_array().cloned().unwrap_or_default();
        let wanted: Vec<&str> = images.iter().filter_map(|image| image["image"].as_str()).collect();
        let ready = status["nodes"]["ready"].as_u64().unwrap_or_default();
        let claimed = if is_ready(cache) { self.stores.len() as u64 } else { ready };
        if claimed == 0 {
            return None;
        }
        lock(&self.seen).claims += 1;
        let missing = |store: &PathBuf| wanted.iter().find_map(|name| self.missing(store, name));
        let truth = self.stores.values().filter(|store| missing(store).is_none()).count() as u64;
        let example = || self.stores.values().find_map(missing).unwrap_or_default();
        (claimed > truth).then(|| format!("says {claimed} ready nodes, and {truth} are: {}", example()))
    }

    /// Whether a node's object says that an image is ready that the node does not have.
    fn node_lies(&self, node_cache: &Value) -> Option<String> {
        let store = self.stores.get(node_cache["metadata"]["name"].as_str()?)?;
        let images = node_cache["status"]["images"].as_array().cloned().unwrap_or_default();
        let asked = node_cache["spec"]["images"].as_array().cloned().unwrap_or_default();
        let is_asked = |image: &Value| asked.iter().any(|asked| asked["image"] == image["image"]);
        images.iter().filter(|image| image["state"] == "Ready" && is_asked(image)).find_map(|image| {
            lock(&self.seen).claims += 1;
            self.missing(store, image["image"].as_str()?)
        })
    }

    fn missing(&self, store: &Path, name: &str) -> Option<String> {
        let image = lock(&self.images).get(name).cloned()?;
        has(store, name, &image).err().map(|error| format!("{error:#}"))
    }
}

fn items(list: Value) -> Vec<Value> {
    match list {
        Value::Object(mut list) => match list.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
