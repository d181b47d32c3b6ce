use super::*;
use crate::{
    api::cri::{self as api, ContainerState},
    testing::{digest, image},
};

fn listed(id: &str, image_ref: &str, state: ContainerState) -> api::Container {
    let labels = [(POD_NAME, "web-7d4"), (POD_NAMESPACE, "shop"), (CONTAINER_NAME, "web")];
    api::Container {
        id: id.to_owned(),
        image_ref: image_ref.to_owned(),
        state: state.into(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..api::Container::default()
    }
}

fn users(found: &api::Container, images: &[api::Image], image: &Image) -> Vec<User> {
    Containers::new(vec![cri::container(found, &cri::aliases(images))]).made_from(image)
}

#[test]
fn a_pod_is_known_by_its_containers_labels() {
    let image = image("app", 1);
    let config = image.config.digest().to_string();
    let found = users(&listed("c0ffee", &config, ContainerState::ContainerRunning), &[], &image);
    let pod = Pod { namespace: "shop".to_owned(), name: "web-7d4".to_owned() };
    let user = User { pod: Some(pod), container: "web".to_owned(), id: "c0ffee".to_owned(), running: true };
    assert_eq!(found, [user]);
}

#[test]
fn every_state_counts_and_running_is_told_apart() {
    let image = image("app", 1);
    let config = image.config.digest().to_string();
    for (state, running) in [
        (ContainerState::ContainerCreated, false),
        (ContainerState::ContainerRunning, true),
        (ContainerState::ContainerExited, false),
        (ContainerState::ContainerUnknown, false),
    ] {
        let found = users(&listed("c0ffee", &config, state), &[], &image);
        assert_eq!(found.iter().map(|user| user.running).collect::<Vec<_>>(), [running], "{state:?}");
    }
}

#[test]
fn an_image_is_known_by_each_of_its_digests() {
    let image = image("app", 1);
    let config = Digest::try_from(image.config.digest()).unwrap();
    let manifest = image.manifest.digest().to_string();
    let running = ContainerState::ContainerRunning;
    for reference in [
        config.to_string(),
        config.hex().to_owned(),
        format!("docker.io/library/app@{}", image.target),
        format!("docker.io/library/app@{manifest}"),
    ] {
        assert_eq!(users(&listed("c", &reference, running), &[], &image).len(), 1, "{reference}");
    }
    for reference in ["", "docker.io/library/app:latest", "app", digest(9).as_str(), &"0".repeat(64)] {
        assert_eq!(users(&listed("c", reference, running), &[], &image), [], "{reference}");
    }
    // An ID that is nobody's digest, which the list of images explains.
    let id = "ab".repeat(32);
    let alias = |digest: &Digest| api::Image {
        id: id.clone(),
        repo_digests: vec![format!("docker.io/library/app@{digest}")],
        ..api::Image::default()
    };
    assert_eq!(users(&listed("c", &id, running), &[alias(&image.target)], &image).len(), 1);
    assert_eq!(users(&listed("c", &id, running), &[alias(&digest(9))], &image), []);
}

#[test]
fn a_container_of_nobodys_is_known_by_what_its_files_lie_on() {
    let image = image("app", 1);
    let chain = Digest::sha256(format!("{} {}", image.diff_ids[0], image.diff_ids[1]).as_bytes());
    let container = |digests: &[&Digest], chain: Option<&Digest>| Container {
        user: user("c0ffee", &BTreeMap::new(), None, false),
        digests: digests.iter().copied().cloned().collect(),
        chain: chain.cloned(),
    };
    let users = |container| Containers::new(vec![container]).made_from(&image);
    let user = User { pod: None, container: "c0ffee".to_owned(), id: "c0ffee".to_owned(), running: false };
    assert_eq!(users(container(&[&image.target], None)), std::slice::from_ref(&user));
    // Its name stands for another image by now.
    assert_eq!(users(container(&[&digest(9)], Some(&chain))), [user]);
    assert_eq!(users(container(&[&image.target], Some(&image.diff_ids[0]))), []);
    assert_eq!(users(container(&[], None)), []);
    // Of a damaged image no layers are known.
    let damaged = Image { diff_ids: Vec::new(), ..image.clone() };
    let named = Containers::new(vec![container(&[&image.target], Some(&chain))]);
    assert_eq!(named.made_from(&damaged).len(), 1);
    let artifact = Image { diff_ids: Vec::new(), ..image.clone() };
    assert_eq!(Containers::new(vec![container(&[&digest(9)], None)]).made_from(&artifact), []);
}

#[test]
fn a_chain_of_one_is_the_layer_itself() {
    assert_eq!(chain_id(&[]), None);
    assert_eq!(chain_id(&[digest(1)]), Some(digest(1)));
}

#[test]
fn a_sandbox_has_a_pod_and_no_name() {
    let labels = [(POD_NAME, "web"), (POD_NAMESPACE, "shop")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let user = user("c0ffee", &labels.into(), Some("sandbox"), true);
    assert_eq!((user.container.as_str(), user.pod.unwrap().name.as_str()), ("sandbox", "web"));
}
