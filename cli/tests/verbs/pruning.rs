use larder_cli::human;
use serde_json::{Value, json};

use crate::fixture::{Shelf, made};

#[test]
fn only_what_has_no_tag_unless_all_is_said() {
    let shelf = Shelf::new();
    let (id, digest) = shelf.put("app", &made("old").layer(&[7; 2000]));
    shelf.put("app", &made("new"));
    let dry = shelf.ok(&["prune", "--dry-run"]);
    let before: u64 = shelf.store.inventory().unwrap().blobs.values().sum();
    let text = shelf.ok(&["image", "prune", "-f"]);
    let freed = before - shelf.store.inventory().unwrap().blobs.values().sum::<u64>();
    let total = human::total(freed);
    assert_eq!(
        text,
        format!("Deleted Images:\nuntagged: app@{digest}\ndeleted: {id}\n\nTotal reclaimed space: {total}\n")
    );
    assert_eq!(
        dry,
        format!(
            "Images to delete:\nuntagged: app@{digest}\ndeleted: {id}\n\nTotal reclaimable space: {total}\n"
        )
    );
    assert_eq!(shelf.names(), ["app:latest"]);
    assert_eq!(shelf.ok(&["prune", "-f"]), "Total reclaimed space: 0B\n");
    assert_eq!(
        shelf.run(&["prune", "--all", "--output", "json"]).status,
        125,
        "a question would spoil the JSON"
    );
    shelf.ok(&["prune", "--all", "--force"]);
    assert_eq!((shelf.names().len(), shelf.blobs()), (0, 0));
}

#[test]
fn filters_and_exceptions() {
    let shelf = Shelf::new();
    let labelled = |text: &str| made(text).config("Labels", json!({"keep": "yes"}));
    shelf.put("old", &made("old").created("2020-01-01T00:00:00Z"));
    shelf.put("old-kept", &labelled("old-kept").created("2020-01-01T00:00:00Z"));
    shelf.put("new", &made("new").created("2999-01-01T00:00:00Z"));
    shelf.ok(&["prune", "-af", "--filter", "until=24h", "--filter", "label!=keep"]);
    assert_eq!(shelf.names(), ["new:latest", "old-kept:latest"]);
    shelf.ok(&["prune", "-af", "--filter", "label=keep=no"]);
    assert_eq!(shelf.names().len(), 2);
    assert_eq!(
        shelf.run(&["prune", "-af", "--filter", "before=new"]).status,
        1,
        "not one of prune's filters"
    );
    let slip = shelf.run(&["prune", "-a", "--dry-run", "--except", "nwe"]);
    assert_eq!((slip.status, slip.stderr.as_str()), (0, "WARNING: no image matches --except nwe\n"));
    shelf.ok(&["prune", "-af", "--except", "ne*"]);
    assert_eq!(shelf.names(), ["new:latest"]);
}

#[test]
fn the_newest_of_each_repository_stay() {
    let shelf = Shelf::new();
    for (name, year) in [("app:1", 2021), ("app:2", 2022), ("app:3", 2023), ("db:1", 2020), ("db:2", 2019)] {
        shelf.put(name, &made(name).created(&format!("{year}-01-01T00:00:00Z")));
    }
    // A second tag of an image is not a second image.
    shelf.ok(&["tag", "app:3", "app:stable"]);
    shelf.ok(&["prune", "-af", "--keep-newest", "2"]);
    assert_eq!(shelf.names(), ["app:2", "app:3", "app:stable", "db:1", "db:2"]);
    let report: Value =
        serde_json::from_str(&shelf.ok(&["prune", "-af", "--keep-newest", "1", "--output", "json"])).unwrap();
    assert_eq!(shelf.names(), ["app:3", "app:stable", "db:1"]);
    let gone = report["ImagesDeleted"].as_array().unwrap();
    assert!(gone.contains(&json!({"Untagged": "app:2"})) && gone.contains(&json!({"Untagged": "db:2"})));
    assert!(report["SpaceReclaimed"].as_u64().unwrap() > 0);
}
