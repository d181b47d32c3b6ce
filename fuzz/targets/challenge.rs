//! `WWW-Authenticate`, and the other headers of answers that we take apart.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    larder_registry::fuzzing::headers(bytes);
});
