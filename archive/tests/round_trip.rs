//! What is saved loads again, as it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use common::{Folder, Image, Tar, blob_path, folder, image, index, runtime::Runtime, save_image};
use larder_archive::{
    ArchiveError, Compression, Form, LoadOptions, SaveImage, SaveOptions, Source, load, save, to_file,
};
use larder_oci::{Digest, ImageKey, ImageName};
use larder_store::{Claim, NewImage, StoredImage};
use serde_json::{Value, json};

const FORMS: [Form; 3] = [Form::Both, Form::DockerArchive, Form::OciArchive];
const COMPRESSIONS: [Compression; 4] =
    [Compression::None, Compression::Gzip, Compression::Bzip2, Compression::Zstd];

fn saved(from: &Folder, images: &[SaveImage], form: Form, compression: Compression) -> Vec<u8> {
    let mut bytes = Vec::new();
    let report =
        save(&from.store, images, SaveOptions { form, compression, threads: None }, &mut bytes, &|| false)
            .unwrap();
    assert_eq!(report.bytes, bytes.len() as u64);
    bytes
}

fn packed(image: &[u8], how: Compression) -> Vec<u8> {
    match how {
        Compression::None => image.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(image).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(image).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(image, 1).unwrap(),
    }
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

#[test]
fn every_form_and_compression() {
    let from = folder();
    let (shared, own) = (random(1, 1_300_000), random(2, 100_000));
    let stored = [
        from.put(&image(&[&shared, &own]), "one:v1"),
        from.put(&image(&[&shared]), "registry.corp:5000/team/two:v2"),
    ];
    let images = stored.each_ref().map(save_image);
    for form in FORMS {
        for compression in COMPRESSIONS {
            let archive = saved(&from, &images, form, compression);
            assert_eq!(archive, saved(&from, &images, form, compression), "reproducible");
            let to = folder();
            let loaded = to.load(archive).unwrap();
            let names: Vec<_> = loaded.iter().map(|image| image.key.clone()).collect();
            assert_eq!(names, stored.each_ref().map(|image| image.key.clone()), "{form:?} {compression}");
            if form != Form::DockerArchive {
                assert_eq!(to.store.images().unwrap(), stored, "{form:?} {compression}");
            }
            // From here on no form changes anything any more.
            let again = folder();
            let second: Vec<_> = to.store.images().unwrap().iter().map(save_image).collect();
            again.load(saved(&to, &second, form, compression)).unwrap();
            assert_eq!(again.store.images().unwrap(), to.store.images().unwrap(), "{form:?} {compression}");
            for folder in [&to, &again] {
                folder.assert_clean(&folder.blobs());
                let all = folder.store.images().unwrap();
                assert!(all.iter().all(|image| folder.store.is_complete(image).unwrap()));
            }
        }
    }
}

#[test]
fn names_of_all_kinds() {
    let from = folder();
    let stored = from.put(&image(&[b"layer"]), "one:v1");
    let names =
        |texts: &[&str]| -> Vec<ImageName> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let pinned = format!("one@{}", stored.target);
    for form in FORMS {
        for (given, expected) in [
            (vec!["one:v1", "quay.io/x/y:2"], vec!["one:v1", "quay.io/x/y:2"]),
            (vec![], vec!["none"]),
            (vec![pinned.as_str()], vec![if form == Form::DockerArchive { "none" } else { pinned.as_str() }]),
        ] {
            let images = [SaveImage { image: stored.clone(), names: names(&given) }];
            let to = folder();
            let loaded = to.load(saved(&from, &images, form, Compression::None)).unwrap();
            let found: Vec<String> = loaded
                .iter()
                .map(|image| {
                    let name = &image.key.name;
                    if name.is_nameless() { "none".to_owned() } else { name.familiar().to_owned() }
                })
                .collect();
            assert_eq!(found, expected, "{form:?}");
        }
    }
}

#[test]
fn a_name_that_moves_leaves_the_old_image_without_a_tag() {
    let to = folder();
    let (old, new) = (image(&[b"old"]), image(&[b"new"]));
    to.load(old.oci("app:v1").finish()).unwrap();
    assert_eq!(to.load(old.oci("app:v1").finish()).unwrap()[0].replaced, None, "nothing changes");
    let loaded = to.load(new.oci("app:v1").finish()).unwrap();
    let replaced = loaded[0].replaced.as_ref().unwrap();
    assert_eq!(replaced.now.key.name.as_str(), format!("docker.io/library/app@{}", old.digest()));
    assert_eq!(to.store.images().unwrap().len(), 2);
}

#[test]
fn the_index_that_a_name_stands_for_is_kept() {
    let from = folder();
    let here = image(&[b"layer"]);
    let stored = from.put(&here, "many:v1");
    let mut entry = here.descriptor(None);
    entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let mut other = image(&[b"not here"]).descriptor(None);
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let list = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [other, entry]})
    .to_string();
    let stored = with_index(&from, &stored, &list);
    for form in [Form::Both, Form::OciArchive] {
        let to = folder();
        to.load(saved(&from, &[save_image(&stored)], form, Compression::None)).unwrap();
        assert_eq!(to.store.images().unwrap(), std::slice::from_ref(&stored));
    }
    // And from an index itself, of which one platform of two is there.
    let mut tar = Tar::default();
    let described = json!({"mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": Digest::sha256(list.as_bytes()), "size": list.len(),
        "annotations": {"io.containerd.image.name": "docker.io/library/many:v1"}});
    here.blob_entries().iter().for_each(|(path, bytes)| tar.file(path, bytes));
    tar.file(&blob_path(list.as_bytes()), list.as_bytes());
    tar.file("index.json", index(&[described]).as_bytes());
    let archive = tar.finish();
    let to = folder();
    to.load(archive.clone()).unwrap();
    assert_eq!(to.store.images().unwrap(), [stored]);
    // The other platform is not there, whoever asks for it.
    let options = LoadOptions { platform: Some("linux/s390x".parse().unwrap()), only: None };
    let source = Source::Stream(Box::new(std::io::Cursor::new(archive)));
    let error = load(&folder().store, source, &options, &|| false).unwrap_err();
    assert!(error.to_string().contains("for linux/s390x; it has linux/amd64"), "{error}");
}

