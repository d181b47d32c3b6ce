//! The generated code is what the generator makes of `proto/`.
//!
//! With `LARDER_GEN` set the files are written instead: this is what `cargo xtask gen` does. The generator is a
//! development dependency of this crate alone, so that no build waits for it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::{fs, path::Path};

/// One file a package: the crate's modules are flat, so references to other packages become paths from the crate's root.
fn generate(to: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut protos: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    protos.sort();
    let descriptors = protox::compile(&protos, [&root]).unwrap();
    tonic_prost_build::configure()
        .build_server(false)
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .bytes(".containerd.services.content.v1")
        .extern_path(".containerd.types", "crate::api::types")
        .out_dir(to)
        .compile_fds(descriptors)
        .unwrap();
}

#[test]
fn generated_code_is_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path());
    // An extern path makes the generator leave the package out; its messages need a run of their own.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let types = protox::compile([root.join("types.proto")], [&root]).unwrap();
    tonic_prost_build::configure()
        .build_server(false)
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .out_dir(folder.path())
        .compile_fds(types)
        .unwrap();
    let write = std::env::var_os("LARDER_GEN").is_some();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut files = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let new = fs::read_to_string(entry.path()).unwrap();
        let path = kept.join(entry.file_name());
        if write {
            fs::write(&path, &new).unwrap();
        }
        let old = fs::read_to_string(&path).unwrap_or_default();
        assert!(old == new, "{} is not up to date: run cargo xtask gen", path.display());
        files += 1;
    }
    assert_eq!(files, 11, "a package without a module, or a module without a package");
}
