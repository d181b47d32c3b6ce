//! Images for which there is no room: asked before anything is fetched, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use larder_oci::{Digest, ImageKey, Platform};
use larder_pull::{Admission, Needs, Progress, PullError, Puller};
use larder_registry::RegistryOptions as ClientOptions;
use larder_store::{Claim, Store};
use larder_tests::{Answer, Fault, Image, Layer, Proxy, Registry, RegistryOptions, Rule};

/// Answers as it is told, and keeps what it was asked.
#[derive(Default)]
struct Doorkeeper {
    refuses: bool,
    asked: Mutex<Vec<Needs>>,
}

impl Admission for Doorkeeper {
    fn admit(&self, needs: &Needs) -> Result<(), String> {
        self.asked.lock().unwrap().push(needs.clone());
        if self.refuses { Err("there is no room".to_owned()) } else { Ok(()) }
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    puller: Puller,
}

impl Bench {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let client = larder_registry::Registry::new(ClientOptions::default()).unwrap();
        Self { puller: Puller::new(store.clone(), client), store, _dir: dir }
    }

    async fn pull(&self, name: &str, doorkeeper: &Arc<Doorkeeper>) -> Result<(), PullError> {
        let key = ImageKey { name: name.parse().unwrap(), platform: Platform::host() };
        let puller = self.puller.clone().with_admission(doorkeeper.clone());
        puller.pull(&key, Claim::Delete, &Arc::new(Progress::default())).await.map(drop)
    }

    /// The files of the store, but for its lock and the space that it keeps.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, files: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, files) } else { files.push(path.display().to_string()) }
            }
        }
        let mut files = Vec::new();
        walk(self.store.root(), &mut files);
        files.retain(|file| !file.ends_with("/lock") && !file.ends_with("index.json.new"));
        files.sort();
        files
    }
}

fn image(layers: &[(u64, usize)]) -> Image {
    let layers = layers.iter().map(|&(seed, size)| Layer::random(seed, size).unwrap());
    layers.fold(Image::builder(), |image, layer| image.layer(&layer)).build().unwrap()
}

fn doorkeeper(refuses: bool) -> Arc<Doorkeeper> {
    Arc::new(Doorkeeper { refuses, ..Doorkeeper::default() })
}

#[tokio::test]
async fn an_image_that_is_refused_leaves_nothing_and_fetches_no_blob() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let built = image(&[(1, 60_000), (2, 70_000)]);
    let name = registry.push(&built, "app", "v1").unwrap().name;
    let bench = Bench::new();
    let before = bench.files();
    let mark = registry.mark().unwrap();
    let no = doorkeeper(true);
    let error = bench.pull(&name, &no).await.unwrap_err();
    assert!(matches!(&error, PullError::InsufficientDisk(why) if why == "there is no room"), "{error}");
    assert_eq!(bench.files(), before);
    let requests = registry.requests_since(mark).unwrap();
    assert_eq!((requests.manifest_gets(), requests.blob_gets()), (1, 0));

    let asked = no.asked.lock().unwrap().remove(0);
    assert_eq!(asked.image.name.as_str(), name);
    let layers: Vec<_> = asked.blobs.iter().filter(|need| need.is_layer).collect();
    let digests: Vec<&Digest> = layers.iter().map(|need| &need.digest).collect();
    assert_eq!(digests, built.layers().iter().map(|layer| &layer.digest).collect::<Vec<_>>());
    let missing: Vec<u64> = layers.iter().map(|need| need.presence.missing(need.size)).collect();
    assert_eq!(missing, built.layers().iter().map(|layer| layer.bytes.len() as u64).collect::<Vec<_>>());
    assert!(layers.iter().all(|need| need.media_type.contains("layer")), "{layers:?}");

    let yes = doorkeeper(false);
    bench.pull(&name, &yes).await.unwrap();
    bench.pull(&name, &no).await.unwrap();
    assert_eq!(no.asked.lock().unwrap().len(), 0, "who has it all is not asked");
}

#[tokio::test]
async fn what_was_there_before_counts_and_stays() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let built = image(&[(3, 50_000), (4, 400_000)]);
    registry.push(&built, "app", "v1").unwrap();
    registry.push(&image(&[(3, 50_000)]), "base", "v1").unwrap();
    let [app, base] = ["app", "base"].map(|name| format!("{}/{name}:v1", proxy.host()));
    let bench = Bench::new();
    bench.pull(&base, &doorkeeper(false)).await.unwrap();
    // A try that ends in the middle of the large layer.
    let large = &built.layers()[1].digest;
    let goes_on = |request: &http::request::Parts| request.headers.contains_key("range");
    proxy.add(
        Rule::get(large.as_str()).when(move |request| !goes_on(request)).then(Fault::TruncateAfter(100_000)),
    );
    proxy.add(Rule::get(large.as_str()).when(goes_on).then(Answer::status(404)));
    bench.pull(&app, &doorkeeper(false)).await.unwrap_err();
    let begun = bench.store.partial_size(large).unwrap();
    assert!(begun > 0);
    proxy.clear();
    let before = bench.files();

    let no = doorkeeper(true);
    bench.pull(&app, &no).await.unwrap_err();
    assert_eq!(bench.files(), before, "the lease of the earlier try keeps what that has brought");
    assert_eq!(bench.store.partial_size(large).unwrap(), begun);
    let asked = no.asked.lock().unwrap().remove(0);
    let missing: Vec<u64> = asked.blobs.iter().map(|need| need.presence.missing(need.size)).collect();
    let size = built.layers()[1].bytes.len() as u64;
    assert_eq!(missing[1..], [0, size - begun], "the other image has brought the first layer");

    bench.pull(&app, &doorkeeper(false)).await.unwrap();
}
