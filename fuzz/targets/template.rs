//! Go's templates over what `inspect` shows.
#![no_main]

use larder_template::{IMAGE, Template};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|text: &str| {
    let Ok(template) = Template::parse(text) else { return };
    let image = json!({
        "Id": "sha256:0123", "RepoTags": ["ubuntu:18.04", "ü:\u{1f980}"], "Size": 64_000_000, "Os": "linux",
        "Config": {"Env": ["A=1", "B=2"], "Labels": {"b": "2", "a": "1"}, "Cmd": null, "Float": 1.5e300},
        "RootFS": {"Layers": []},
    });
    let _ = template.render(&image);
    let _ = template.render_strict(&image);
    let _ = template.inspect(&image, &IMAGE);
});
