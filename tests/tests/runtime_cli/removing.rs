//! `larder rm` and `prune` on a node.

use larder_tests::ContainerdVersion;

use crate::support::{Node, blobs, id, image, short};

const NAME: &str = "registry.corp/team/app:v1";

fn what_a_container_uses_stays(version: ContainerdVersion) {
    let node = Node::new(version, "containerd");
    let image = image(11);
    node.ok(&["load", "--deliver", "-i", &node.archive(&image, NAME)]);
    let labels = ["--label", "io.kubernetes.pod.name=web-7d4", "--label", "io.kubernetes.pod.namespace=shop"];
    let own = ["--label", "io.kubernetes.container.name=web", NAME, "c0ffee"];
    node.containerd.ctr(&[&["containers", "create"], &labels[..], &own].concat()).unwrap();
    let refused = format!(
        "Error: conflict: unable to delete {} (cannot be forced) - image is being used by stopped container c0ffee (web \
         in pod shop/web-7d4)\n",
        short(&id(&image))
    );
    for args in [&["rm", NAME][..], &["rm", "--force", NAME], &["rmi", &id(&image)], &["rm", "--all"]] {
        assert_eq!(node.fails(args), refused, "{args:?}");
    }
    assert_eq!(node.ok(&["prune", "--all", "--force"]), "Total reclaimed space: 0B\n");
    assert!(node.cri_image(NAME).is_some());
    assert_eq!(node.names(), [NAME]);

    node.containerd.ctr(&["containers", "rm", "c0ffee"]).unwrap();
    let out = node.ok(&["rm", NAME]);
    assert_eq!(out.lines().last(), Some(format!("Deleted: {}", id(&image)).as_str()));
    assert_eq!(node.cri_image(NAME), None);
    assert_eq!((node.names().len(), blobs(&node.store())), (0, 0));
    assert_eq!(node.containerd.ctr(&["content", "ls", "--quiet"]).unwrap(), "");
}

#[test]
fn what_a_container_uses_stays_on_containerd_2() {
    what_a_container_uses_stays(ContainerdVersion::V2);
}

#[test]
fn what_a_container_uses_stays_on_containerd_1_7() {
    what_a_container_uses_stays(ContainerdVersion::V17);
}

#[test]
fn a_name_that_has_moved_does_not_hide_a_container() {
    let node = Node::new(ContainerdVersion::V2, "containerd");
    let (old, new) = (image(12), image(13));
    node.ok(&["load", "--deliver", "-i", &node.archive(&old, NAME)]);
    node.containerd.ctr(&["containers", "create", NAME, "old-one"]).unwrap();
    // The store keeps the old one without a tag; so does the container.
    node.ok(&["load", "--deliver", "-i", &node.archive(&new, NAME)]);
    let refused = node.fails(&["rm", &id(&old)]);
    assert!(refused.contains("is being used by stopped container old-one"), "{refused}");
    assert_eq!(node.ok(&["prune", "--force"]), "Total reclaimed space: 0B\n");
    node.ok(&["rm", NAME]);
    assert_eq!(node.cri_image(NAME), None);
    node.containerd.ctr(&["containers", "rm", "old-one"]).unwrap();
    node.ok(&["rm", &id(&old)]);
    assert_eq!(node.names().len(), 0);
}

#[test]
fn images_of_others_stay_in_the_runtime() {
    let node = Node::new(ContainerdVersion::V2, "containerd");
    let (pause, app) = (image(14), image(15));
    node.containerd.ctr(&["images", "import", &node.archive(&pause, "registry.corp/pause:1")]).unwrap();
    node.containerd
        .ctr(&["images", "label", "registry.corp/pause:1", "io.cri-containerd.pinned=pinned"])
        .unwrap();
    node.ok(&["load", "-i", &node.archive(&pause, "registry.corp/pause:1")]);
    node.ok(&["load", "--deliver", "-i", &node.archive(&app, NAME)]);
    node.ok(&["rm", "--all"]);
    assert_eq!(node.cri_image(NAME), None);
    assert!(node.cri_image("registry.corp/pause:1").is_some(), "it was there before");
    assert_eq!(node.names().len(), 0);
}

#[test]
fn a_runtime_that_is_away_keeps_everything() {
    let node = Node::new(ContainerdVersion::V2, "containerd");
    node.ok(&["load", "--deliver", "-i", &node.archive(&image(16), NAME)]);
    node.containerd.program().kill();
    let refused = node.fails(&["rm", NAME]);
    assert!(refused.contains("it is not known whether it is in use: "), "{refused}");
    assert!(refused.contains("does not answer"), "{refused}");
    let pruned = node.larder(&["prune", "--all", "--force"]).ok().unwrap();
    assert_eq!(pruned.stdout, "Total reclaimed space: 0B\n");
    assert!(pruned.stderr.contains("stays: it is not known whether it is in use"), "{}", pruned.stderr);
    assert_eq!(node.names(), [NAME]);
    node.containerd.restart().unwrap();
    node.ok(&["rm", NAME]);
    assert_eq!(node.cri_image(NAME), None);
}
