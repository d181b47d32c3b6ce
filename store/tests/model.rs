//! Random sequences of everything that happens to a store, against a model of what must then be there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use common::{Folder, Image, folder, image, runtime::Runtime};
use larder_oci::{Digest, ImageKey};
use larder_store::{BlobState, BlobWriter, Claim, CollectOptions, Ingest, Lease, Store};
use proptest::prelude::*;

fn layers() -> Vec<Vec<u8>> {
    (1..=5_u8).map(|number| vec![number; usize::from(number) * 300]).collect()
}

/// Images that share layers, two of them under one name.
fn images() -> Vec<Image> {
    let layers = layers();
    [("a:1", vec![0, 1]), ("a:2", vec![0, 1, 2]), ("b:1", vec![3]), ("b:1", vec![0, 3, 4])]
        .into_iter()
        .map(|(name, of)| {
            image(name, &of.iter().map(|layer: &usize| &layers[*layer][..]).collect::<Vec<_>>())
        })
        .collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// Brings a pull on by one blob, up to a share of its bytes.
    Fetch {
        image: usize,
        blob: usize,
        percent: usize,
    },
    Commit(usize),
    /// All of it, commit included.
    Pull(usize),
    Remove(usize),
    /// The owner dies: writers and lease are gone, files stay.
    Kill(usize),
    GiveUp(usize),
    Forget(usize),
    Collect {
        old: bool,
    },
    Claim(usize),
    Reopen,
    /// The runtime takes an image's layers. If killed, the files are there still beside the markers.
    HandOver {
        image: usize,
        killed: bool,
    },
    /// The runtime gets a layer by itself.
    Gain(usize),
    /// The runtime loses a layer, and the store is told, or is not.
    Lose {
        layer: usize,
        told: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let image = 0..4_usize;
    prop_oneof![
        8 => (image.clone(), 0..5_usize, 0..=150_usize)
            .prop_map(|(image, blob, percent)| Step::Fetch { image, blob, percent }),
        2 => image.clone().prop_map(Step::Commit),
        3 => image.clone().prop_map(Step::Pull),
        1 => image.clone().prop_map(Step::Remove),
        2 => image.clone().prop_map(Step::Kill),
        1 => image.clone().prop_map(Step::GiveUp),
        1 => image.clone().prop_map(Step::Forget),
        2 => any::<bool>().prop_map(|old| Step::Collect { old }),
        1 => image.clone().prop_map(Step::Claim),
        1 => Just(Step::Reopen),
        3 => (image, any::<bool>()).prop_map(|(image, killed)| Step::HandOver { image, killed }),
        1 => (0..5_usize).prop_map(Step::Gain),
        2 => (0..5_usize, any::<bool>()).prop_map(|(layer, told)| Step::Lose { layer, told }),
    ]
}

#[derive(Default)]
struct Pull {
    lease: Option<Lease>,
    writers: BTreeMap<Digest, BlobWriter>,
}

struct World {
    folder: Folder,
    runtime: Runtime,
    images: Vec<Image>,
    pulls: Vec<Pull>,
    /// The model: which image each key stands for.
    committed: BTreeMap<ImageKey, usize>,
    /// The model: what leases protect, by the image whose pull took the lease; those of dead owners included.
    leased: BTreeMap<usize, BTreeSet<Digest>>,
    /// The model: the blobs that are here.
    finished: BTreeSet<Digest>,
    /// The model: the blobs that were handed over. Some may be here as well.
    marked: BTreeSet<Digest>,
    /// The model: what the runtime has.
    elsewhere: BTreeSet<Digest>,
    /// The model: bytes of unfinished blobs.
    begun: BTreeMap<Digest, u64>,
}

impl World {
    fn new() -> Self {
        let images = images();
        let pulls = images.iter().map(|_| Pull::default()).collect();
        let (folder, runtime) = folder().with_runtime();
        Self {
            folder,
            runtime,
            images,
            pulls,
            committed: BTreeMap::new(),
            leased: BTreeMap::new(),
            finished: BTreeSet::new(),
            marked: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            begun: BTreeMap::new(),
        }
    }

    /// Images of one key share their dead leases, so only one pull a key runs at a time here.
    fn rivals(&self, image: usize) -> Vec<usize> {
        let key = &self.images[image].key;
        (0..self.images.len()).filter(|other| self.images[*other].key == *key).collect()
    }

    fn lease(&mut self, image: usize) -> bool {
        if self.rivals(image).iter().any(|other| *other != image && self.pulls[*other].lease.is_some()) {
            return false;
        }
        if self.pulls[image].lease.is_none() {
            let lease = self.folder.store.lease(&self.images[image].key).unwrap();
            lease.protect(&self.images[image].digests()).unwrap();
            let mut leased = self.images[image].digests();
            for rival in self.rivals(image) {
                leased.extend(self.leased.remove(&rival).unwrap_or_default());
            }
            self.leased.insert(image, leased);
            self.pulls[image].lease = Some(lease);
        }
        true
    }

    fn fetch(&mut self, image: usize, blob: usize, percent: usize) {
        if !self.lease(image) {
            return;
        }
        let content = &self.images[image];
        let bytes =
            if blob == 0 { &content.manifest } else { &content.blobs[(blob - 1) % content.blobs.len()] };
        let digest = Digest::sha256(bytes);
        let is_layer = content.layers().contains(bytes);
        let pull = &mut self.pulls[image];
        let begun = pull.writers.remove(&digest);
        if begun.is_none() && is_layer {
            let (lease, size) = (pull.lease.as_ref().unwrap(), bytes.len() as u64);
            let found = self.folder.store.find_layer(lease, &digest, size).unwrap();
            let here = self.finished.contains(&digest);
            assert_eq!(found, here || self.elsewhere.contains(&digest));
            match (found, here) {
                (true, false) => drop(self.marked.insert(digest.clone())),
                (false, _) => drop(self.marked.remove(&digest)),
                (true, true) => {}
            }
            if found {
                return;
            }
        }
        let mut writer = match begun {
            Some(writer) => writer,
            None => match pull.lease.as_ref().unwrap().ingest(&digest, bytes.len() as u64).unwrap() {
                Ingest::Present => return,
                Ingest::Busy => {
                    assert!(self.pulls.iter().any(|pull| pull.writers.contains_key(&digest)));
                    return;
                }
                Ingest::Write(writer) => writer,
            },
        };
        assert_eq!(writer.offset(), self.begun.get(&digest).copied().unwrap_or(0), "bytes were lost");
        let offset = usize::try_from(writer.offset()).unwrap();
        let end = (bytes.len() * percent / 100).clamp(offset, bytes.len());
        writer.write(&bytes[offset..end]).unwrap();
        if percent >= 100 {
            writer.finish().unwrap();
            self.begun.remove(&digest);
            self.finished.insert(digest);
        } else {
            self.begun.insert(digest.clone(), writer.offset());
            pull.writers.insert(digest, writer);
        }
    }

    fn commit(&mut self, image: usize) {
        let whole = self.is_whole(image);
        let Some(lease) = &self.pulls[image].lease else { return };
        let content = &self.images[image];
        assert_eq!(lease.commit(content.new_image(Claim::None)).is_ok(), whole);
        if whole {
            self.committed.insert(content.key.clone(), image);
            self.end(image);
        }
    }

    fn is_whole(&self, image: usize) -> bool {
        self.images[image]
            .digests()
            .iter()
            .all(|digest| self.finished.contains(digest) || self.marked.contains(digest))
    }

    /// The lease is gone, and its file too.
    fn end(&mut self, image: usize) {
        self.pulls[image] = Pull::default();
        self.leased.remove(&image);
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Fetch { image, blob, percent } => self.fetch(image, blob, percent),
            Step::Commit(image) => self.commit(image),
            Step::Pull(image) => {
                for blob in 0..=self.images[image].blobs.len() {
                    self.fetch(image, blob, 100);
                }
                self.commit(image);
            }
            Step::Remove(image) => {
                let key = &self.images[image].key;
                let removed = self.folder.store.remove(key).unwrap();
                assert_eq!(removed, self.committed.remove(key).is_some());
            }
            Step::Kill(image) => self.pulls[image] = Pull::default(),
            Step::GiveUp(image) => {
                if let Some(lease) = self.pulls[image].lease.take() {
                    lease.release();
                    self.end(image);
                }
            }
            Step::Forget(image) => {
                self.folder.store.forget(&self.images[image].key).unwrap();
                for rival in self.rivals(image) {
                    if self.pulls[rival].lease.is_none() {
                        self.leased.remove(&rival);
                    }
                }
            }
            Step::Collect { old } => self.collect(old),
            Step::Claim(image) => {
                let keys = [self.images[image].key.clone()];
                self.folder.store.set_claim(&keys, Claim::Retain).unwrap();
            }
            Step::Reopen => {
                let store = Store::open(self.folder.root()).unwrap();
                self.folder.store = store.with_annex(Arc::new(self.runtime.clone()));
            }
            Step::HandOver { image, killed } => self.hand_over(image, killed),
            Step::Gain(layer) => drop(self.elsewhere.insert(self.runtime.put(&layers()[layer]))),
            Step::Lose { layer, told } => {
                let digest = Digest::sha256(&layers()[layer]);
                self.runtime.lose(&digest);
                self.elsewhere.remove(&digest);
                if told {
                    self.folder.store.lost([&digest]).unwrap();
                    self.marked.remove(&digest);
                }
            }
        }
        self.check();
    }

    fn hand_over(&mut self, image: usize, killed: bool) {
        for bytes in self.images[image].layers() {
            let digest = Digest::sha256(bytes);
            let here = self.finished.contains(&digest);
            let path = self.folder.store.blob_path(&digest);
            let freed = self.runtime.take(&self.folder.store, bytes);
            assert_eq!(freed, if here { bytes.len() as u64 } else { 0 });
            self.elsewhere.insert(digest.clone());
            if here {
                self.marked.insert(digest.clone());
            }
            if here && killed {
                std::fs::write(path, bytes).unwrap();
            } else {
                self.finished.remove(&digest);
            }
        }
    }

    /// With `old`, every dead lease is too old.
    fn collect(&mut self, old: bool) {
        let age = if old { Duration::ZERO } else { CollectOptions::default().dead_lease_age };
        let collected = self.folder.store.collect(&CollectOptions { dead_lease_age: age }).unwrap();
        assert_eq!(collected.warnings, Vec::<String>::new());
        if old {
            self.leased.retain(|image, _| self.pulls[*image].lease.is_some());
        }
        let leased: BTreeSet<_> = self.leased.values().flatten().cloned().collect();
        let written: BTreeSet<_> = self.pulls.iter().flat_map(|pull| pull.writers.keys()).cloned().collect();
        let named: BTreeSet<_> =
            self.committed.values().flat_map(|image| self.images[*image].digests()).collect();
        let needed = |digest: &Digest| named.contains(digest) || leased.contains(digest);
        self.finished.retain(needed);
        let gone: BTreeSet<_> = self.marked.iter().filter(|digest| !needed(digest)).cloned().collect();
        assert_eq!(collected.handed_over.into_iter().collect::<BTreeSet<_>>(), gone);
        self.marked.retain(needed);
        self.begun.retain(|digest, _| written.contains(digest) || leased.contains(digest));
    }

    /// What must hold at every moment.
    fn check(&self) {
        assert_eq!(self.folder.blobs(), self.finished);
        assert_eq!(self.folder.markers(), self.marked);
        let handed_over: BTreeSet<_> = self.folder.store.handed_over().unwrap().into_keys().collect();
        assert_eq!(handed_over, self.marked.difference(&self.finished).cloned().collect());
        for digest in &handed_over {
            let state = self.folder.store.check_blob(digest).unwrap();
            assert_eq!(state == BlobState::Intact, self.elsewhere.contains(digest));
        }
        assert_eq!(self.folder.partials(), self.begun.len());
        let stored = self.folder.store.images().unwrap();
        assert_eq!(stored.len(), self.committed.len());
        for image in stored {
            let number = self.committed[&image.key];
            assert_eq!(self.folder.store.is_complete(&image).unwrap(), self.is_whole(number));
            let expected = &self.images[number];
            assert_eq!(image.manifest_digest, Digest::sha256(&expected.manifest));
        }
    }

    /// In the end, what is needed is there, and nothing else.
    fn close(mut self) {
        self.pulls.clear();
        self.folder.collect_all();
        let needed: BTreeSet<_> =
            self.committed.values().flat_map(|image| self.images[*image].digests()).collect();
        let needed_of =
            |there: &BTreeSet<Digest>| there.intersection(&needed).cloned().collect::<BTreeSet<_>>();
        assert_eq!(self.folder.blobs(), needed_of(&self.finished));
        assert_eq!(self.folder.markers(), needed_of(&self.marked));
        assert_eq!((self.folder.partials(), self.folder.leases()), (0, 0));
        assert_eq!(std::fs::read_dir(self.folder.root().join(".larder/trash")).unwrap().count(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_needed_is_lost_and_no_garbage_stays(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.close();
    }
}
