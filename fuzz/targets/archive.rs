//! Archives, as `larder load` reads them.
//!
//! An input that begins with `tar` is the rest of it, as it is. Any other is parts, with `---` lines between them, that become the entries of
//! an archive: a fuzzer that had to find digests by itself would never get past the first of them. A part that begins
//! with `@NAME` on a line of its own is the file of that name; any other is a blob. In all of them `$0` to `$9` stand
//! for the digest of the part of that number, in hexadecimal, and `#0` to `#9` for its size; only parts before it
//! count.
#![no_main]

use std::path::Path;

use larder_archive::{LoadOptions, Source, load};
use larder_oci::Digest;
use larder_store::{CollectOptions, Store};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let archive = match bytes.strip_prefix(b"tar") {
        Some(raw) => raw.to_vec(),
        None => assemble(bytes),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let stream = Source::Stream(Box::new(std::io::Cursor::new(archive)));
    let loaded = load(&store, stream, &LoadOptions::default(), &|| false);
    let blobs = blobs(folder.path());
    match loaded {
        Ok(images) => {
            for image in &images {
                let stored =
                    store.image(&image.key).expect("the index").expect("what was loaded has its name");
                assert!(store.is_complete(&stored).expect("its manifest"), "all of it is there");
            }
        }
        Err(_) => assert!(blobs.is_empty(), "what has been read is removed again: {blobs:?}"),
    }
    store.collect(&CollectOptions::default()).expect("a collection");
});

/// The blobs of the store; each must be what its name says.
fn blobs(store: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(store.join("blobs/sha256")) else { return Vec::new() };
    let names = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(Digest::sha256(&std::fs::read(&path).expect("a blob")).hex(), name);
        name
    });
    names.collect()
}

fn assemble(script: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(script);
    let mut known: Vec<(String, usize)> = Vec::new();
    let mut archive = tar::Builder::new(Vec::new());
    for part in text.split("\n---\n").take(16) {
        let (name, content) = match part.strip_prefix('@') {
            Some(file) => file.split_once('\n').map_or((Some(file), ""), |(name, rest)| (Some(name), rest)),
            None => (None, part),
        };
        let content = filled_in(content, &known);
        let digest = Digest::sha256(content.as_bytes()).hex().to_owned();
        let name = name.map_or_else(|| format!("blobs/sha256/{digest}"), |name| filled_in(name, &known));
        known.push((digest, content.len()));
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // A name that tar itself does not take says nothing of us.
        let _ = archive.append_data(&mut header, name, content.as_bytes());
    }
    archive.into_inner().expect("memory")
}

fn filled_in(text: &str, known: &[(String, usize)]) -> String {
    let mut text = text.to_owned();
    for (number, (digest, size)) in known.iter().enumerate().take(10) {
        text = text.replace(&format!("${number}"), digest).replace(&format!("#{number}"), &size.to_string());
        if text.len() > 1 << 20 {
            break;
        }
    }
    text
}
