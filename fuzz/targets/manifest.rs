//! Manifests, indexes and configurations, under whatever type a registry gives them.
#![no_main]

use larder_oci::{Digest, Document, Platform, manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, document)) = bytes.split_first() else { return };
    // The first byte says which type; one more than there are is none.
    let content_type = manifest::ACCEPTED.get(usize::from(first - b'0'.min(first))).copied();
    if let Ok(document) = Document::parse(content_type, document) {
        for descriptor in document.descriptors() {
            Digest::try_from(descriptor.digest()).expect("all digests of a document are checked");
            let _ = Platform::of(descriptor);
        }
        if let Document::Index(index) = &document {
            for wanted in ["linux/amd64", "linux/arm64", "linux/arm/v7", "windows/amd64"] {
                let wanted: Platform = wanted.parse().expect("a platform");
                if let Ok(entry) = wanted.select(index) {
                    // Without a platform, an entry may be for any.
                    assert!(Platform::of(entry).is_none_or(|platform| wanted.runs(&platform)));
                }
            }
        }
    }
    let _ = Platform::of_config(document);
});
