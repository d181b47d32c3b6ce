//! Real processes that are killed at some instant.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use common::{Image, folder, image, runtime::Runtime};
use larder_oci::Digest;
use larder_store::{BlobState, Claim, Ingest, Store};

const ROOT: &str = "LARDER_TEST_STORE";
const SEED: &str = "LARDER_TEST_SEED";
/// After how many chunks the victim waits to be killed, if it is to.
const STOP: &str = "LARDER_TEST_STOP";
/// The folder of the runtime that layers are handed over to, if there is one.
const RUNTIME: &str = "LARDER_TEST_RUNTIME";
/// Small, so that a kill finds a pull at any of its steps.
const CHUNK: usize = 3000;

fn images() -> Vec<Image> {
    let layer = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| random.u8(..)).take(60_000).collect::<Vec<_>>()
    };
    (0..3).map(|number| image(&format!("app{number}"), &[&layer(number), &layer(number + 1)])).collect()
}

/// The process to be killed: pulls images for ever, and removes them again unless it is to stop; layers go to the runtime
/// now and then, and come back. It says before each chunk where in which blob it is, before it hands over a layer which one,
/// and after each commit which image is ready.
#[test]
#[ignore = "run by the test below, as a process of its own"]
fn victim() {
    let (Ok(root), Ok(seed)) = (std::env::var(ROOT), std::env::var(SEED)) else { return };
    let mut store = Store::open(Path::new(&root)).unwrap();
    let runtime = std::env::var(RUNTIME).ok().map(|folder| Runtime::new(Path::new(&folder)));
    if let Some(runtime) = &runtime {
        store = store.with_annex(Arc::new(runtime.clone()));
    }
    let mut random = fastrand::Rng::with_seed(seed.parse().unwrap());
    let stop = std::env::var(STOP).ok().map(|chunks| chunks.parse::<usize>().unwrap());
    let mut written = 0;
    let images = images();
    loop {
        let image = &images[random.usize(..images.len())];
        let lease = store.lease(&image.key).unwrap();
        lease.protect(&image.digests()).unwrap();
        store.put_blob(&lease, &Digest::sha256(&image.manifest), &image.manifest).unwrap();
        for bytes in &image.blobs {
            let digest = Digest::sha256(bytes);
            let is_layer = image.layers().contains(bytes);
            if is_layer && runtime.is_some() && store.find_layer(&lease, &digest, bytes.len() as u64).unwrap()
            {
                continue;
            }
            if let Ingest::Write(mut writer) = lease.ingest(&digest, bytes.len() as u64).unwrap() {
                let offset = usize::try_from(writer.offset()).unwrap();
                for chunk in bytes[offset..].chunks(CHUNK) {
                    println!("\nfetch {digest} {}", writer.offset());
                    writer.write(chunk).unwrap();
                    written += 1;
                    if stop == Some(written) {
                        println!("\nstopped");
                        std::thread::sleep(std::time::Duration::from_secs(600));
                    }
                }
                writer.finish().unwrap();
            }
            if let Some(runtime) = runtime.as_ref().filter(|_| is_layer && random.bool()) {
                println!("\nhand {digest}");
                runtime.take(&store, bytes);
            }
        }
        lease.commit(image.new_image(Claim::Delete)).unwrap();
        drop(lease);
        println!("\nready {}", image.key.name);
        if let Some(runtime) = runtime.as_ref().filter(|_| random.bool()) {
            for bytes in image.layers() {
                println!("\nhand {}", Digest::sha256(bytes));
                runtime.take(&store, bytes);
            }
        }
        if stop.is_none() && random.bool() {
            println!("\nremove {}", image.key.name);
            store.remove(&image.key).unwrap();
            store.collect(&larder_store::CollectOptions::default()).unwrap();
        }
    }
}

fn victim_process(root: &Path, seed: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "victim", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .env(SEED, seed.to_string())
        .env_remove(STOP)
        .env_remove(RUNTIME)
        .stdout(Stdio::piped());
    command
}

/// Runs a victim until it has said `lines` things, and kills it. Returns all that it said.
fn run_and_kill(command: &mut Command, lines: usize) -> Vec<String> {
    let mut child = command.spawn().unwrap();
    let mut said = Vec::new();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let word = |line: &String| {
        ["fetch ", "hand ", "ready ", "remove ", "stopped"].iter().any(|word| line.starts_with(word))
    };
    said.extend(output.by_ref().filter(word).take(lines));
    // Somewhere within the next step, not always right after a line.
    std::thread::sleep(std::time::Duration::from_micros(fastrand::u64(0..3000)));
    child.kill().unwrap();
    said.extend(output.filter(word));
    child.wait().unwrap();
    assert!(said.len() >= lines, "the victim ended by itself");
    said
}