fn with_index(folder: &Folder, stored: &StoredImage, list: &str) -> StoredImage {
    let lease = folder.store.lease(&stored.key).unwrap();
    let digest = Digest::sha256(list.as_bytes());
    lease.protect([&digest]).unwrap();
    folder.store.put_blob(&lease, &digest, list.as_bytes()).unwrap();
    let spec: larder_oci::spec::Digest = digest.as_str().parse().unwrap();
    let index =
        larder_oci::spec::Descriptor::new(larder_oci::manifest::OCI_INDEX.into(), list.len() as u64, spec);
    lease
        .commit(NewImage { manifest: stored.manifest.clone(), index: Some(index), claim: Claim::None })
        .unwrap();
    drop(lease);
    folder.store.image(&stored.key).unwrap().unwrap()
}

#[test]
fn platforms() {
    let mut tar = Tar::default();
    let mut entries: Vec<Value> = Vec::new();
    for (number, platform) in ["amd64", "arm64", "s390x"].iter().enumerate() {
        let image = image(&[&[b'x'; 9][..=number]]);
        let mut entry = image.descriptor(Some("app:v1"));
        entry["platform"] = json!({"os": "linux", "architecture": platform});
        image.blob_entries().iter().for_each(|(path, bytes)| tar.file(path, bytes));
        entries.push(entry);
    }
    tar.file("index.json", index(&entries).as_bytes());
    let archive = tar.finish();
    let all = folder();
    assert_eq!(all.load(archive.clone()).unwrap().len(), 3, "a key for each platform");
    let one = folder();
    let load_for = |platform: &str| {
        let options = LoadOptions { platform: Some(platform.parse().unwrap()), only: None };
        let source = Source::Stream(Box::new(std::io::Cursor::new(archive.clone())));
        load(&one.store, source, &options, &|| false)
    };
    let loaded = load_for("linux/arm64").unwrap();
    assert_eq!((loaded.len(), loaded[0].key.platform.to_string().as_str()), (1, "linux/arm64"));
    one.assert_clean(&one.blobs());
    assert_eq!(one.blobs().len(), 3, "what is for other platforms is not kept");
    let error = load_for("linux/riscv64").unwrap_err().to_string();
    assert!(error.contains("linux/riscv64; it has linux/amd64, linux/arm64, linux/s390x"), "{error}");
}

