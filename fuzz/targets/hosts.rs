//! `hosts.toml`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = larder_registry::fuzzing::hosts(text) {
        // The error of a file that may hold secrets, in an event: one line of bounded length, and where to look.
        assert!(error.contains("hosts.toml, line "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
});