#[test]
fn a_kill_at_any_instant_loses_nothing_that_was_ready_and_no_byte_that_was_fetched() {
    let (folder, _runtime) = folder().with_runtime();
    let runtime = folder.dir.path().join("runtime");
    let images = images();
    let mut ready = BTreeSet::new();
    for seed in 0..20 {
        let lines = fastrand::usize(1..90);
        let mut unsure = None;
        let mut victim = victim_process(folder.root(), seed);
        for line in run_and_kill(victim.env(RUNTIME, &runtime), lines) {
            let (word, rest) = line.split_once(' ').unwrap();
            unsure = None;
            match word {
                "ready" => drop(ready.insert(rest.to_owned())),
                "remove" => {
                    ready.remove(rest);
                    unsure = Some(rest.to_owned());
                }
                _ => {}
            }
        }
        // Blobs at their names have their digests, and images that were reported ready are whole.
        folder.blobs();
        let stored = folder.store.images().unwrap();
        for image in &stored {
            assert!(folder.store.is_complete(image).unwrap(), "{} after seed {seed}", image.key);
            for digest in folder.store.image_blobs(image).unwrap().keys() {
                let state = folder.store.check_blob(digest).unwrap();
                assert_eq!(state, BlobState::Intact, "{digest} of {} after seed {seed}", image.key);
            }
        }
        for name in &ready {
            assert!(
                stored.iter().any(|image| image.key.name.as_str() == name),
                "{name} was ready; seed {seed}"
            );
        }
        // A kill may fall between a commit and its report.
        ready.extend(
            stored
                .iter()
                .map(|image| image.key.name.to_string())
                .filter(|name| Some(name) != unsure.as_ref()),
        );
    }
    // What the last one left is taken up: nothing needs a person.
    for image in &images {
        let stored = image.put(&folder.store);
        assert!(folder.store.is_complete(&stored).unwrap());
        folder.store.remove(&image.key).unwrap();
    }
    folder.collect_all();
    assert_eq!((folder.blobs().len(), folder.markers().len()), (0, 0));
    assert_eq!((folder.partials(), folder.leases()), (0, 0));
}

#[test]
fn a_pull_that_is_killed_again_and_again_fetches_each_byte_once() {
    let folder = folder();
    // Where the next byte of each blob is to be written.
    let mut reached: BTreeMap<String, usize> = BTreeMap::new();
    let mut tries = 0;
    // An image has forty chunks and more, so that it takes three tries at least.
    while folder.store.images().unwrap().is_empty() {
        let chunks = fastrand::usize(1..15);
        let mut victim = victim_process(folder.root(), tries);
        // It says a line a chunk, and one more: that it has stopped, or that an image is ready.
        for line in run_and_kill(victim.env(STOP, chunks.to_string()), chunks + 1) {
            let Some((digest, offset)) = line.strip_prefix("fetch ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let next = reached.entry(digest.to_owned()).or_default();
            assert_eq!(offset.parse::<usize>().unwrap(), *next, "{digest}, try {tries}");
            *next += CHUNK;
        }
        tries += 1;
        assert!(tries < 500, "no progress");
    }
    assert!(tries >= 3, "{tries}");
}

/// A file system that keeps half of a rename over a power cut leaves a file with both names, and POSIX has a rename between
/// two names of one file do nothing.
#[test]
fn a_blob_that_is_half_in_the_trash_goes_all_the_same() {
    let folder = folder();
    let image = &images()[0];
    image.put(&folder.store);
    for digest in image.digests() {
        let trash = folder.root().join(format!(".larder/trash/sha256-{}", digest.hex()));
        std::fs::hard_link(folder.store.blob_path(&digest), trash).unwrap();
    }
    folder.store.remove(&image.key).unwrap();
    folder.collect_all();
    assert_eq!(folder.blobs(), BTreeSet::new());
}

#[test]
fn an_index_that_is_half_replaced_or_torn_in_the_making_does_no_harm() {
    let folder = folder();
    let (first, second) = (&images()[0], &images()[1]);
    first.put(&folder.store);
    let (index, new) = (folder.root().join("index.json"), folder.root().join(".larder/index.json.new"));
    for damage in 0..2 {
        std::fs::remove_file(&new).unwrap();
        if damage == 0 {
            std::fs::hard_link(&index, &new).unwrap();
        } else {
            std::fs::write(&new, "torn".repeat(10_000)).unwrap();
        }
        // Who reads meanwhile has the old index open.
        let old = std::fs::File::open(&index).unwrap();
        second.put(&folder.store);
        assert_eq!(folder.store.images().unwrap().len(), 2);
        let old: serde_json::Value = serde_json::from_reader(old).unwrap();
        assert_eq!(old["manifests"].as_array().unwrap().len(), 1);
        folder.store.remove(&second.key).unwrap();
        assert_eq!(folder.store.images().unwrap().len(), 1);
    }
}
