//! `larder pull` as docker's users know it.

use larder_tests::Image;

use crate::support::{Desk, image, image_for, registry, tool};

#[test]
fn a_pull_prints_dockers_lines_and_others_read_the_store() {
    let (desk, registry) = (Desk::new(), registry());
    let built = image(1, &[300_000, 200_000]);
    let pushed = registry.push(&built, "team/app", "v1").unwrap();
    let output = desk.ok(&["pull", &pushed.name]);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "v1: Pulling from team/app");
    for layer in built.layers() {
        for stage in ["Pulling fs layer", "Download complete", "Pull complete"] {
            let line = format!("{}: {stage}", layer.digest.short());
            assert_eq!(lines.iter().filter(|given| **given == line).count(), 1, "{line}\n{output}");
        }
    }
    let closing = [
        format!("Digest: {}", pushed.digest),
        format!("Status: Downloaded newer image for {}", pushed.name),
        pushed.name.clone(),
    ];
    assert_eq!(lines[lines.len() - 3..], closing);
    assert_eq!(desk.skopeo(&pushed.name)["Digest"], pushed.digest.as_str());
    let listed = tool("umoci", &["ls", "--layout", desk.store().to_str().unwrap()]);
    assert!(listed.contains(&pushed.name), "{listed}");
    desk.check_store();

    // Again: one request, without a body, and no layer.
    let mark = registry.mark().unwrap();
    let output = desk.ok(&["image", "pull", &pushed.name]);
    assert!(output.contains(&format!("Status: Image is up to date for {}", pushed.name)), "{output}");
    let requests = registry.requests_since(mark).unwrap();
    assert_eq!((requests.len(), requests.manifest_heads()), (1, 1), "{requests:?}");
    assert_eq!(desk.ok(&["pull", "-q", &pushed.name]), format!("{}\n", pushed.name));
}

#[test]
fn layers_that_are_there_are_not_fetched() {
    let (desk, registry) = (Desk::new(), registry());
    let (small, large) = (image(10, &[100_000]), image(10, &[100_000, 150_000]));
    let first = registry.push(&small, "a", "latest").unwrap();
    let second = registry.push(&large, "b", "latest").unwrap();
    let output = desk.ok(&["pull", &first.repository]);
    assert!(output.starts_with("Using default tag: latest\nlatest: Pulling from a\n"), "{output}");
    let output = desk.ok(&["pull", &second.name]);
    let shared = small.layers()[0].digest.short();
    assert!(output.contains(&format!("{shared}: Already exists\n")), "{output}");
    assert!(!output.contains(&format!("{shared}: Pulling fs layer")), "{output}");
    assert_eq!(registry.requests().unwrap().gets_of(small.layers()[0].digest.as_str()), 1);
}

#[test]
fn every_name_is_tried_and_every_error_is_told() {
    let (desk, registry) = (Desk::new(), registry());
    let pushed = registry.push(&image(20, &[10_000]), "there", "v1").unwrap();
    let missing = format!("{}/missing:v1", registry.host());
    let ran = desk.larder(&["pull", &missing, &pushed.name, "Not A Name"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stdout.contains(&format!("Digest: {}", pushed.digest)), "{}", ran.stdout);
    assert!(ran.stderr.contains(&format!("manifest for {missing} not found")), "{}", ran.stderr);
    assert!(ran.stderr.contains("invalid image name"), "{}", ran.stderr);

    let other = registry.push(&image_for("linux/s390x", 21, &[9_000]), "other", "v1").unwrap();
    let error = desk.fails(&["pull", "--platform", "linux/arm64", &other.name]);
    assert!(error.contains("no matching manifest for linux/arm64"), "{error}");
    assert_eq!(desk.larder(&["pull", "--no-such-flag", "x"]).status.code(), Some(125));
}

#[test]
fn an_index_comes_for_one_platform_or_for_all() {
    let (desk, registry) = (Desk::new(), registry());
    let platforms = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
    let images: Vec<Image> =
        platforms.iter().zip(30..).map(|(platform, seed)| image_for(platform, seed, &[20_000])).collect();
    let index = Image::index(&images).unwrap();
    let pushed = registry.push(&index, "list", "v1").unwrap();
    let output = desk.ok(&["pull", "--platform", "linux/arm/v7", "--output", "json", &pushed.name]);
    let reported: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(reported[0]["Platform"], "linux/arm/v7");
    assert_eq!(reported[0]["Digest"], pushed.digest.as_str());
    let requests = registry.requests().unwrap();
    assert_eq!(requests.gets_of(images[0].layers()[0].digest.as_str()), 0);

    let output = desk.ok(&["pull", "--all-platforms", &pushed.name]);
    for platform in platforms {
        assert!(output.contains(&format!("Platform: {platform}\n")), "{output}");
    }
    for image in &images {
        let requests = registry.requests().unwrap();
        assert_eq!(requests.gets_of(image.layers()[0].digest.as_str()), 1);
    }
    desk.check_store();
    assert_eq!(entries(&desk).len(), 3);
}

#[test]
fn all_tags_come_one_by_one() {
    let (desk, registry) = (Desk::new(), registry());
    for (tag, seed) in [("v1", 40), ("v2", 41), ("edge", 42)] {
        registry.push(&image(seed, &[5_000]), "many", tag).unwrap();
    }
    let repository = format!("{}/many", registry.host());
    desk.ok(&["pull", "-a", "-q", &repository]);
    let names = entries(&desk);
    assert_eq!(names, ["edge", "v1", "v2"].map(|tag| format!("{repository}:{tag}")));
    let error = desk.fails(&["pull", "-a", &format!("{repository}:v1")]);
    assert!(error.contains("tag can't be used with --all-tags/-a"), "{error}");
}

#[test]
fn when_a_tag_moves_the_old_image_stays_without_it() {
    let (desk, registry) = (Desk::new(), registry());
    let old = registry.push(&image(50, &[30_000]), "moving", "v1").unwrap();
    desk.ok(&["pull", &old.name]);
    let new = registry.push(&image(51, &[30_000]), "moving", "v1").unwrap();
    let output = desk.ok(&["pull", &new.name]);
    assert!(output.contains(&format!("Digest: {}", new.digest)), "{output}");
    assert_eq!(entries(&desk), [new.name.clone(), format!("{}@{}", old.repository, old.digest)]);
    assert_eq!(desk.skopeo(&new.name)["Digest"], new.digest.as_str());
    // By its digest it is there still, and nobody is asked for it.
    let mark = registry.mark().unwrap();
    desk.ok(&["pull", &format!("{}@{}", old.repository, old.digest)]);
    assert_eq!(registry.requests_since(mark).unwrap().len(), 0);
}

/// The names in the store's index, sorted.
fn entries(desk: &Desk) -> Vec<String> {
    let index = std::fs::read(desk.store().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let name = |entry: &serde_json::Value| {
        entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned()
    };
    let mut names: Vec<String> = index["manifests"].as_array().unwrap().iter().map(name).collect();
    names.sort();
    names
}
