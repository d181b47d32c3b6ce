//! The harness itself: that its parts are real, do what they say, and leave nothing behind.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use larder_tests::process::run;
use larder_tests::tools::in_path;
use larder_tests::wait::PATIENCE;
use larder_tests::{
    Access, Answer, Blob, ControlPlane, Fault, Image, Layer, MachineFiles, Program, Proxy, Registry,
    RegistryOptions, Rule, Scratch, until,
};

fn registry() -> Registry {
    Registry::start(RegistryOptions::default()).unwrap()
}

fn small_image(seed: u64) -> Image {
    Image::builder().layer(&Layer::random(seed, 300_000).unwrap()).env("SEED=1").build().unwrap()
}

/// The answer's status and body, or why there is none, as curl tells it.
fn curl(args: &[&str]) -> Result<(String, Vec<u8>), String> {
    let scratch = Scratch::new("curl").unwrap();
    let body = scratch.path().join("body");
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--write-out", "%{http_code}", "--output"])
        .arg(&body)
        .args(args)
        .output()
        .unwrap();
    if !output.status.success() {
        let read = std::fs::read(&body).unwrap_or_default().len();
        return Err(format!("{} [{read} bytes]", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok((String::from_utf8(output.stdout).unwrap(), std::fs::read(&body).unwrap_or_default()))
}

fn blob_url(host: &str, repository: &str, blob: &Blob) -> String {
    format!("http://{host}/v2/{repository}/blobs/{}", blob.digest)
}

#[test]
fn control_plane_comes_up_and_comes_back() {
    let cluster = ControlPlane::start().unwrap();
    cluster.create_node("n1", &[("pool", "web")]).unwrap();
    let nodes = cluster.get(&["nodes", "-l", "pool=web"]).unwrap();
    assert_eq!(nodes["items"][0]["metadata"]["name"], "n1");

    cluster.stop_apiserver();
    assert!(!cluster.try_kubectl(&["get", "nodes"], "").unwrap().status.success());
    cluster.start_apiserver().unwrap();
    assert_eq!(cluster.get(&["node", "n1"]).unwrap()["metadata"]["labels"]["pool"], "web");
}

#[test]
fn rbac_holds_for_users_that_are_not_the_administrator() {
    let cluster = ControlPlane::start().unwrap();
    let stranger = cluster.kubeconfig_for(Access::User("stranger")).unwrap();
    let refused =
        cluster.try_kubectl(&["--kubeconfig", stranger.to_str().unwrap(), "get", "nodes"], "").unwrap();
    assert!(refused.stderr.contains("Forbidden"), "{}", refused.stderr);
    assert!(refused.stderr.contains("stranger"), "{}", refused.stderr);
}

#[test]
fn definitions_install_without_a_warning_and_kubectl_explains_them() {
    let cluster = ControlPlane::start().unwrap();
    let applied = cluster.install_crds().unwrap();
    assert_eq!(applied.stderr, "", "the API server warns of something in the schema");
    let explained = cluster.kubectl(&["explain", "imagecache.spec.images.image"]).unwrap();
    assert!(explained.stdout.contains("[registry/]repository[:tag][@digest]"), "{}", explained.stdout);
    for definition in larder_crds::definitions() {
        let name = definition.metadata.name.unwrap();
        let served = cluster.get(&["customresourcedefinition", &name]).unwrap();
        let conditions = served["status"]["conditions"].as_array().unwrap();
        let bad = conditions.iter().find(|c| c["type"] == "NonStructuralSchema" && c["status"] == "True");
        assert_eq!(bad, None, "{name}");
    }
}

#[test]
fn pushed_images_are_what_skopeo_sees() {
    let registry = registry();
    let shared = MachineFiles::list().unwrap().layer(1 << 20).unwrap();
    let for_platform = |platform: &str| {
        let own = Layer::of(&[("etc/platform", platform.as_bytes())]).unwrap();
        Image::builder().platform(platform).layer(&shared).layer(&own).label("a", "b").build().unwrap()
    };
    let index = Image::index(&[for_platform("linux/amd64"), for_platform("linux/arm64/v8")]).unwrap();
    let pushed = registry.push(&index, "team/app", "v1").unwrap();

    let skopeo = |args: &[&str]| {
        run(&in_path("skopeo").unwrap(), args, &[], b"").unwrap().ok().unwrap().json().unwrap()
    };
    let name = format!("docker://{}", pushed.name);
    let seen = skopeo(&["inspect", "--tls-verify=false", "--override-arch=arm64", &name]);
    assert_eq!(seen["Digest"], pushed.digest.as_str());
    assert_eq!(seen["Architecture"], "arm64");
    assert_eq!(seen["Labels"]["a"], "b");
    assert_eq!(seen["Layers"][0], shared.digest.as_str());

    let docker = Image::builder().layer(&shared).docker().build().unwrap();
    let pushed = registry.push(&docker, "team/docker", "v1").unwrap();
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{}", pushed.name)]);
    assert_eq!(raw["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");

    let artifact =
        Image::artifact("application/x-model", vec![Blob::new("application/x-weights", "w")]).unwrap();
    registry.push(&artifact, "team/model", "v1").unwrap();
}

#[test]
fn image_layouts_are_what_umoci_and_skopeo_read() {
    let scratch = Scratch::new("layout").unwrap();
    let layout = scratch.path().join("layout");
    let image = small_image(3);
    image.write_layout(&layout, "v1").unwrap();
    let listed = run(&in_path("umoci").unwrap(), &["ls", "--layout", layout.to_str().unwrap()], &[], b"");
    assert_eq!(listed.unwrap().ok().unwrap().stdout.trim(), "v1");
    let name = format!("oci:{}:v1", layout.display());
    let seen = run(&in_path("skopeo").unwrap(), &["inspect", &name], &[], b"").unwrap().ok().unwrap();
    assert_eq!(seen.json().unwrap()["Digest"], image.digest().as_str());
}

#[test]
fn registry_counts_requests_and_keeps_its_content_over_a_restart() {
    let registry = registry();
    let image = small_image(1);
    let pushed = registry.push(&image, "app", "v1").unwrap();
    assert_eq!(pushed.name, format!("{}/app:v1", registry.host()));
    let layer = &image.layers()[0];

    let mark = registry.mark().unwrap();
    let (status, body) = curl(&[&blob_url(&registry.host(), "app", layer)]).unwrap();
    assert_eq!((status.as_str(), body.len() as u64), ("200", layer.size()));
    let requests = registry.requests_since(mark).unwrap();
    assert_eq!((requests.len(), requests.blob_gets(), requests.manifest_gets()), (1, 1, 0));
    assert_eq!(requests.gets_of(layer.digest.as_str()), 1);
    assert_eq!(requests.blob_bytes(), layer.size());

    registry.stop();
    assert!(curl(&[&blob_url(&registry.host(), "app", layer)]).unwrap_err().contains("connect to server"));
    registry.restart().unwrap();
    assert_eq!(curl(&[&blob_url(&registry.host(), "app", layer)]).unwrap().0, "200");
    assert_eq!(registry.requests_since(mark).unwrap().blob_gets(), 2);
}

#[test]
fn registry_with_login_and_private_ca_lets_nobody_else_in() {
    let options = RegistryOptions {
        login: Some(("ann".to_owned(), "s3cret".to_owned())),
        tls: true,
        delete: true,
        ..RegistryOptions::default()
    };
    let registry = Registry::start(options).unwrap();
    let image = small_image(2);
    let pushed = registry.push(&image, "private/app", "v1").unwrap();
    let url = format!("{}/v2/private/app/manifests/v1", registry.url());
    let ca = registry.ca_file().unwrap().to_str().unwrap();
    let accept = ["--header", "Accept: application/vnd.oci.image.manifest.v1+json"];
    assert!(curl(&[&url]).unwrap_err().contains("certificate"), "trusted without the CA");
    assert_eq!(curl(&["--cacert", ca, &url]).unwrap().0, "401");
    assert_eq!(curl(&["--cacert", ca, "--user", "ann:wrong", &url]).unwrap().0, "401");
    let (status, body) =
        curl(&[&["--cacert", ca, "--user", "ann:s3cret"], &accept[..], &[&url]].concat()).unwrap();
    assert_eq!(status, "200");
    assert_eq!(body, image.manifest.bytes);

    registry.delete_manifest("private/app", pushed.digest.as_str()).unwrap();
    assert_eq!(curl(&["--cacert", ca, "--user", "ann:s3cret", &url]).unwrap().0, "404");
}

#[test]
fn proxy_passes_pushes_and_pulls_through() {
    let registry = registry();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let scratch = Scratch::new("through").unwrap();
    let layout = scratch.path().join("layout");
    let image = small_image(4);
    image.write_layout(&layout, "v1").unwrap();
    let skopeo = |args: &[&str]| run(&in_path("skopeo").unwrap(), args, &[], b"").unwrap().ok().unwrap();
    let remote = format!("docker://{}/through:v1", proxy.host());
    skopeo(&["copy", "--dest-tls-verify=false", &format!("oci:{}:v1", layout.display()), &remote]);
    let seen = skopeo(&["inspect", "--tls-verify=false", &remote]).json().unwrap();
    assert_eq!(seen["Digest"], image.digest().as_str());
    assert!(registry.requests().unwrap().iter().any(|r| r.method == "PUT" && r.is_manifest()));

    registry.stop();
    assert_eq!(curl(&[&format!("http://{}/v2/", proxy.host())]).unwrap().0, "502");
}

#[test]
fn proxy_faults_do_what_they_say() {
    let registry = registry();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let image = small_image(5);
    registry.push(&image, "app", "v1").unwrap();
    let layer = &image.layers()[0];
    let (url, original) = (blob_url(&proxy.host(), "app", layer), layer.bytes.to_vec());
    let with = |fault: Fault| {
        proxy.clear();
        let hits = proxy.add(Rule::get(layer.digest.as_str()).times(1).then(fault));
        let result = curl(&[&url]);
        assert_eq!(hits.count(), 1);
        result
    };
    let body_with = |fault| with(fault).unwrap().1;

    assert_eq!(
        with(Answer::status(503).header("retry-after", "1").body("busy").into()).unwrap(),
        ("503".into(), b"busy".to_vec())
    );
    assert_eq!(curl(&[&url]).unwrap().1, original, "the rule's budget was for one request");

    assert!(with(Fault::ResetAfter(100_000)).unwrap_err().contains("reset by peer"));
    let truncated = with(Fault::TruncateAfter(100_000)).unwrap_err();
    assert!(truncated.contains("bytes remaining") && truncated.contains("[100000 bytes]"), "{truncated}");
    let stalled = {
        proxy.clear();
        proxy.add(Rule::get("/blobs/").then(Fault::StallAfter(50_000)));
        curl(&["--max-time", "1", &url]).unwrap_err()
    };
    assert!(stalled.contains("[50000 bytes]"), "{stalled}");

    let flipped = body_with(Fault::FlipByte(70_000));
    let differing: Vec<usize> = (0..original.len()).filter(|&i| flipped[i] != original[i]).collect();
    assert_eq!(differing, [70_000]);
    assert_eq!(body_with(Fault::Shorten(1_000)), original[..1_000]);
    assert_eq!(body_with(Fault::Append("more".into())), [original.as_slice(), b"more"].concat());
    assert_eq!(body_with(Fault::ReplaceBody("other".into())), b"other");
    assert_eq!(body_with(Fault::Rate(10_000_000)), original);
}

#[test]
fn proxy_changes_headers_and_ignores_ranges() {
    let registry = registry();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let image = small_image(6);
    registry.push(&image, "app", "v1").unwrap();
    let layer = &image.layers()[0];
    let url = blob_url(&proxy.host(), "app", layer);

    let range = ["--range", "1000-"];
    let (status, body) = curl(&[&range[..], &[&url]].concat()).unwrap();
    assert_eq!((status.as_str(), body.len() as u64), ("206", layer.size() - 1_000));
    let hits = proxy.add(
        Rule::get("/blobs/").when(|request| request.headers.contains_key("range")).then(Fault::IgnoreRange),
    );
    let (status, body) = curl(&[&range[..], &[&url]].concat()).unwrap();
    assert_eq!((status.as_str(), body.len() as u64), ("200", layer.size()));
    curl(&[&url]).unwrap();
    assert_eq!(hits.count(), 1, "the condition holds for requests with a range alone");

    let lie = format!("sha256:{}", "0".repeat(64));
    proxy.add(Rule::head("/manifests/").then(Fault::Header("docker-content-digest", lie.clone())));
    let head = Command::new("curl")
        .args(["--silent", "--head", "--noproxy", "*"])
        .args(["--header", "Accept: application/vnd.oci.image.manifest.v1+json"])
        .arg(format!("http://{}/v2/app/manifests/v1", proxy.host()))
        .output()
        .unwrap();
    let head = String::from_utf8(head.stdout).unwrap().to_lowercase();
    assert!(head.contains(&format!("docker-content-digest: {lie}")), "{head}");

    let exchanges = proxy.exchanges();
    assert_eq!(exchanges[0].range.as_deref(), Some("bytes=1000-"));
    assert_eq!(exchanges[0].bytes, layer.size() - 1_000);
    assert_eq!(proxy.bytes_for(layer.digest.as_str()), 3 * layer.size() - 1_000);
}

/// What invariant tests of pulls rest on: a client can be killed at a byte, and little more than it read counts.
#[test]
fn proxy_kills_a_client_at_a_byte_and_counts_what_was_sent() {
    let registry = registry();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let image = Image::builder().layer(&Layer::random(7, 20 << 20).unwrap()).build().unwrap();
    registry.push(&image, "app", "v1").unwrap();
    let url = blob_url(&proxy.host(), "app", &image.layers()[0]);
    proxy.limit_rate(Some(50_000_000));

    let scratch = Scratch::new("kill").unwrap();
    let body = scratch.path().join("body");
    let client = Program::new("curl", &in_path("curl").unwrap(), scratch.path()).args([
        "--silent",
        "--noproxy",
        "*",
        "--no-buffer",
        "--output",
        body.to_str().unwrap(),
        &url,
    ]);
    let (sender, called) = mpsc::channel();
    let killer = client.killer();
    proxy.on_bytes(5_000_000, move || {
        killer.kill();
        sender.send(()).unwrap();
    });
    client.start().unwrap();
    called.recv_timeout(PATIENCE).unwrap();
    assert!(!client.wait(PATIENCE).unwrap().success());

    // The connection's end is noticed at the next write.
    let mut last = 0;
    until("the proxy to stop sending", PATIENCE, || {
        let sent = proxy.bytes_sent();
        std::mem::replace(&mut last, sent).eq(&sent).then_some(())
    })
    .unwrap();
    let (read, sent) = (std::fs::metadata(&body).unwrap().len(), proxy.bytes_sent());
    assert!(sent >= 5_000_000, "killed before the byte: {sent}");
    assert!(sent < 20 << 20, "the kill came too late: {sent}");
    assert!(read <= sent, "{read} bytes read of {sent} sent");
}

#[test]
fn programs_end_with_their_handle_and_are_told_from_those_that_fail() {
    let scratch = Scratch::new("programs").unwrap();
    let sleep = Program::new("sleep", &in_path("sleep").unwrap(), scratch.path()).args(["600"]);
    sleep.start().unwrap();
    let id = sleep.id().unwrap();
    // setpriv becomes the program a moment after the start.
    let command = || std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
    until("setpriv to become the program", PATIENCE, || command().starts_with('/').then_some(())).unwrap();
    assert!(sleep.start().is_err(), "started twice");
    drop(sleep);
    assert!(!Path::new(&format!("/proc/{id}")).exists());

    let failing =
        Program::new("sh", &in_path("sh").unwrap(), scratch.path()).args(["-c", "echo no good >&2; exit 3"]);
    let error = failing.start_until("sh to be ready", || false).unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("no good"), "{error}");
}

/// A test that is killed cannot clean up: the kernel does it for its processes and ports.
#[test]
fn nothing_outlives_a_killed_test() {
    if let Some(folder) = std::env::var_os("LARDER_TESTS_INNER") {
        return start_parts_and_wait_to_be_killed(Path::new(&folder));
    }
    let scratch = Scratch::new("killed").unwrap();
    let own = std::env::current_exe().unwrap();
    let inner = Program::new("inner", &own, scratch.path())
        .env("LARDER_TESTS_INNER", scratch.path())
        .env("TMPDIR", scratch.path())
        .args(["--exact", "nothing_outlives_a_killed_test"]);
    inner.start().unwrap();
    let told = scratch.path().join("told");
    let told = until("the inner test to start its parts", PATIENCE, || {
        inner.ensure_running().unwrap();
        std::fs::read_to_string(&told).ok().filter(|text| text.ends_with('\n'))
    })
    .unwrap();
    let (process, port) = told.trim().split_once(' ').unwrap();
    assert!(Path::new(&format!("/proc/{process}")).exists());
    inner.kill();
    until("the registry to die with the test", PATIENCE, || {
        // A process whose parent is gone may stay a zombie for as long as init takes.
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .unwrap();
    until("the port to be free again", PATIENCE, || {
        larder_tests::port::Port::exactly(port.parse().unwrap()).ok()
    })
    .unwrap();
}

/// What [`nothing_outlives_a_killed_test`] does in the process that it kills.
fn start_parts_and_wait_to_be_killed(folder: &Path) {
    let registry = registry();
    let port = registry.host().split_once(':').unwrap().1.to_owned();
    let told = format!("{} {port}\n", registry.program().id().unwrap());
    std::fs::write(folder.join("told"), told).unwrap();
    std::thread::sleep(PATIENCE);
}

#[test]
fn what_a_test_made_is_gone_when_it_ends() {
    let parent = Scratch::new("gone").unwrap();
    let own = std::env::current_exe().unwrap();
    let ran = run(
        &own,
        &[
            "--exact",
            "control_plane_comes_up_and_comes_back",
            "registry_counts_requests_and_keeps_its_content_over_a_restart",
        ],
        &[("TMPDIR", parent.path().as_os_str())],
        b"",
    )
    .unwrap()
    .ok()
    .unwrap();
    assert!(ran.stdout.contains("2 passed"), "{}", ran.stdout);
    let left: Vec<_> =
        std::fs::read_dir(parent.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
    let user = parent.path().to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(&user))
    });
    assert_eq!(processes.count(), 0, "processes that use the test's folder are left");
}

#[test]
fn ports_are_reserved_for_as_long_as_they_are_held() {
    use std::os::linux::net::SocketAddrExt;
    let port = larder_tests::port::Port::free().unwrap();
    let number = port.number();
    assert!(larder_tests::port::Port::exactly(number).is_err());
    drop(port);
    let again = larder_tests::port::Port::exactly(number).unwrap();
    let name = format!("larder-tests-port-{}", again.number());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    assert!(UnixListener::bind_addr(&address).is_err());
}
