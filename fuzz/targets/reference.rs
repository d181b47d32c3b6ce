//! Names of images, digests and platforms: what is taken is written as it is meant, and read back the same.
#![no_main]

use larder_oci::{Digest, ImageName, Platform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<ImageName>() {
        assert_eq!(name.as_str().parse::<ImageName>().as_ref(), Ok(&name), "the full name");
        assert_eq!(name.familiar().parse::<ImageName>().as_ref(), Ok(&name), "the familiar name");
        assert!(!name.registry().is_empty() && !name.repository().is_empty());
        // It becomes a part of URLs and of folders' names.
        assert!(!name.repository().split('/').any(|part| part.is_empty() || part == "." || part == ".."));
        assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.as_str(), text);
        assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().as_ref(), Ok(&platform));
        assert!(platform.runs(&platform));
    }
});
