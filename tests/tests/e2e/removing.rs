//! `larder rm` on a node, by its administrator.

use larder_tests::{Pod, PodOptions, Scratch, until, wait::PATIENCE};

use crate::{
    fixture::together,
    larder::{ImageCache, image, larder_on, push, runtime_image, stored},
};

#[test]
fn an_image_that_a_pod_runs_is_refused_with_the_pods_name() {
    let e2e = together();
    e2e.larder();
    let node = e2e.cluster.node("node-2").unwrap();
    let name = "larder.test/removing/by-hand:v1";
    let image = image(3100);
    let scratch = Scratch::new("removing").unwrap();
    let archive = scratch.path().join("image.tar");
    image.write_archive(&archive, name).unwrap();
    larder_on(&node, &["load", "--deliver", "--input", archive.to_str().unwrap()]).ok().unwrap();
    let pod = Pod::start(&e2e.cluster, &PodOptions::new("removing").image(name).node("node-2")).unwrap();

    let status = &pod.get().unwrap()["status"]["containerStatuses"][0];
    let container = status["containerID"].as_str().unwrap().trim_start_matches("containerd://");
    let id = image.blobs[0].digest.to_string();
    for args in [&["rm", name][..], &["rm", "--force", name], &["rmi", &id]] {
        let refused = larder_on(&node, args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}: {}", refused.stdout);
        let expected = format!(
            "Error: conflict: unable to delete {} (cannot be forced) - image is being used by running container {} \
             (main in pod default/removing)\n",
            &id["sha256:".len()..][..12],
            &container[..12]
        );
        println!("$ larder {}\n{}", args.join(" "), refused.stderr);
        assert_eq!((refused.stderr, refused.stdout), (expected, String::new()), "{args:?}");
    }
    assert!(runtime_image(&node, name).is_some() && stored(&node).iter().any(|stored| stored == name));

    pod.delete().unwrap();
    // The pod's object goes a moment before its container.
    let gone = until("the image to be let go", PATIENCE, || {
        let ran = larder_on(&node, &["rm", name]);
        ran.status.success().then_some(ran.stdout)
    });
    assert!(gone.unwrap().ends_with(&format!("Deleted: {id}\n")));
    assert!(runtime_image(&node, name).is_none() && !stored(&node).iter().any(|stored| stored == name));
}

/// What is said of an image that an `ImageCache` wants; and by force it goes, and comes back.
#[test]
fn an_image_that_is_wanted_takes_force_and_comes_back() {
    let e2e = together();
    let larder = e2e.larder();
    let node = e2e.cluster.node("node-1").unwrap();
    let image = push(&e2e.registry, "removing/wanted", 3200).name;
    let cache = ImageCache::apply_on(&e2e.cluster, "removing", "node-1", &[&image]);
    cache.wait_ready(larder);
    let refused = larder_on(&node, &["rm", &image]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains("it is kept by an ImageCache"), "{}", refused.stderr);
    let forced = larder_on(&node, &["rm", "--force", &image]).ok().unwrap();
    assert!(forced.stdout.contains("Deleted: sha256:"), "{}", forced.stdout);
    let back = until("the image to come back", PATIENCE, || {
        (runtime_image(&node, &image)?["pinned"] == true).then_some(())
    });
    back.unwrap_or_else(|error| panic!("{error}\n{}", larder.describe()));
}
