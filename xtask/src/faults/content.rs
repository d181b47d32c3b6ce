//! Bytes that are not what they should be.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use larder_oci::Digest;
use larder_tests::{Fault, Rule};
use serde_json::json;

use super::case::{Case, Draw, Span, Target};

const OTHER_BYTES: &[&str] = &["other bytes", "digest", "bytes where its descriptor says", "coding"];

/// So many bytes that are nobody's.
pub fn something_else(length: usize) -> Vec<u8> {
    (0..=255).cycle().take(length).collect()
}

pub fn wrong_digest_header(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    let another = Digest::sha256(b"another").to_string();
    let (value, known) = draw.one(&[
        (another.clone(), true),
        ("sha256:abc".to_owned(), false),
        ("md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(), false),
        ("garbage".to_owned(), false),
    ]);
    draw.add(&target, Span::Always, [Fault::Header("docker-content-digest", value.clone())]);
    let what = format!("Docker-Content-Digest {value} with a {}", target.kind);
    // A blob's is of no use to us: its digest is what we asked for.
    if known && target.kind == "manifest" { Case::fails(what, OTHER_BYTES) } else { Case::right(what) }
}

pub fn missing_headers(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    let names = ["docker-content-digest", "content-type", "etag", "docker-distribution-api-version"];
    let missing: Vec<&'static str> = names.into_iter().filter(|_| draw.rng.bool()).collect();
    let missing = if missing.is_empty() { names.to_vec() } else { missing };
    draw.add(&target, Span::Always, missing.iter().map(|name| Fault::WithoutHeader(name)));
    Case::right(format!("a {} without {}", target.kind, missing.join(", ")))
}

pub fn wrong_bytes(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    let offset = draw.offset(target.size);
    draw.add(&target, Span::Always, [Fault::FlipByte(offset)]);
    Case::fails(format!("byte {offset} of a {} of {} bytes", target.kind, target.size), OTHER_BYTES)
}

pub fn too_short(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    let length = draw.offset(target.size);
    draw.add(&target, Span::Always, [Fault::Shorten(length)]);
    Case::fails(format!("{length} bytes of a {} of {}", target.kind, target.size), OTHER_BYTES)
}

pub fn too_long(draw: &mut Draw<'_>) -> Case {
    let (target, more) = (draw.target(), draw.one(&[1, 100, 100_000, 20 << 20]));
    draw.add(&target, Span::Always, [Fault::Append(something_else(more).into())]);
    let texts = &["other bytes", "bytes where its descriptor says", "larger than", "too large"];
    Case::fails(format!("{more} bytes more than the {} that a {} has", target.size, target.kind), texts)
}

pub fn no_content_length(draw: &mut Draw<'_>) -> Case {
    let (target, more) = (draw.target(), draw.one(&[0, 0, 1, 100_000, 20 << 20]));
    let without = Fault::WithoutHeader("content-length");
    let what = format!("a {} of {} bytes, length not said, and {more} more", target.kind, target.size);
    if more == 0 {
        draw.add(&target, Span::Always, [without]);
        return Case::right(what);
    }
    draw.add(&target, Span::Always, [without, Fault::Append(something_else(more).into())]);
    Case::fails(what, &["other bytes", "bytes where its descriptor says", "larger than", "too large"])
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // To memory: cannot fail.
    encoder.write_all(bytes).ok();
    encoder.finish().unwrap_or_default()
}

pub fn compressed(draw: &mut Draw<'_>) -> Case {
    let label = Fault::Header("content-encoding", "gzip".to_owned());
    if draw.rng.bool() {
        // As storage labels layers, which are compressed by nature.
        let target = draw.blob();
        draw.add(&target, Span::Always, [label]);
        return Case::right(format!("a {} as it is, called gzip", target.kind));
    }
    let blobs = draw.subject.blobs();
    let number = draw.rng.usize(..=blobs.len());
    let (blob, path) = match blobs.get(number) {
        Some(blob) => (blob, format!("/blobs/{}", blob.digest)),
        None => (&draw.subject.target().manifest, "/manifests/v1".to_owned()),
    };
    let target =
        Target { path, size: blob.size(), kind: if number < blobs.len() { "blob" } else { "manifest" } };
    let body = gzipped(&blob.bytes);
    draw.add(&target, Span::Always, [Fault::ReplaceBody(body.into()), label]);
    Case::fails(format!("a {} of {} bytes, compressed", target.kind, target.size), OTHER_BYTES)
}

fn documents() -> Vec<(&'static str, Vec<u8>)> {
    let digest = Digest::sha256(b"x").to_string();
    let descriptor = |digest: &str, size: serde_json::Value| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size});
    let manifest = |config: serde_json::Value, layers: serde_json::Value| {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers})
    };
    let good = descriptor(&digest, json!(1));
    let many = vec![good.clone(); 10_000];
    let index = "application/vnd.oci.image.index.v1+json";
    let documents: Vec<(&'static str, serde_json::Value)> = vec![
        ("{}", json!({})),
        ("null", json!(null)),
        ("a list", json!([])),
        ("an error envelope with 200", json!({"errors": [{"code": "DENIED", "message": "no"}]})),
        ("schema 1", json!({"schemaVersion": 1, "fsLayers": [], "name": "x", "tag": "v1"})),
        (
            "an unknown type",
            json!({"schemaVersion": 2, "mediaType": "text/html", "config": {}, "layers": []}),
        ),
        (
            "a digest that leads out of the store",
            manifest(descriptor("sha256:../../../../etc/passwd", json!(1)), json!([])),
        ),
        ("a digest too short", manifest(descriptor("sha256:abcd", json!(1)), json!([]))),
        ("a negative size", manifest(descriptor(&digest, json!(-1)), json!([]))),
        ("a size of a text", manifest(descriptor(&digest, json!("1")), json!([]))),
        ("a layer of 16 EiB", manifest(good.clone(), json!([descriptor(&digest, json!(u64::MAX))]))),
        ("a configuration of 8 EiB", manifest(descriptor(&digest, json!(i64::MAX)), json!([]))),
        (
            "two layers that are more than 16 EiB",
            manifest(
                descriptor(&Digest::sha256(b"1").to_string(), json!(u64::MAX)),
                json!([descriptor(&Digest::sha256(b"2").to_string(), json!(u64::MAX))]),
            ),
        ),
        ("layers that are not there", manifest(good.clone(), json!(many))),
        ("an index of nothing", json!({"schemaVersion": 2, "mediaType": index, "manifests": []})),
        ("an index of layers", json!({"schemaVersion": 2, "mediaType": index, "manifests": [good]})),
        ("both", json!({"schemaVersion": 2, "config": good, "layers": [], "manifests": []})),
    ];
    let mut bytes: Vec<(&'static str, Vec<u8>)> =
        documents.into_iter().map(|(what, document)| (what, document.to_string().into_bytes())).collect();
    bytes.push(("nothing", Vec::new()));
    bytes.push(("HTML", b"<!doctype html><title>Log in</title>".to_vec()));
    bytes.push(("half a document", br#"{"schemaVersion": 2, "config": {"med"#.to_vec()));
    bytes.push(("nested 100,000 deep", vec![b'['; 100_000]));
    bytes.push(("bytes", something_else(5000)));
    bytes
}

pub fn garbage_manifest(draw: &mut Draw<'_>) -> Case {
    let (what, body) = draw.one(&documents());
    let target = draw.manifest();
    draw.add(
        &target,
        Span::Always,
        [Fault::ReplaceBody(body.into()), Fault::WithoutHeader("docker-content-digest")],
    );
    // Whatever is wrong with it: the error names the image.
    Case::fails(format!("a manifest that is {what}"), &["subject-"])
}

pub fn huge_manifest(draw: &mut Draw<'_>) -> Case {
    let size = draw.one(&[5 << 20, 30 << 20, 100 << 20]);
    let target = draw.manifest();
    let mut faults = vec![
        Fault::ReplaceBody([br#"{"schemaVersion": 2, "x": ""#.to_vec(), vec![b'a'; size]].concat().into()),
        Fault::WithoutHeader("docker-content-digest"),
    ];
    let said = draw.rng.bool();
    if !said {
        // In chunks, so that nobody is warned.
        faults.push(Fault::Unannounced);
    }
    draw.add(&target, Span::Always, faults);
    let texts = &["larger than", "too large"];
    Case::fails(
        format!("a manifest of {size} bytes, {}", if said { "and says so" } else { "in chunks" }),
        texts,
    )
}

/// A mirror before the registry sends other bytes: they are noticed, and the registry's own are taken.
pub fn lying_mirror(draw: &mut Draw<'_>) -> Case {
    let (target, own) = (draw.blob(), draw.world.open.host());
    let offset = draw.offset(target.size);
    draw.hit(Rule::get(&target.path).then(Fault::FlipByte(offset)));
    let mirror = draw.proxy.host();
    let hosts = format!("server = 'http://{own}'\n[host.'http://{mirror}']\ncapabilities = ['pull']\n");
    let what = format!("byte {offset} of a {} of {} bytes from a mirror", target.kind, target.size);
    Case { mirrored: Some((own, hosts)), ..Case::right(what) }
}
