use serde_json::{Value, json};

use crate::fixture::{Shelf, made, short};

fn rich() -> crate::fixture::Made {
    made("one")
        .layer(b"layer two")
        .created("2024-05-06T07:08:09Z")
        .config("Env", json!(["PATH=/bin", "A=1"]))
        .config("Cmd", json!(["/bin/app"]))
        .config("Entrypoint", json!(["/init"]))
        .config("Labels", json!({"team": "a"}))
        .config("ExposedPorts", json!({"80/tcp": {}}))
        .config("WorkingDir", json!("/srv"))
        .field("author", json!("someone"))
        .field(
            "history",
            json!([
                {"created": "2024-05-06T07:08:07Z", "created_by": "ADD rootfs", "comment": "base"},
                {"created": "2024-05-06T07:08:08Z", "created_by": "ENV A=1", "empty_layer": true},
                {"created": "1970-01-01T00:00:00Z", "created_by": format!("RUN {}", "x".repeat(60))},
            ]),
        )
}

#[test]
fn inspect_prints_dockers_document() {
    let shelf = Shelf::new();
    let (id, digest) = shelf.put("app:v1", &rich());
    shelf.ok(&["tag", "app:v1", "quay.io/team/app:v2"]);
    let text = shelf.ok(&["inspect", "app:v1"]);
    assert!(
        text.starts_with(&format!("[\n    {{\n        \"Id\": \"{id}\",\n        \"RepoTags\": [\n")),
        "{text}"
    );
    let document: Value = serde_json::from_str(&text).unwrap();
    let image = &document[0];
    let blobs: u64 = shelf.store.inventory().unwrap().blobs.values().sum();
    let platform = larder_oci::Platform::host();
    assert_eq!(image["RepoTags"], json!(["app:v1", "quay.io/team/app:v2"]));
    assert_eq!(image["RepoDigests"], json!([format!("app@{digest}"), format!("quay.io/team/app@{digest}")]));
    assert_eq!((&image["Created"], &image["Author"]), (&json!("2024-05-06T07:08:09Z"), &json!("someone")));
    assert_eq!(
        (&image["Os"], &image["Architecture"]),
        (&json!(platform.os()), &json!(platform.architecture()))
    );
    assert_eq!(image["Size"], blobs);
    assert_eq!(
        image["Config"],
        json!({"ExposedPorts": {"80/tcp": {}}, "Env": ["PATH=/bin", "A=1"], "Entrypoint": ["/init"],
               "Cmd": ["/bin/app"], "WorkingDir": "/srv", "Labels": {"team": "a"}})
    );
    assert_eq!(
        (&image["RootFS"]["Type"], image["RootFS"]["Layers"].as_array().unwrap().len()),
        (&json!("layers"), 2)
    );
    assert_eq!(image["Metadata"]["LastTagTime"], "0001-01-01T00:00:00Z");
    assert_eq!(image["Descriptor"]["digest"], digest);
    // By every kind of name.
    let pinned = format!("app@{digest}");
    for name in [id.as_str(), short(&id), &id[7..], &id[..11], &pinned, &digest, "docker.io/library/app:v1"] {
        assert_eq!(shelf.ok(&["image", "inspect", name]), text, "{name}");
    }
}

#[test]
fn inspect_formats() {
    let shelf = Shelf::new();
    let (id, _) = shelf.put("app", &rich());
    for (format, expected) in [
        ("{{.Id}}", id.as_str()),
        ("{{.Config.Env}}", "[PATH=/bin A=1]"),
        ("{{json .Config.Cmd}}", "[\"/bin/app\"]"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "PATH=/bin\nA=1\n"),
        ("{{join .Config.Env \",\"}}", "PATH=/bin,A=1"),
        ("{{index .Config.Labels \"team\"}}/{{index .Config.Labels \"none\"}}", "a/"),
        ("{{len .RootFS.Layers}} {{.Config.User}}.", "2 ."),
    ] {
        assert_eq!(shelf.ok(&["inspect", "-f", format, "app"]), format!("{expected}\n"), "{format}");
    }
    let compact = shelf.ok(&["inspect", "--format", "json", "app"]);
    assert!(compact.starts_with("[{\"Id\":") && compact.ends_with("}]\n"), "{compact}");
    assert_eq!(shelf.run(&["inspect", "--format", "{{", "app"]).status, 64);
}

