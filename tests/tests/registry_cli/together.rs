//! Several programs on one store at the same time.

use std::time::Duration;

use larder_tests::{Proxy, wait::PATIENCE};

use crate::support::{Desk, image, registry};

#[test]
fn two_pulls_of_one_image_fetch_it_once() {
    let (desk, registry) = (Desk::new(), registry());
    let built = image(600, &[2_000_000, 2_000_000, 300_000]);
    registry.push(&built, "shared", "v1").unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    // Slow enough for the two to meet.
    proxy.limit_rate(Some(4 << 20));
    let name = format!("{}/shared:v1", proxy.host());
    let pulls = ["first", "second"].map(|label| desk.start(label, &["pull", &name]));
    for pull in &pulls {
        assert!(pull.wait(PATIENCE).unwrap().success(), "{}", pull.log_tail());
    }
    desk.check_store();
    for layer in built.layers() {
        let sent = proxy.bytes_for(layer.digest.as_str());
        assert!(sent < layer.size() * 11 / 10, "{sent} of {}", layer.size());
    }
}

#[test]
fn what_apply_keeps_and_what_people_pull_do_not_disturb_each_other() {
    let (desk, registry) = (Desk::new(), registry());
    let names: Vec<String> = (0..6)
        .map(|n| {
            let built = image(610 + n * 10, &[400_000, 100_000]);
            registry.push(&built, &format!("app{n}"), "v1").unwrap().name
        })
        .collect();
    let images: Vec<String> = names[..3].iter().map(|name| format!("  - image: {name}\n")).collect();
    let images = images.concat();
    let yaml = format!(
        "apiVersion: larder.dev/v1alpha1\nkind: ImageCache\nmetadata: {{name: x}}\nspec:\n  images:\n{images}"
    );
    let file = desk.scratch.write("cache.yaml", yaml).unwrap();
    // The engine that the agent runs, collecting blobs as it goes, beside pulls by hand.
    let apply = desk.start("apply", &["apply", "--prune", "-f", file.to_str().unwrap()]);
    let pull = desk.start("pull", &["pull", &names[2], &names[3], &names[4], &names[5]]);
    for program in [&apply, &pull] {
        assert!(program.wait(PATIENCE).unwrap().success(), "{}", program.log_tail());
    }
    for name in &names {
        desk.skopeo(name);
    }
    desk.check_store();
}

#[test]
fn a_pull_that_is_killed_goes_on_where_it_was() {
    let (desk, registry) = (Desk::new(), registry());
    let built = image(680, &[6_000_000]);
    registry.push(&built, "killed", "v1").unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    proxy.limit_rate(Some(8 << 20));
    let name = format!("{}/killed:v1", proxy.host());
    for _ in 0..4 {
        let pull = desk.start("killed", &["pull", &name]);
        proxy.on_bytes(1_000_000, {
            let killer = pull.killer();
            move || killer.kill()
        });
        pull.wait(Duration::from_secs(60)).unwrap();
    }
    desk.ok(&["pull", &name]);
    desk.check_store();
    let sent = proxy.bytes_for(built.layers()[0].digest.as_str());
    assert!(sent < built.layers()[0].size() * 12 / 10, "{sent}");
}
