use larder_oci::Platform;
use proptest::prelude::*;

use super::*;

const OWNERS: [Owner; 4] = [
    Owner::Agent { pin: true },
    Owner::Agent { pin: false },
    Owner::Person { pin: true },
    Owner::Person { pin: false },
];

fn key(name: &str) -> ImageKey {
    ImageKey { name: name.parse().unwrap(), platform: Platform::host() }
}

fn keys() -> [ImageKey; 3] {
    ["registry.corp/app:v1", "registry.corp/app:v2", "registry.corp/mirror:v1"].map(key)
}

fn apply(labels: &mut Labels, changes: Labels) {
    labels.extend(changes);
    labels.retain(|_, value| !value.is_empty());
}

/// A record as it was before Larder came.
fn foreign(managed: bool, pinned: bool) -> Labels {
    let label = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let labels = managed.then(|| label(MANAGED)).into_iter().chain(pinned.then(|| label(PINNED)));
    labels.chain([("team".to_owned(), "web".to_owned())]).collect()
}

fn record(name: &str, target: &Digest, labels: Labels) -> Record {
    let target = types::Descriptor { digest: target.to_string(), ..types::Descriptor::default() };
    Record { name: name.to_owned(), labels, target: Some(target), ..Record::default() }
}

proptest! {
    /// Whatever is wanted and unwanted, in whatever order: the record is pinned as long as someone wants that, and at the end
    /// it is as it was.
    #[test]
    fn what_larder_puts_on_a_record_goes_again(
        managed: bool,
        pinned: bool,
        steps in prop::collection::vec((0..3_usize, 0..OWNERS.len(), any::<bool>()), 0..20),
    ) {
        let before = foreign(managed, pinned);
        let mut labels = before.clone();
        let mut owners: BTreeMap<ImageKey, Owner> = BTreeMap::new();
        for (image, owner, come) in steps {
            let key = keys()[image].clone();
            if come {
                let changes = wanted(&labels, &key, OWNERS[owner]);
                apply(&mut labels, changes);
                owners.insert(key.clone(), OWNERS[owner]);
                prop_assert_eq!(wanted(&labels, &key, OWNERS[owner]), Labels::new());
            } else {
                let changes = unwanted(&labels, &key);
                apply(&mut labels, changes);
                owners.remove(&key);
            }
            let pin = owners.values().any(|owner| owner.pins());
            prop_assert_eq!(has(&labels, PINNED), pinned || pin);
            let record = record("registry.corp/app:v1", &Digest::sha256(b""), labels.clone());
            for key in keys() {
                prop_assert_eq!(is_marked(&record, &key), owners.contains_key(&key));
            }
            let agents: Vec<_> = agents_keys(&record).collect();
            let mut expected: Vec<_> =
                owners.iter().filter(|(_, owner)| matches!(owner, Owner::Agent { .. })).map(|(key, _)| key.clone()).collect();
            expected.sort_by_key(mark);
            prop_assert_eq!(agents, expected);
        }
        for key in keys() {
            let changes = unwanted(&labels, &key);
            apply(&mut labels, changes);
        }
        // That kubelet sees it is of no harm.
        labels.remove(MANAGED.0);
        let mut before = before;
        before.remove(MANAGED.0);
        prop_assert_eq!(labels, before);
    }
}

/// A record is as it should be after each delivery, and what differs is what is asked for.
#[test]
fn a_pin_is_as_wanted_unless_it_is_another_ones() {
    let [key, other, _] = keys();
    let target = Digest::sha256(b"target");
    let kept =
        |labels: &Labels, pin| is_kept(&record("registry.corp/app:v1", &target, labels.clone()), &key, pin);
    let after = |mut labels: Labels, key: &ImageKey, owner| {
        let changes = wanted(&labels, key, owner);
        apply(&mut labels, changes);
        labels
    };
    let (pinning, not_pinning) = (Owner::Agent { pin: true }, Owner::Agent { pin: false });
    let pinned = after(foreign(true, false), &key, pinning);
    assert!(kept(&pinned, Some(true)) && !kept(&pinned, Some(false)) && kept(&pinned, None));
    let unpinned = after(pinned, &key, not_pinning);
    assert!(!kept(&unpinned, Some(true)) && kept(&unpinned, Some(false)) && kept(&unpinned, None));
    assert!(!has(&unpinned, PINNED));
    // Another image of Larder's has the same record, and is pinned; or others have pinned it.
    let shared = after(unpinned.clone(), &other, pinning);
    assert!(has(&shared, PINNED) && kept(&shared, Some(false)));
    let others = after(foreign(true, true), &key, not_pinning);
    assert!(has(&others, PINNED) && kept(&others, Some(false)));
    // A person has delivered it, pinned; and it is left alone.
    let persons = after(unpinned, &key, Owner::Person { pin: true });
    assert!(kept(&persons, Some(false)) && kept(&persons, Some(true)));
    assert!(!kept(&foreign(true, true), None), "it is not Larder's");
}

