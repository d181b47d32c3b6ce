//! `larder apply`: an `ImageCache` without a cluster.

use crate::support::{Desk, image, registry};

fn cache(name: &str, images: &[&str]) -> String {
    let images: Vec<String> = images.iter().map(|image| format!("  - image: {image}\n")).collect();
    let images = images.concat();
    format!(
        "apiVersion: larder.dev/v1alpha1\nkind: ImageCache\nmetadata: {{name: {name}}}\nspec:\n  images:\n{images}"
    )
}

#[test]
fn the_store_comes_to_hold_what_is_named() {
    let (desk, registry) = (Desk::new(), registry());
    let names: Vec<String> = [("a", 500), ("b", 501), ("c", 502)]
        .iter()
        .map(|(repository, seed)| registry.push(&image(*seed, &[50_000]), repository, "v1").unwrap().name)
        .collect();
    let by_hand = registry.push(&image(503, &[5_000]), "mine", "v1").unwrap().name;
    desk.ok(&["pull", "-q", &by_hand]);
    let both = format!(
        "{}---\n{}  nodeSelector: {{matchLabels: {{pool: web}}}}\n  pullSecrets: [{{name: regcred}}]\n",
        cache("one", &[&names[0], &names[1]]),
        cache("two", &[&names[1], &names[2]])
    );
    let file = desk.scratch.write("caches.yaml", both).unwrap();
    let file = file.to_str().unwrap();
    let ran = desk.larder(&["apply", "-f", file]).ok().unwrap();
    assert!(ran.stdout.ends_with("All 3 images are ready\n"), "{}", ran.stdout);
    for field in ["nodeSelector is passed over", "pullSecrets are passed over: log in"] {
        assert!(ran.stderr.contains(field), "{}", ran.stderr);
    }
    for name in &names {
        desk.skopeo(name);
    }

    // Nothing to do, nobody is asked.
    let mark = registry.mark().unwrap();
    desk.ok(&["apply", "-f", file]);
    assert_eq!(registry.requests_since(mark).unwrap().len(), 0);

    // Fewer: what is no longer named stays, until pruning is asked for. What a person pulled always stays.
    let less = cache("one", &[&names[0]]);
    let ran = desk.larder_with(&["apply", "-f", "-"], &[], &less).ok().unwrap();
    assert!(ran.stdout.ends_with("All 1 images are ready\n"), "{}", ran.stdout);
    desk.skopeo(&names[2]);
    desk.larder_with(&["apply", "-f", "-", "--prune"], &[], &less).ok().unwrap();
    let index = std::fs::read_to_string(desk.store().join("index.json")).unwrap();
    assert!(!index.contains(&names[1]) && !index.contains(&names[2]), "{index}");
    assert!(index.contains(&names[0]) && index.contains(&by_hand), "{index}");
    desk.check_store();
}

#[test]
fn one_failure_holds_up_no_other_image() {
    let (desk, registry) = (Desk::new(), registry());
    let there = registry.push(&image(510, &[50_000]), "there", "v1").unwrap().name;
    let missing = format!("{}/missing:v1", registry.host());
    let yaml = cache("mixed", &[&missing, &there]);
    let ran = desk.larder_with(&["apply", "-f", "-", "--output", "json"], &[], &yaml);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("1 of 2 images could not be had"), "{}", ran.stderr);
    let report = ran.json().unwrap();
    assert_eq!(report[0]["Reason"], "NotFound");
    assert_eq!(report[1]["Ready"], true);
    desk.skopeo(&there);
}

#[test]
fn order_and_space_are_respected_as_on_a_node() {
    let (desk, registry) = (Desk::new(), registry());
    let [a, b, c] = [("a", 520), ("b", 521), ("c", 522)]
        .map(|(repository, seed)| registry.push(&image(seed, &[5_000]), repository, "v1").unwrap().name);
    let yaml = format!(
        "{}    priority: 5\n  maxConcurrentDownloads: 1\n---\n{}    priority: 9\n",
        cache("one", &[&a, &b]),
        cache("two", &[&c])
    );
    let tight = format!("{yaml}  diskReserve: 900Ti\n");
    let mark = registry.mark().unwrap();
    let ran = desk.larder_with(&["apply", "-f", "-"], &[], &tight);
    assert_eq!(ran.status.code(), Some(1));
    for words in ["InsufficientDisk: it needs", "900.0 TiB of them are kept free"] {
        assert!(ran.stdout.contains(words), "{}", ran.stdout);
    }
    assert_eq!(registry.requests_since(mark).unwrap().blob_gets(), 0);

    let mark = registry.mark().unwrap();
    desk.larder_with(&["apply", "-f", "-"], &[], &yaml).ok().unwrap();
    let requests = registry.requests_since(mark).unwrap();
    let order: Vec<&str> =
        requests.iter().filter(|request| request.is_manifest()).map(|r| &r.path[4..5]).collect();
    assert_eq!(order, ["c", "b", "a"], "a limit, and a priority, of whichever object");
}

#[test]
fn a_file_that_is_wrong_is_one_clear_error_and_nothing_is_fetched() {
    let desk = Desk::new();
    for (text, message) in [
        (cache("bad", &["Not/Valid"]), "spec.images[0].image"),
        ("kind: Pod\napiVersion: v1\n".to_owned(), "expected an ImageCache"),
        ("a: [\n".to_owned(), "-:"),
        ("# nothing\n".to_owned(), "holds no ImageCache"),
    ] {
        let ran = desk.larder_with(&["apply", "-f", "-"], &[], &text);
        assert_eq!(ran.status.code(), Some(1), "{text}");
        assert!(ran.stderr.contains(message), "{text}: {}", ran.stderr);
    }
    let error = desk.fails(&["apply", "-f", "/no/such/file"]);
    assert!(error.contains("cannot read /no/such/file"), "{error}");
}
