use std::os::unix::fs::MetadataExt;

use larder_tests::registry::REGISTRY_NAME;
use larder_tests::{Image, Layer, Registry, RegistryOptions};
use serde_json::json;

use crate::bundle::{Bundle, shared};
use crate::dns::NameServer;

const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

#[test]
fn the_programs_run_without_rights_on_a_root_that_is_not_written_to() {
    let shared = shared();
    for (image, user, programs) in
        [(&shared.operator, 65532, &["larder-operator"][..]), (&shared.agent, 0, &["larder-agent", "larder"])]
    {
        let mut bundle = Bundle::unpack(image);
        assert_eq!(bundle.process()["user"]["uid"], user);
        assert_eq!(bundle.process()["args"], json!([format!("/usr/bin/{}", programs[0])]));
        for program in programs {
            // Found by PATH, as `kubectl exec` would.
            let ran = bundle.run(&[program, "--version"]).ok().unwrap();
            assert_eq!(ran.stdout, format!("{program} {}\n", env!("CARGO_PKG_VERSION")), "{}", ran.stderr);
        }
    }
}

#[test]
fn there_is_nothing_else_in_them() {
    let bundle = Bundle::unpack(&shared().agent);
    let names = |folder: &str| {
        let entries = std::fs::read_dir(bundle.root().join(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("usr/bin"), ["larder", "larder-agent"]);
    let root = names("");
    assert!(!root.contains(&"tmp".to_owned()) && !root.contains(&"bin".to_owned()), "{root:?}");
    for path in ["usr/bin/larder", "etc/passwd", CERTIFICATES] {
        let metadata = bundle.root().join(path).metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mtime()), (0, 0, 0), "{path}");
        assert_eq!(metadata.mode() & 0o022, 0, "{path} can be written to by others");
    }
    let passwd = std::fs::read_to_string(bundle.root().join("etc/passwd")).unwrap();
    assert!(passwd.contains("nonroot:x:65532:65532:"), "{passwd}");
}

#[test]
fn names_are_looked_up_and_certificates_found() {
    let registry = Registry::start(RegistryOptions { tls: true, ..RegistryOptions::default() }).unwrap();
    let image = Image::builder().layer(&Layer::random(1, 100_000).unwrap()).build().unwrap();
    let pushed = registry.push(&image, "team/app", "v1").unwrap();
    let host = registry.host();
    let (_, port) = host.rsplit_once(':').unwrap();
    let name = format!("{REGISTRY_NAME}:{port}/team/app:v1");

    let mut bundle = Bundle::unpack(&shared().agent);
    bundle.share_network();
    bundle.mount("/var/lib/larder");
    let pull = |bundle: &mut Bundle| bundle.run(&["larder", "pull", "--quiet", &name]);
    let write = |bundle: &Bundle, path: &str, content: &str| {
        std::fs::write(bundle.root().join(path), content).unwrap();
    };

    // Where the programs look for authorities: those of the image, and the registry's.
    let certificates = std::fs::read_to_string(bundle.root().join(CERTIFICATES)).unwrap();
    let authority = std::fs::read_to_string(registry.ca_file().unwrap()).unwrap();
    write(&bundle, CERTIFICATES, &(certificates + &authority));

    // By DNS, without an /etc/hosts.
    let server = NameServer::start();
    write(&bundle, "etc/resolv.conf", &format!("nameserver {}\n", server.address));
    assert_eq!(pull(&mut bundle).ok().unwrap().stdout, format!("{name}\n"));
    let questions = server.questions();
    assert!(questions > 0);

    // By /etc/hosts, and nobody is asked.
    write(&bundle, "etc/hosts", &format!("127.0.0.1 {REGISTRY_NAME}\n"));
    assert_eq!(pull(&mut bundle).ok().unwrap().stdout, format!("{name}\n"));
    assert_eq!(server.questions(), questions);
    let listed = bundle.run(&["larder", "images", "--no-trunc", "--digests", "--format", "{{.Digest}}"]);
    assert_eq!(listed.ok().unwrap().stdout.trim(), pushed.digest.as_str());
}