#[test]
fn an_image_has_the_names_that_a_pull_leaves() {
    let (target, config) = (Digest::sha256(b"target"), Digest::sha256(b"config"));
    let names = |name: &str| names(&key(name), &target, &config);
    assert_eq!(
        names("registry.corp:5000/app:v1"),
        [
            config.to_string(),
            format!("registry.corp:5000/app@{target}"),
            "registry.corp:5000/app:v1".to_owned()
        ]
    );
    let pinned = [config.to_string(), format!("docker.io/library/app@{target}")];
    assert_eq!(names(&format!("app@{target}")), pinned);
    assert_eq!(names(&format!("app:v1@{target}")), pinned);
}

#[test]
fn a_repository_is_a_name_without_tag_and_digest() {
    assert_eq!(repository("registry.corp:5000/app:v1"), "registry.corp:5000/app");
    assert_eq!(repository("registry.corp:5000/app@sha256:12"), "registry.corp:5000/app");
    assert_eq!(repository("docker.io/library/app:v1"), "docker.io/library/app");
    assert_eq!(repository("sha256:12"), ID);
}

/// The records of delivered images of one digest.
fn delivered(names_of: &[&str], target: &Digest) -> BTreeMap<String, Labels> {
    let mut records = BTreeMap::<String, Labels>::new();
    for name in names_of {
        for record in names(&key(name), target, &Digest::sha256(b"config")) {
            let labels =
                records.entry(record).or_insert_with(|| [(CREATED.to_owned(), "true".to_owned())].into());
            apply(labels, wanted(labels, &key(name), Owner::Agent { pin: true }));
        }
    }
    records
}

fn going(records: &[Record], name: &str, expected: Option<&Digest>) -> Vec<String> {
    let fates = fates(records, &key(name), expected).into_iter();
    fates.filter(|(_, fate)| *fate == Fate::Goes).map(|(record, _)| record.name.clone()).collect()
}

#[test]
fn what_others_need_stays() {
    let target = Digest::sha256(b"target");
    let records = |names: &[&str]| -> Vec<Record> {
        delivered(names, &target).into_iter().map(|(name, labels)| record(&name, &target, labels)).collect()
    };
    let by_digest = format!("registry.corp/app@{target}");
    let config = Digest::sha256(b"config").to_string();
    let alone = records(&["registry.corp/app:v1"]);
    assert_eq!(going(&alone, "registry.corp/app:v1", None), ["registry.corp/app:v1", &by_digest, &config]);
    let two_tags = records(&["registry.corp/app:v1", "registry.corp/app:v2"]);
    assert_eq!(going(&two_tags, "registry.corp/app:v1", None), ["registry.corp/app:v1"]);
    let elsewhere = records(&["registry.corp/app:v1", "registry.corp/mirror:v1"]);
    assert_eq!(going(&elsewhere, "registry.corp/app:v1", None), ["registry.corp/app:v1", &by_digest]);

    // kubelet has pulled the same under another tag, or in another place.
    let mut kubelets = alone.clone();
    kubelets.push(record("registry.corp/app:v3", &target, foreign(true, false)));
    assert_eq!(going(&kubelets, "registry.corp/app:v1", None), ["registry.corp/app:v1"]);
    let mut kubelets = alone.clone();
    kubelets.push(record("registry.corp/mirror:v3", &target, foreign(true, false)));
    assert_eq!(going(&kubelets, "registry.corp/app:v1", None), ["registry.corp/app:v1", &by_digest]);

    // The tag stands for another image by now.
    assert_eq!(going(&alone, "registry.corp/app:v1", Some(&target)).len(), 3);
    let other = Digest::sha256(b"other");
    assert_eq!(going(&alone, "registry.corp/app:v1", Some(&other)), [by_digest, config]);
}
