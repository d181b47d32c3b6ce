//! `larder push`.

use larder_tests::{Fault, Image, Proxy, Rule};

use crate::support::{Desk, image, image_for, registry, tool};

#[test]
fn a_push_prints_dockers_lines_and_keeps_the_bytes() {
    let (desk, source, target) = (Desk::new(), registry(), registry());
    let built = image(300, &[400_000, 20_000]);
    let pulled = source.push(&built, "app", "v1").unwrap();
    desk.ok(&["pull", &pulled.name]);
    let name = format!("{}/team/app:v2", target.host());
    assert_eq!(desk.ok(&["tag", &pulled.name, &name]), "");
    let output = desk.ok(&["push", &name]);
    let first = format!("The push refers to repository [{}/team/app]\n", target.host());
    assert!(output.starts_with(&first), "{output}");
    for layer in built.layers() {
        assert!(output.contains(&format!("{}: Preparing\n", layer.digest.short())), "{output}");
        assert!(output.contains(&format!("{}: Pushed\n", layer.digest.short())), "{output}");
    }
    let last = format!("v2: digest: {} size: {}\n", pulled.digest, built.manifest.size());
    assert!(output.ends_with(&last), "{output}");
    let inspected = tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{name}")]);
    assert!(inspected.contains(pulled.digest.as_str()), "{inspected}");

    // Again: nothing is sent.
    let mark = target.mark().unwrap();
    let output = desk.ok(&["push", &name]);
    assert!(output.contains(": Layer already exists\n"), "{output}");
    assert_eq!(target.requests_since(mark).unwrap().count(|r| r.method == "POST" || r.method == "PATCH"), 0);

    // To another repository of the registry: mounted, not sent.
    let other = format!("{}/mounted:v1", target.host());
    desk.ok(&["tag", &pulled.name, &other]);
    let mark = target.mark().unwrap();
    let output = desk.ok(&["push", &other]);
    assert!(output.contains(": Mounted from team/app\n"), "{output}");
    assert_eq!(target.requests_since(mark).unwrap().count(|r| r.method == "PATCH"), 0);
}

#[test]
fn all_tags_of_a_repository_go_and_a_missing_one_is_an_error() {
    let (desk, source, target) = (Desk::new(), registry(), registry());
    let repository = format!("{}/many", target.host());
    let error = desk.fails(&["push", &repository]);
    assert!(
        error.contains(&format!("An image does not exist locally with the tag: {repository}")),
        "{error}"
    );
    for (tag, seed) in [("v1", 310), ("v2", 311)] {
        let pulled = source.push(&image(seed, &[9_000]), "many", tag).unwrap();
        desk.ok(&["pull", "-q", &pulled.name]);
        desk.ok(&["tag", &pulled.name, &format!("{repository}:{tag}")]);
    }
    let output = desk.ok(&["push", "-a", &repository]);
    assert!(output.contains("v1: digest: ") && output.contains("v2: digest: "), "{output}");
    let tags = tool("skopeo", &["list-tags", "--tls-verify=false", &format!("docker://{repository}")]);
    assert!(tags.contains("v1") && tags.contains("v2"), "{tags}");
}

#[test]
fn lists_go_whole_or_as_far_as_they_are_there() {
    let (desk, source, target) = (Desk::new(), registry(), registry());
    let platforms = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
    let images: Vec<Image> =
        platforms.iter().zip(320..).map(|(platform, seed)| image_for(platform, seed, &[9_000])).collect();
    let list = source.push(&Image::index(&images).unwrap(), "list", "v1").unwrap();
    let push = |repository: &str| {
        let name = format!("{}/{repository}:v1", target.host());
        desk.ok(&["tag", &list.name, &name]);
        (desk.larder(&["push", &name]).ok().unwrap(), name)
    };
    desk.ok(&["pull", "--platform", platforms[0], &list.name]);
    let (ran, _) = push("one");
    assert!(ran.stdout.contains(&format!("v1: digest: {}", images[0].digest())), "{}", ran.stdout);
    assert!(ran.stderr.contains("a list of 3 images, of which the store has 1"), "{}", ran.stderr);

    desk.ok(&["pull", "--platform", platforms[1], &list.name]);
    let (ran, name) = push("two");
    assert!(ran.stderr.contains("of which the store has 2"), "{}", ran.stderr);
    let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let raw: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(raw["manifests"].as_array().unwrap().len(), 2);

    desk.ok(&["pull", "--all-platforms", &list.name]);
    let (ran, name) = push("all");
    assert!(ran.stdout.contains(&format!("v1: digest: {}", list.digest)), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");
    let second = Desk::new();
    second.ok(&["pull", "--platform", "linux/arm/v7", &name]);
    second.check_store();
}

#[test]
fn an_upload_that_breaks_off_goes_on_where_it_stopped() {
    let (desk, source, target) = (Desk::new(), registry(), registry());
    let built = image(330, &[20 << 20]);
    let pulled = source.push(&built, "large", "v1").unwrap();
    desk.ok(&["pull", "-q", &pulled.name]);
    let proxy = Proxy::start(&target.host()).unwrap();
    let name = format!("{}/large:v1", proxy.host());
    desk.ok(&["tag", &pulled.name, &name]);
    // The answer to the first chunk is lost on its way back.
    let patches = Rule::any("/blobs/uploads/").when(|request| request.method == "PATCH");
    let hits = proxy.add(patches.times(1).then(Fault::ResetAfter(0)));
    let output = desk.ok(&["push", &name]);
    assert!(hits.count() > 0);
    assert!(output.contains(&format!("v1: digest: {}", pulled.digest)), "{output}");
    let second = Desk::new();
    second.ok(&["pull", "-q", &format!("{}/large:v1", target.host())]);
    second.check_store();
}
