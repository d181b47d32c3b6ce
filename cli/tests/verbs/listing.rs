use larder_cli::human;
use larder_oci::{Digest, ImageName};
use serde_json::{Value, json};

use crate::fixture::{Shelf, made, short};

#[test]
fn dockers_columns_the_newest_first() {
    let shelf = Shelf::new();
    let (old, old_digest) = shelf.put("app:v1", &made("old").created("2020-01-01T00:00:00Z"));
    let (new, new_digest) = shelf.put("quay.io/team/app", &made("new").created("2024-01-01T00:00:00.5Z"));
    let (undated, undated_digest) = shelf.put("plain", &made("plain"));
    let now = jiff::Timestamp::now();
    let age = |time: &str| human::since(time.parse().unwrap(), now);
    let (new_age, old_age) = (age("2024-01-01T00:00:00Z"), age("2020-01-01T00:00:00Z"));
    let width = new_age.len().max(old_age.len()) + 3;
    let sizes: Vec<String> =
        shelf.ok(&["images", "--format", "{{.Size}}"]).lines().map(str::to_owned).collect();
    let expected = format!(
        "REPOSITORY         TAG       IMAGE ID       {:width$}SIZE\n\
         quay.io/team/app   latest    {}   {new_age:width$}{}\n\
         app                v1        {}   {old_age:width$}{}\n\
         plain              latest    {}   {:width$}{}\n",
        "CREATED",
        short(&new),
        sizes[0],
        short(&old),
        sizes[1],
        short(&undated),
        "N/A",
        sizes[2]
    );
    assert_eq!(shelf.ok(&["images"]), expected);
    assert_eq!(shelf.ok(&["ls"]), expected);
    assert_eq!(shelf.ok(&["image", "ls"]), expected);
    assert_eq!(
        shelf.ok(&["images", "-q"]),
        format!("{}\n{}\n{}\n", short(&new), short(&old), short(&undated))
    );
    assert_eq!(shelf.ok(&["images", "-q", "--no-trunc"]), format!("{new}\n{old}\n{undated}\n"));
    let digests = shelf.ok(&["images", "--digests", "--format", "table {{.Repository}}"]);
    assert_eq!(
        digests.lines().map(|line| line.split_whitespace().last().unwrap()).collect::<Vec<_>>(),
        ["DIGEST", &new_digest, &old_digest, &undated_digest]
    );
    assert!(shelf.ok(&["images", "--digests"]).starts_with("REPOSITORY         TAG       DIGEST   "));
}

#[test]
fn json_and_templates() {
    let shelf = Shelf::new();
    let (id, digest) = shelf.put("app:v1", &made("x").created("2020-01-01T00:00:00Z"));
    let line = shelf.ok(&["images", "--format", "json"]);
    let row: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&row["ID"], &row["Repository"], &row["Tag"]),
        (&json!(short(&id)), &json!("app"), &json!("v1"))
    );
    assert_eq!(
        (&row["Digest"], &row["CreatedAt"]),
        (&json!(digest), &json!("2020-01-01 00:00:00 +0000 UTC"))
    );
    let report: Value = serde_json::from_str(&shelf.ok(&["images", "--output", "json"])).unwrap();
    assert_eq!(report, json!([row]));
    assert_eq!(shelf.ok(&["images", "--format", "{{.Repository}}\\t{{upper .Tag}}"]), "app\tV1\n");
    assert_eq!(shelf.run(&["images", "--format", "{{.Nope"]).status, 64);
    let unknown = shelf.run(&["images", "--format", "{{.Nope}}"]);
    assert_eq!(unknown.status, 1);
    assert!(unknown.stderr.contains("template"), "{}", unknown.stderr);
}