#[test]
fn docker_archives_of_all_ages() {
    let image = image(&[b"lower", b"upper", b"lower"]);
    let expected = [Some("app:v1")];
    let mut digests = std::collections::BTreeSet::new();
    let mut check = |what: &str, archive: Vec<u8>| {
        let to = folder();
        let loaded = to.load(archive).unwrap_or_else(|error| panic!("{what}: {error}"));
        let names: Vec<_> = loaded.iter().map(|image| Some(image.key.name.familiar())).collect();
        assert_eq!(names, expected, "{what}");
        assert_eq!(loaded[0].id, Digest::sha256(&image.blobs[0]), "{what}: the ID is the configuration's");
        digests.insert(loaded[0].target.clone());
        to.assert_clean(&to.blobs());
    };
    check("skopeo's", image.docker(&json!(["app:v1"])).finish());
    let old = old_archive(&image);
    check("docker 1.10's", old.clone().finish());
    check("docker 1.10's with gzip", packed(&old.clone().finish(), Compression::Gzip));
    check("docker 1.10's with bzip2", packed(&old.clone().finish(), Compression::Bzip2));
    check("docker 1.10's with zstd", packed(&old.clone().finish(), Compression::Zstd));
    check("docker 1.10's with xz", xz(&old.finish()));
    // Compressions that no registry knows are taken off.
    for (extension, pack) in
        [("bz2", packed as fn(&[u8], Compression) -> Vec<u8>), ("xz", |bytes, _| xz(bytes))]
    {
        check(extension, with_packed_layers(&image, extension, |bytes| pack(bytes, Compression::Bzip2)));
    }
    assert_eq!(digests.len(), 1, "always the same manifest: {digests:?}");
    for how in [Compression::Gzip, Compression::Zstd] {
        let to = folder();
        let loaded = to.load(with_packed_layers(&image, "tar.x", |bytes| packed(bytes, how))).unwrap();
        let manifest = to.store.read_blob(&loaded[0].target, 1 << 20).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let media_type = format!("application/vnd.oci.image.layer.v1.tar+{how}");
        assert_eq!(manifest["layers"][0]["mediaType"], media_type.as_str());
    }
}

/// As docker up to 24 wrote them: a folder a layer, links for layers that are there already.
fn old_archive(image: &Image) -> Tar {
    let mut tar = Tar::default();
    let config = format!("{}.json", Digest::sha256(&image.blobs[0]).hex());
    let mut layers: Vec<String> = Vec::new();
    for (number, layer) in image.blobs[1..].iter().enumerate() {
        let folder = format!("{number:064x}");
        tar.entry(&format!("{folder}/"), tar::EntryType::Directory, "", 0, b"");
        tar.file(&format!("{folder}/VERSION"), b"1.0");
        tar.file(&format!("{folder}/json"), b"{}");
        match image.blobs[1..=number].iter().position(|other| other == layer) {
            Some(first) => {
                let target = format!("../{first:064x}/layer.tar");
                tar.link(&format!("{folder}/layer.tar"), tar::EntryType::Symlink, &target);
            }
            None => tar.file(&format!("{folder}/layer.tar"), layer),
        }
        layers.push(format!("{folder}/layer.tar"));
    }
    tar.file(&config, &image.blobs[0]);
    let manifest = json!([{"Config": config, "RepoTags": ["app:v1"], "Layers": layers}]);
    tar.file("manifest.json", manifest.to_string().as_bytes());
    tar.file("repositories", b"{}");
    tar
}