#[test]
fn inspect_prints_what_there_is_and_says_what_is_not() {
    let shelf = Shelf::new();
    shelf.put("app", &made("x"));
    let ran = shelf.run(&["inspect", "nope", "app", "quay.io/x:1", "feedbeef", "Bad Name"]);
    assert_eq!(ran.status, 1);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document.as_array().unwrap().len(), 1);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "Error: No such image: nope:latest",
            "Error: No such image: quay.io/x:1",
            "Error: No such image: feedbeef:latest"
        ]
    );
    assert!(lines[3].starts_with("invalid image name \"Bad Name\""), "{}", lines[3]);
    let ran = shelf.run(&["inspect", "nope"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (1, "[]\n"));
    let ran = shelf.run(&["inspect", "--format", "{{.Id}}", "nope"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (1, "\n"));
}

#[test]
fn an_id_must_stand_for_one_image() {
    let shelf = Shelf::new();
    // Sixteen first digits and more images: two of them begin alike.
    let ids: Vec<String> =
        (0..17).map(|number| shelf.put(&format!("app:{number}"), &made(&number.to_string())).0).collect();
    let digit = |id: &String| id.as_bytes()[7] as char;
    let twice =
        ids.iter().map(digit).find(|one| ids.iter().filter(|id| digit(id) == *one).count() > 1).unwrap();
    let ran = shelf.run(&["inspect", &format!("sha256:{twice}")]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.contains(&format!("Multiple IDs found with provided prefix: {twice}")),
        "{}",
        ran.stderr
    );
}

#[test]
fn one_of_several_platforms() {
    let shelf = Shelf::new();
    let (here, _) = shelf.put("app", &made("here"));
    let (there, _) = shelf.put("app", &made("there").platform("linux/s390x"));
    assert_eq!(shelf.ok(&["inspect", "-f", "{{.Id}}", "app"]), format!("{here}\n"));
    assert_eq!(
        shelf.ok(&["inspect", "-f", "{{.Id}}", "--platform", "linux/s390x", "app"]),
        format!("{there}\n")
    );
    let ran = shelf.run(&["inspect", "--platform", "linux/riscv64", "app"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("does not provide the specified platform (linux/riscv64)"), "{}", ran.stderr);
}

#[test]
fn history_is_dockers_table() {
    let shelf = Shelf::new();
    let (id, _) = shelf.put("app", &rich());
    let text = shelf.ok(&["history", "--human=false", "app"]);
    assert_eq!(
        text,
        format!(
            "IMAGE          CREATED AT             CREATED BY                                      SIZE      COMMENT\n\
             {}   1970-01-01T00:00:00Z   RUN {}…   9         \n\
             <missing>      2024-05-06T07:08:08Z   ENV A=1                                         0         \n\
             <missing>      2024-05-06T07:08:07Z   ADD rootfs                                      3         base\n",
            short(&id),
            "x".repeat(40)
        )
    );
    let human = shelf.ok(&["history", "--format", "{{.CreatedSince}}|{{.Size}}", "app"]);
    assert_eq!(human.lines().next(), Some("|9B"), "a date of 1970 says nothing");
    assert!(human.lines().nth(1).unwrap().ends_with("ago|0B"), "{human}");
    assert_eq!(shelf.ok(&["history", "-q", "app"]), format!("{}\n<missing>\n<missing>\n", short(&id)));
    assert!(shelf.ok(&["history", "-q", "--no-trunc", "app"]).starts_with(&id));
    assert!(shelf.ok(&["history", "--no-trunc", "app"]).contains(&"x".repeat(60)));
    let rows: Value = serde_json::from_str(&shelf.ok(&["history", "--output", "json", "app"])).unwrap();
    assert_eq!(rows[2]["Comment"], "base");
    assert_eq!(shelf.run(&["history", "nope"]).stderr, "Error: No such image: nope:latest\n");
}

#[test]
fn layers_without_history_are_shown_all_the_same() {
    let shelf = Shelf::new();
    shelf.put("app", &made("one").layer(b"layer two"));
    assert_eq!(shelf.ok(&["history", "--format", "{{.Size}}", "app"]), "9B\n3B\n");
}

#[test]
fn tag_gives_a_name_and_says_nothing() {
    let shelf = Shelf::new();
    let (id, digest) = shelf.put("app:v1", &made("x"));
    let (other, _) = shelf.put("other", &made("y"));
    for (source, target) in [
        ("app:v1", "copy"),
        (&id[..], "by/id:1"),
        (short(&id), "by/prefix"),
        (&format!("app@{digest}"), "localhost:5000/x"),
    ] {
        assert_eq!(shelf.ok(&["tag", source, target]), "");
        assert_eq!(shelf.ok(&["inspect", "-f", "{{.Id}}", target]), format!("{id}\n"));
    }
    shelf.ok(&["image", "tag", "app:v1", "other"]);
    assert_eq!(shelf.ok(&["inspect", "-f", "{{.Id}}", "other"]), format!("{id}\n"));
    assert_eq!(shelf.ok(&["images", "-q", "--filter", "dangling=true"]), format!("{}\n", short(&other)));
    let refused = shelf.run(&["tag", "nope", "y"]);
    assert_eq!((refused.status, refused.stderr.as_str()), (1, "Error: No such image: nope:latest\n"));
    let refused = shelf.run(&["tag", "app:v1", &format!("y@{digest}")]);
    assert_eq!(
        (refused.status, refused.stderr.as_str()),
        (1, "refusing to create a tag with a digest reference\n")
    );
    let refused = shelf.run(&["tag", "app:v1", "Upper"]);
    assert!(refused.stderr.contains("must be lowercase"), "{}", refused.stderr);
    assert_eq!(shelf.run(&["tag", "app:v1", "larder.invalid/none:x"]).status, 1);
}