#[test]
fn filters_choose() {
    let shelf = Shelf::new();
    shelf.put("old", &made("old").created("2020-01-01T00:00:00Z").config("Labels", json!({"team": "a"})));
    shelf.put(
        "team/mid:1",
        &made("mid").created("2021-01-01T00:00:00Z").config("Labels", json!({"team": "b"})),
    );
    shelf.put("new", &made("new").created("2022-01-01T00:00:00Z"));
    shelf.put("new", &made("newer").created("2023-01-01T00:00:00Z"));
    for (filters, expected) in [
        (vec!["dangling=true"], vec!["new:<none>"]),
        (vec!["dangling=false"], vec!["new:latest", "old:latest", "team/mid:1"]),
        (vec!["label=team"], vec!["old:latest", "team/mid:1"]),
        (vec!["label=team=a"], vec!["old:latest"]),
        (vec!["label=team=a", "label=team=b"], vec![]),
        (vec!["label!=team"], vec!["new:<none>", "new:latest"]),
        (vec!["before=team/mid:1"], vec!["old:latest"]),
        (vec!["since=team/mid:1"], vec!["new:<none>", "new:latest"]),
        (vec!["since=old", "before=new"], vec!["new:<none>", "team/mid:1"]),
        (vec!["reference=*/*"], vec!["team/mid:1"]),
        (vec!["reference=new", "reference=old"], vec!["new:<none>", "new:latest", "old:latest"]),
        (vec!["until=2020-06-01"], vec!["old:latest"]),
    ] {
        let mut args = vec!["images", "--format", "{{.Repository}}:{{.Tag}}"];
        args.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
        let text = shelf.ok(&args);
        let mut names: Vec<&str> = text.lines().collect();
        names.sort_unstable();
        assert_eq!(names, expected, "{filters:?}");
    }
    assert_eq!(shelf.ok(&["images", "-q", "team/mid:2"]), "");
    assert_eq!(shelf.ok(&["images", "--format", "{{.Tag}}", "team/mid"]), "1\n");
    for bad in ["colour=red", "dangling=maybe", "before=gone", "until=soon", "reference=["] {
        assert_eq!(shelf.run(&["images", "--filter", bad]).status, 1, "{bad}");
    }
}

#[test]
fn images_without_a_tag_or_a_name() {
    let shelf = Shelf::new();
    shelf.put("app", &made("old"));
    shelf.put("app", &made("new"));
    let nameless = ImageName::nameless(&Digest::sha256(b"x"));
    shelf.put_as(&nameless, &made("nameless"));
    assert_eq!(shelf.names(), ["<none>:<none>", "app:<none>", "app:latest"]);
    let digests = shelf.ok(&["images", "--format", "{{.Repository}} {{.Digest}}"]);
    assert!(digests.lines().any(|line| line == "<none> <none>"), "{digests}");
}

#[test]
fn the_platform_is_shown_where_there_are_several() {
    let shelf = Shelf::new();
    shelf.put("app", &made("here"));
    assert!(!shelf.ok(&["images"]).contains("PLATFORM"));
    shelf.put("app", &made("there").platform("linux/s390x"));
    let text = shelf.ok(&["images"]);
    assert!(text.lines().next().unwrap().ends_with("SIZE      PLATFORM"), "{text}");
    assert!(text.lines().any(|line| line.ends_with("linux/s390x")), "{text}");
}

#[test]
fn a_damaged_image_is_listed_with_a_warning_and_spoils_no_other() {
    let shelf = Shelf::new();
    shelf.put("good", &made("good"));
    let (_, manifest) = shelf.put("bad", &made("bad"));
    let path = shelf.store.blob_path(&manifest.parse().unwrap());
    std::fs::write(path, "{").unwrap();
    let ran = shelf.run(&["images", "--format", "{{.Repository}}"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "bad\ngood\n"));
    assert!(ran.stderr.starts_with("WARNING: docker.io/library/bad:latest"), "{}", ran.stderr);
}

#[test]
fn space_is_counted_once() {
    let shelf = Shelf::new();
    let base = vec![b'b'; 5000];
    shelf.put("one:1", &made("").layer(&base));
    shelf.put("two", &made("").layer(&base).layer(&[b'x'; 3000]));
    shelf.ok(&["tag", "one:1", "uno"]);
    let usage: Value = serde_json::from_str(&shelf.ok(&["df", "--output", "json"])).unwrap();
    let images = usage["Images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(images[0]["Names"], json!(["two:latest"]));
    assert_eq!(images[1]["Names"], json!(["one:1", "uno:latest"]));
    for image in images {
        // The base layer, and the layer without content.
        assert_eq!(image["SharedBytes"], 5000);
        assert_eq!(image["Bytes"].as_u64().unwrap(), image["OwnBytes"].as_u64().unwrap() + 5000);
    }
    assert_eq!(usage["Shared"], json!({"Count": 2, "Bytes": 5000}));
    let inventory = shelf.store.inventory().unwrap();
    assert_eq!(usage["Total"]["Bytes"].as_u64().unwrap(), inventory.blobs.values().sum::<u64>());
    assert_eq!(usage["Total"]["Count"].as_u64().unwrap(), inventory.blobs.len() as u64);
    let text = shelf.ok(&["df"]);
    assert!(text.starts_with("IMAGE        IMAGE ID       SIZE      SHARED    OWN\n"), "{text}");
    assert!(text.contains("\n  of them shared   2         5kB\n"), "{text}");
}