fn with_packed_layers(image: &Image, extension: &str, pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut tar = Tar::default();
    let mut layers = Vec::new();
    for (number, layer) in image.blobs[1..].iter().enumerate() {
        layers.push(format!("{number}.{extension}"));
        tar.file(&layers[number], &pack(layer));
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": ["app:v1"], "Layers": layers}]);
    // First what needs the rest: the order of entries does not matter.
    let mut first = Tar::default();
    first.file("manifest.json", manifest.to_string().as_bytes());
    first.file("config.json", &image.blobs[0]);
    first.0.extend(tar.0);
    first.finish()
}

#[test]
fn a_file_is_whole_or_not_there() {
    let from = folder();
    let layer = random(3, 2 << 20);
    let stored = from.put(&image(&[&layer]), "one:v1");
    let path = from.dir.path().join("one.tar.gz");
    let options = SaveOptions { form: Form::Both, compression: Compression::of_path(&path), threads: None };
    let images = [save_image(&stored)];
    let names = || fs::read_dir(from.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    // Nothing of it is to be seen while it is written, so nothing is left by a kill.
    let unseen = || {
        let names: Vec<_> = names();
        assert_eq!(names.len(), 1, "{names:?}");
        false
    };
    to_file(&from.store, &images, options, &path, &unseen).unwrap();
    let to_path = |path: &Path| to_file(&from.store, &images, options, path, &|| false);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&path).unwrap();
    assert_eq!(before[..2], [0x1f, 0x8b]);

    // A damaged blob: an error, and the file that was there stays.
    let blob = from.store.blob_path(&Digest::sha256(&layer));
    let mut bytes = layer.clone();
    bytes[12_345] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    assert!(matches!(to_path(&path), Err(ArchiveError::Damaged(_))));
    fs::write(&blob, &layer[1..]).unwrap();
    assert!(matches!(to_path(&path), Err(ArchiveError::Damaged(_))));
    fs::write(&blob, &layer).unwrap();
    let interrupted = to_file(&from.store, &images, options, &path, &|| true);
    assert!(matches!(interrupted, Err(ArchiveError::Interrupted)));
    assert_eq!(fs::read(&path).unwrap(), before);

    assert!(to_path(from.dir.path()).unwrap_err().to_string().contains("it is a folder"));
    assert!(to_path(Path::new("/dev/null")).unwrap_err().to_string().contains("got a device"));
    let nowhere = from.dir.path().join("no/such/folder.tar");
    assert!(to_path(&nowhere).unwrap_err().to_string().contains("No such file"));
    let left: Vec<_> = names();
    assert_eq!(left.len(), 2, "{left:?}");
    from.assert_clean(&from.blobs());
}

#[test]
fn artifacts_are_kept_out_of_dockers_form() {
    let from = folder();
    let mut artifact = image(&[b"chart"]);
    let mut manifest: Value = serde_json::from_slice(&artifact.manifest).unwrap();
    manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    artifact.manifest = manifest.to_string().into_bytes();
    let stored = from.put(&artifact, "chart:1");
    let images = [save_image(&stored)];
    let options = SaveOptions { form: Form::DockerArchive, compression: Compression::None, threads: None };
    let error = save(&from.store, &images, options, Vec::new(), &|| false).unwrap_err();
    assert!(matches!(error, ArchiveError::Artifact(_)), "{error}");
    let to = folder();
    let loaded = to.load(saved(&from, &images, Form::Both, Compression::None)).unwrap();
    assert_eq!(loaded[0].id, stored.manifest_digest);
    assert_eq!(to.store.images().unwrap(), [stored]);
}

#[test]
fn a_store_is_a_folder_that_loads_and_needs_no_second_copy_of_what_is_there() {
    let from = folder();
    let stored = from.put(&image(&[&random(4, 50_000), b"small"]), "one:v1");
    let to = folder();
    to.load_path(from.store.root()).unwrap();
    assert_eq!(to.store.images().unwrap(), std::slice::from_ref(&stored));
    to.assert_clean(&to.blobs());
    // An archive may leave out what the store has already.
    let mut thin = Tar::default();
    let mut descriptor = serde_json::to_value(&stored.manifest).unwrap();
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "two:v1"});
    thin.file("index.json", index(&[descriptor]).as_bytes());
    let loaded = to.load(thin.finish()).unwrap();
    let key = ImageKey { name: "two:v1".parse().unwrap(), platform: stored.key.platform.clone() };
    assert_eq!(loaded[0].key, key);
}

