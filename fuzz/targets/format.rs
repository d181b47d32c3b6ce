//! What may follow `--format`: docker's words and templates over rows.
#![no_main]

use larder_template::{Format, align};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|text: &str| {
    let Ok(format) = Format::parse(text) else { return };
    let row = json!({"ID": "sha256:0123", "Repository": "ubuntu", "Tag": "18.04", "Size": "64MB", "N": -3, "List": ["a", "b"]});
    let headers = [("ID", "IMAGE ID"), ("Repository", "REPOSITORY"), ("Tag", "TAG"), ("Size", "SIZE")];
    let _ = format.render(&headers, [&row, &row]);
    let _ = align(text);
});
