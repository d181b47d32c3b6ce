use larder_cli::User;
use larder_store::Claim;
use serde_json::{Value, json};

use crate::fixture::{Shelf, made, short};

#[test]
fn the_last_name_takes_the_image_along() {
    let shelf = Shelf::new();
    let (id, digest) = shelf.put("app:v1", &made("x"));
    shelf.ok(&["tag", "app:v1", "app:v2"]);
    assert_eq!(shelf.ok(&["rmi", "app:v2"]), "Untagged: app:v2\n");
    assert_eq!(
        shelf.ok(&["rm", "app:v1"]),
        format!("Untagged: app:v1\nUntagged: app@{digest}\nDeleted: {id}\n")
    );
    assert_eq!((shelf.names().len(), shelf.blobs()), (0, 0));
}

#[test]
fn every_argument_is_tried_and_the_errors_are_joined() {
    let shelf = Shelf::new();
    shelf.put("a", &made("a"));
    shelf.put("b", &made("b"));
    let ran = shelf.run(&["rmi", "nope", "a", "Bad", "b", "a"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stdout.contains("Untagged: a:latest\n") && ran.stdout.contains("Untagged: b:latest\n"));
    let errors: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(errors[0], "Error: No such image: nope:latest");
    assert!(errors[1].contains("\"Bad\""));
    assert_eq!(errors[2], "Error: No such image: a:latest", "the first a has removed it");
    assert_eq!(shelf.names().len(), 0);
    // By force, what is not there is as good as removed.
    let ran = shelf.run(&["rmi", "-f", "nope"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, "Error: No such image: nope:latest\n"));
}

#[test]
fn an_id_with_several_repositories_must_be_forced() {
    let shelf = Shelf::new();
    let (id, _) = shelf.put("app:v1", &made("x"));
    shelf.ok(&["tag", "app:v1", "app:v2"]);
    shelf.ok(&["tag", "app:v1", "quay.io/other"]);
    let ran = shelf.run(&["rmi", short(&id)]);
    assert_eq!(
        (ran.status, ran.stderr),
        (
            1,
            format!(
                "Error: conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories\n",
                short(&id)
            )
        )
    );
    assert_eq!(shelf.names().len(), 3);
    shelf.ok(&["rmi", "quay.io/other"]);
    // Several tags of one repository go together, as in docker.
    assert!(shelf.ok(&["rmi", &id]).ends_with(&format!("Deleted: {id}\n")));
    assert_eq!(shelf.blobs(), 0);
}

#[test]
fn a_digest_with_several_tags_must_be_forced() {
    let shelf = Shelf::new();
    let (_, digest) = shelf.put("app:v1", &made("x"));
    shelf.ok(&["tag", "app:v1", "app:v2"]);
    shelf.ok(&["tag", "app:v1", "other"]);
    let pinned = format!("app@{digest}");
    assert!(shelf.run(&["rmi", &pinned]).stderr.contains("referenced in multiple tags"));
    assert_eq!(
        shelf.ok(&["rmi", "--force", &pinned]),
        format!("Untagged: app:v1\nUntagged: app@{digest}\nUntagged: app:v2\n")
    );
    assert_eq!(shelf.names(), ["other:latest"]);
}

#[test]
fn what_containers_use_stays() {
    let mut shelf = Shelf::new();
    let (running, _) = shelf.put("running", &made("r"));
    let (stopped, _) = shelf.put("stopped", &made("s"));
    shelf.use_in(&running, "c0ffee", true);
    shelf.use_in(&stopped, "deadbeef", false);
    let refused = format!(
        "Error: conflict: unable to delete {} (cannot be forced) - image is being used by running container c0ffee\n",
        short(&running)
    );
    for args in [&["rmi", "running"][..], &["rmi", "-f", "running"], &["rmi", "-f", &running]] {
        let ran = shelf.run(args);
        assert_eq!((ran.status, ran.stderr.as_str()), (1, refused.as_str()), "{args:?}");
    }
    // docker would let it go by force. A pod's stopped container is one that kubelet starts again.
    let refused = format!(
        "Error: conflict: unable to delete {} (cannot be forced) - image is being used by stopped container deadbeef\n",
        short(&stopped)
    );
    for args in [&["rmi", "stopped"][..], &["rmi", "-f", "stopped"]] {
        let ran = shelf.run(args);
        assert_eq!((ran.status, ran.stderr.as_str()), (1, refused.as_str()), "{args:?}");
    }
    // A name that is not the last one may go.
    shelf.ok(&["tag", "running", "again"]);
    assert_eq!(shelf.ok(&["rmi", "again"]).lines().next(), Some("Untagged: again:latest"));
    let ran = shelf.run(&["rmi", "--all"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
    assert_eq!(ran.stderr.lines().count(), 2, "{}", ran.stderr);
    assert_eq!(shelf.ok(&["prune", "-af"]), "Total reclaimed space: 0B\n");
    assert_eq!(shelf.names(), ["running:latest", "stopped:latest"]);
    shelf.containers.0.clear();
    shelf.ok(&["rmi", "running", "stopped"]);
    assert_eq!(shelf.names().len(), 0);
}

#[test]
fn a_pod_is_named_after_dockers_words() {
    let mut shelf = Shelf::new();
    let (id, _) = shelf.put("web", &made("w"));
    let pod = larder_cli::Pod { namespace: "shop".to_owned(), name: "web-7d4".to_owned() };
    let user = |id: &str, running| User {
        pod: Some(pod.clone()),
        container: "main".to_owned(),
        id: id.repeat(32),
        running,
    };
    shelf.containers.0 = vec![(id.clone(), user("0a", false)), (id.clone(), user("c0", true))];
    assert_eq!(
        shelf.run(&["rmi", "web"]).stderr,
        format!(
            "Error: conflict: unable to delete {} (cannot be forced) - image is being used by running container \
             c0c0c0c0c0c0 (main in pod shop/web-7d4)\n",
            short(&id)
        )
    );
}

#[test]
fn what_an_image_cache_keeps_must_be_forced() {
    let shelf = Shelf::new();
    shelf.put("kept:1", &made("x"));
    shelf.claim("kept:1", Claim::Delete);
    let ran = shelf.run(&["rmi", "kept:1"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("(must be forced) - it is kept by an ImageCache"), "{}", ran.stderr);
    shelf.ok(&["prune", "-af"]);
    shelf.ok(&["rm", "--all", "--force"]);
    assert_eq!(shelf.names(), ["kept:1"]);
    shelf.ok(&["rmi", "-f", "kept:1"]);
    assert_eq!(shelf.names().len(), 0);
}

#[test]
fn all_except_some() {
    let shelf = Shelf::new();
    for name in ["redis:7", "redis:6", "quay.io/team/app:1", "junk"] {
        shelf.put(name, &made(name));
    }
    let before = shelf.blobs();
    let dry = shelf.ok(&["rm", "--all", "--dry-run", "--except", "redis", "quay.io/*"]);
    assert!(dry.starts_with("Would untag: junk:latest\nWould untag: junk@sha256:"), "{dry}");
    assert!(dry.contains("\nWould delete: sha256:") && dry.contains("\nTotal reclaimable space: "), "{dry}");
    assert_eq!((shelf.names().len(), shelf.blobs()), (4, before), "a dry run removes nothing");
    let slip = shelf.run(&["rm", "--all", "--except", "rediss"]);
    assert_eq!(slip.status, 1);
    assert!(slip.stderr.contains("no image matches --except rediss; nothing was removed"), "{}", slip.stderr);
    assert_eq!(shelf.names().len(), 4);
    shelf.ok(&["rm", "--all", "--except", "redis", "--except", "quay.io/*"]);
    assert_eq!(shelf.names(), ["quay.io/team/app:1", "redis:6", "redis:7"]);
    let gone: Value = serde_json::from_str(&shelf.ok(&["rmi", "--output", "json", "redis:6"])).unwrap();
    assert_eq!(gone[0], json!({"Untagged": "redis:6"}));
}

#[test]
fn one_platform_alone() {
    let shelf = Shelf::new();
    shelf.put("app", &made("here"));
    shelf.put("app", &made("there").platform("linux/s390x"));
    let ran = shelf.run(&["rmi", "--platform", "linux/riscv64", "app"]);
    assert!(ran.stderr.contains("does not provide the specified platform (linux/riscv64)"), "{}", ran.stderr);
    shelf.ok(&["rmi", "--platform", "linux/s390x", "app"]);
    let platform = larder_oci::Platform::host().to_string();
    assert_eq!(shelf.ok(&["images", "--format", "{{.Platform}}"]), format!("{platform}\n"));
}

#[test]
fn an_image_without_a_name_goes_by_its_id() {
    let shelf = Shelf::new();
    let (id, digest) = shelf.put("app", &made("old"));
    shelf.put("app", &made("new"));
    assert_eq!(shelf.ok(&["rmi", &id]), format!("Untagged: app@{digest}\nDeleted: {id}\n"));
    let nameless = larder_oci::ImageName::nameless(&larder_oci::Digest::sha256(b"x"));
    let (id, _) = shelf.put_as(&nameless, &made("nameless"));
    assert_eq!(shelf.ok(&["rmi", short(&id)]), format!("Deleted: {id}\n"));
    assert_eq!(shelf.names(), ["app:latest"]);
}