#[test]
fn a_stream_is_read_to_its_end() {
    // Else whoever writes into the pipe is told that nobody listens.
    struct Counted(std::io::Cursor<Vec<u8>>, Arc<std::sync::atomic::AtomicUsize>);
    impl Read for Counted {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.fetch_add(count, std::sync::atomic::Ordering::SeqCst);
            Ok(count)
        }
    }
    let mut archive = image(&[b"layer"]).oci("app:v1").finish();
    archive.resize(archive.len() + (3 << 20), 0);
    let (length, count) = (archive.len(), Arc::default());
    let source = Source::Stream(Box::new(Counted(std::io::Cursor::new(archive), Arc::clone(&count))));
    load(&folder().store, source, &LoadOptions::default(), &|| false).unwrap();
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), length);
}

#[test]
fn what_a_killed_load_has_left_goes_with_the_next() {
    let to = folder();
    // As after a kill: a lease that nobody holds, a blob that nothing else needs, and half of another one.
    let key = ImageKey {
        name: ImageName::nameless(&Digest::sha256(b"larder load")),
        platform: larder_oci::Platform::host(),
    };
    let lease = to.store.lease(&key).unwrap();
    let mut spool = lease.spool(larder_oci::digest::Algorithm::Sha256).unwrap();
    spool.write(b"of an archive that never ended").unwrap();
    let (left, _) = spool.finish().unwrap();
    let half = Digest::sha256(b"half");
    lease.protect([&half]).unwrap();
    if let larder_store::Ingest::Write(mut writer) = lease.ingest(&half, 4).unwrap() {
        writer.write(b"ha").unwrap();
    }
    lease.suspend();
    to.load(image(&[b"layer"]).oci("app:v1").finish()).unwrap();
    assert_eq!(to.store.blob_size(&left).unwrap(), None);
    to.assert_clean(&to.blobs());
}

/// Layers that a container runtime has in the store's stead are saved and loaded as others are.
#[test]
fn layers_that_were_handed_over() {
    let Folder { dir, store } = folder();
    let runtime = Runtime::new(&dir.path().join("runtime"));
    let without = Folder { store: store.clone(), dir: tempfile::tempdir().unwrap() };
    let from = Folder { store: store.with_annex(Arc::new(runtime.clone())), dir };
    let layers = [random(7, 70_000), random(8, 5_000)];
    let app = image(&[&layers[0], &layers[1]]);
    let stored = [save_image(&from.put(&app, "app:v1"))];
    let before = FORMS.map(|form| saved(&from, &stored, form, Compression::None));
    for layer in &layers {
        assert_eq!(runtime.take(&from.store, layer), layer.len() as u64);
    }
    assert_eq!(from.store.handed_over().unwrap().len(), 2);
    assert_eq!(FORMS.map(|form| saved(&from, &stored, form, Compression::None)), before);
    for form in FORMS {
        let options = SaveOptions { form, ..SaveOptions::default() };
        let error = save(&without.store, &stored, options, &mut Vec::new(), &|| false).unwrap_err();
        assert!(error.to_string().contains("container runtime"), "{error}");
    }

    // What can be read where it is, is not written again; who cannot read it keeps what the archive brings.
    let [whole, docker, oci] = before;
    for archive in [&whole, &docker, &oci] {
        from.load(archive.clone()).unwrap();
        assert_eq!(from.store.handed_over().unwrap().len(), 2);
    }
    without.load(docker).unwrap();
    assert!(from.store.handed_over().unwrap().is_empty());
    for layer in &layers {
        assert_eq!(without.store.read_blob(&Digest::sha256(layer), 1 << 20).unwrap(), *layer);
        runtime.take(&from.store, layer);
    }
    without.load(oci).unwrap();
    assert!(from.store.handed_over().unwrap().is_empty());
}
