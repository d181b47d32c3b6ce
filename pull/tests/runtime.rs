//! Pulls and pushes of images whose layers a container runtime has, with a real registry.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../../store/tests/common/runtime.rs"]
mod runtime;

use std::sync::{Arc, Mutex};

use larder_oci::{Digest, ImageKey, ImageName};
use larder_pull::{Event, Observer, Progress, Puller, PushEvent, PushObserver, Pusher};
use larder_registry::{PushOutcome, RegistryOptions as ClientOptions};
use larder_store::{BlobState, Claim, Store};
use larder_tests::{Image, Layer, Registry, RegistryOptions};
use runtime::Runtime;

struct Node {
    dir: tempfile::TempDir,
    store: Store,
    runtime: Runtime,
    client: larder_registry::Registry,
}

impl Node {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(&dir.path().join("runtime"));
        let store = Store::open(&dir.path().join("store")).unwrap().with_annex(Arc::new(runtime.clone()));
        let client = larder_registry::Registry::new(ClientOptions::default()).unwrap();
        Self { dir, store, runtime, client }
    }

    async fn pull(&self, name: &str) -> (ImageKey, Vec<(Digest, Event)>) {
        let key = ImageKey { name: name.parse().unwrap(), platform: larder_oci::Platform::host() };
        let told = Arc::new(Told::default());
        let progress = Arc::new(Progress::observed(told.clone()));
        let puller = Puller::new(self.store.clone(), self.client.clone());
        puller.pull(&key, Claim::None, &progress).await.unwrap();
        assert_eq!(progress.present(), progress.total());
        let events = told.0.lock().unwrap().clone();
        (key, events)
    }

    /// The runtime takes these layers.
    fn take(&self, layers: &[Digest]) {
        for digest in layers {
            self.runtime.take(&self.store, &self.store.read_blob(digest, 1 << 20).unwrap());
        }
    }

    fn assert_intact(&self, key: &ImageKey) {
        let image = self.store.image(key).unwrap().unwrap();
        assert!(self.store.is_complete(&image).unwrap());
        for digest in self.store.image_blobs(&image).unwrap().keys() {
            assert_eq!(self.store.check_blob(digest).unwrap(), BlobState::Intact);
        }
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<(Digest, Event)>>);

impl Observer for Told {
    fn layers(&self, _: &[(Digest, u64)]) {}

    fn event(&self, blob: &Digest, event: Event) {
        self.0.lock().unwrap().push((blob.clone(), event));
    }
}

#[derive(Default)]
struct Outcomes(Mutex<Vec<PushOutcome>>);

impl PushObserver for Outcomes {
    fn event(&self, _: &Digest, _: u64, event: PushEvent) {
        if let PushEvent::Done(outcome) = event {
            self.0.lock().unwrap().push(outcome);
        }
    }
}

fn registry() -> Registry {
    Registry::start(RegistryOptions::default()).unwrap()
}

fn image(seed: u64, sizes: &[usize]) -> Image {
    let layers = sizes.iter().zip(seed..).map(|(size, seed)| Layer::random(seed, *size).unwrap());
    layers.fold(Image::builder(), |builder, layer| builder.layer(&layer)).build().unwrap()
}

fn layers(image: &Image) -> Vec<Digest> {
    image.layers().iter().map(|layer| layer.digest.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_the_runtime_has_are_not_fetched() {
    let (server, first, second) = (registry(), Node::new(), Node::new());
    let app = image(1, &[40_000, 9_000]);
    let pushed = server.push(&app, "app", "v1").unwrap();
    first.pull(&pushed.name).await;
    let layers = layers(&app);
    // kubelet has pulled one of them before.
    second.runtime.put(&first.store.read_blob(&layers[0], 1 << 20).unwrap());
    let mark = server.mark().unwrap();
    let (key, events) = second.pull(&pushed.name).await;
    let requests = server.requests_since(mark).unwrap();
    assert_eq!((requests.gets_of(layers[0].hex()), requests.gets_of(layers[1].hex())), (0, 1));
    assert!(events.contains(&(layers[0].clone(), Event::AlreadyExists)));
    assert!(events.contains(&(layers[1].clone(), Event::Complete)));
    assert!(!second.store.blob_path(&layers[0]).exists());
    second.assert_intact(&key);

    // What it has lost is fetched, and nothing else.
    second.take(&layers);
    second.runtime.lose(&layers[1]);
    second.store.lost([&layers[1]]).unwrap();
    let mark = server.mark().unwrap();
    second.pull(&pushed.name).await;
    let requests = server.requests_since(mark).unwrap();
    assert_eq!((requests.blob_gets(), requests.gets_of(layers[1].hex())), (1, 1));
    second.assert_intact(&key);
    drop((first.dir, second.dir));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_the_runtime_has_are_pushed_and_a_second_push_is_one_request() {
    let (server, target, node) = (registry(), registry(), Node::new());
    let app = image(3, &[300_000, 9_000]);
    let origin = server.push(&app, "app", "v1").unwrap();
    let (key, _) = node.pull(&origin.name).await;
    node.take(&layers(&app));
    assert_eq!(node.store.handed_over().unwrap().len(), 2);
    let stored = [node.store.image(&key).unwrap().unwrap()];
    let target_name: ImageName = format!("{}/app:v2", target.host()).parse().unwrap();
    let pusher = Pusher::new(node.store.clone(), node.client.clone());
    let push = async || {
        let outcomes = Arc::new(Outcomes::default());
        let observer: Arc<dyn PushObserver> = outcomes.clone();
        let done = pusher.push(&target_name, &stored, &observer).await.unwrap();
        assert_eq!((done.digest, done.partial), (app.digest().clone(), None));
        outcomes.0.lock().unwrap().clone()
    };
    assert_eq!(push().await, vec![PushOutcome::Uploaded; 3]);
    let other = Node::new();
    let (copy, _) = other.pull(target_name.as_str()).await;
    other.assert_intact(&copy);

    let mark = target.mark().unwrap();
    assert_eq!(push().await, vec![PushOutcome::AlreadyExists; 3]);
    let requests = target.requests_since(mark).unwrap();
    assert_eq!((requests.len(), requests.manifest_heads()), (1, 1), "{requests:?}");
}
