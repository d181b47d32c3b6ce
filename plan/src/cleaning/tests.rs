use proptest::prelude::*;

use super::*;

fn image(number: u8, names: &[&str]) -> Image {
    Image {
        id: Digest::sha256(&[number]),
        names: names.iter().map(|name| name.parse().unwrap()).collect(),
        created: Timestamp::from_second(i64::from(number)).ok(),
        came: None,
        stays: None,
    }
}

fn rule(image: &str) -> NodeRemoval {
    NodeRemoval { cache: "clean".to_owned(), image: image.to_owned(), ..NodeRemoval::default() }
}

/// The names that go, and those that a single rule's status gives.
fn outcome(rules: &[NodeRemoval], images: &[Image]) -> (Vec<String>, NodeRemovalStatus) {
    let mut plan = Rules::new(rules).plan(images);
    let going = plan.going.iter().flat_map(|going| &going.names).map(|name| name.familiar().to_owned());
    let mut going: Vec<_> = going.collect();
    going.sort();
    (going, plan.statuses.swap_remove(0))
}

#[test]
fn what_matches_goes_but_for_the_exceptions() {
    let images = [
        image(1, &["nginx:1.18"]),
        image(2, &["nginx:1.19"]),
        image(3, &["nginx:1.21"]),
        image(4, &["redis:1.19"]),
    ];
    let mut old =
        NodeRemoval { except: vec!["docker.io/library/nginx:1.19".to_owned()], ..rule("nginx:1.1*") };
    let (going, status) = outcome(&[old.clone()], &images);
    assert_eq!(going, ["nginx:1.18"]);
    assert_eq!((status.images, status.in_use, status.removed), (1, 0, 0));
    assert_eq!(status.names, ["docker.io/library/nginx:1.18"]);
    old.except = vec![images[0].id.hex()[..12].to_owned()];
    assert_eq!(outcome(&[old.clone()], &images).0, ["nginx:1.19"], "an ID is an exception too");
    old.dry_run = true;
    let (going, status) = outcome(&[old], &images);
    assert_eq!((going.len(), status.images, status.dry_run), (0, 1, true));
    assert_eq!(status.names, ["docker.io/library/nginx:1.19"]);
}

#[test]
fn a_name_goes_and_the_image_goes_with_its_last_one() {
    let images =
        [image(1, &["corp.test/team/app:v1", "corp.test/base/app:v1"]), image(2, &["corp.test/team/app:v2"])];
    let plan = Rules::new(&[rule("corp.test/team/*")]).plan(&images);
    let going: Vec<_> = plan.going.iter().map(|going| (going.names.len(), going.is_last)).collect();
    assert_eq!(plan.statuses[0].images, 2);
    let of = |image: &Image| plan.going.iter().find(|going| going.id == image.id).unwrap();
    assert!(!of(&images[0]).is_last && of(&images[1]).is_last, "{going:?}");
    // Two rules take what one of them would leave.
    let plan = Rules::new(&[rule("corp.test/team/*"), rule("corp.test/base/*")]).plan(&images);
    let both = plan.going.iter().find(|going| going.id == images[0].id).unwrap();
    assert!(both.is_last && both.rules == BTreeSet::from([0, 1]));
}

#[test]
fn what_stays_keeps_all_its_names_and_only_use_is_told() {
    let with = |stays| Image { stays: Some(stays), ..image(1, &["app:1", "other:1"]) };
    for (stays, images, in_use) in
        [(Stays::Wanted, 0, 0), (Stays::Pinned, 0, 0), (Stays::InUse, 0, 1), (Stays::Young, 1, 0)]
    {
        let (going, status) = outcome(&[rule("app:*")], &[with(stays)]);
        assert_eq!((going.len(), status.images, status.in_use), (0, images, in_use), "{stays:?}");
        let told = images + in_use > 0;
        assert_eq!(!status.names.is_empty(), told, "{stays:?}");
    }
}

#[test]
fn the_newest_of_each_repository_stay() {
    let images = [
        image(1, &["app:1"]),
        // Two tags of one image are one.
        image(2, &["app:2", "app:stable"]),
        Image { stays: Some(Stays::Wanted), ..image(3, &["app:3"]) },
        image(4, &["tool:4"]),
        // It does not say when it was made: the oldest.
        Image { created: None, ..image(9, &["app:9"]) },
    ];
    let keep = |count| NodeRemoval { keep_newest: Some(count), ..rule("*:*") };
    assert_eq!(outcome(&[keep(2)], &images).0, ["app:1", "app:9"]);
    assert_eq!(outcome(&[keep(3)], &images).0, ["app:9"]);
    assert_eq!(outcome(&[keep(0)], &images).0, ["app:1", "app:2", "app:9", "app:stable", "tool:4"]);
    let came = |number, came| Image {
        created: None,
        came: Timestamp::from_second(came).ok(),
        ..image(number, &[&format!("old:{number}")])
    };
    assert_eq!(outcome(&[keep(1)], &[came(5, 20), came(6, 30), came(7, 10)]).0, ["old:5", "old:7"]);
}

#[test]
fn an_image_without_a_tag_is_known_by_its_digest() {
    let by_digest = format!("corp.test/team/app@{}", Digest::sha256(b"x"));
    let images = [image(1, &[&by_digest]), image(2, &["corp.test/team/app:2"])];
    assert_eq!(outcome(&[rule("corp.test/team/*")], &images).0.len(), 2);
    assert_eq!(outcome(&[rule(&by_digest)], &images).0, [by_digest]);
    assert_eq!(outcome(&[rule("corp.test/team/app:*")], &images).0, ["corp.test/team/app:2"]);
}

#[test]
fn a_rule_that_cannot_be_read_takes_nothing() {
    let images = [image(1, &["app:1"])];
    for given in [
        rule("**"),
        rule("a["),
        NodeRemoval { except: vec!["a[".to_owned(), "b".to_owned()], ..rule("app:*") },
    ] {
        assert_eq!(outcome(std::slice::from_ref(&given), &images).0, [""; 0], "{given:?}");
    }
}

#[test]
fn a_status_names_ten() {
    let images: Vec<_> = (0..30).map(|number| image(number, &[&format!("app:{number:02}")])).collect();
    let (going, status) = outcome(&[rule("app:*")], &images);
    assert_eq!((going.len(), status.images, status.names.len()), (30, 30, MAX_NAMES));
    assert_eq!(status.names[9], "docker.io/library/app:09");
}

const STAYS: [Option<Stays>; 8] = [
    None,
    None,
    None,
    None,
    Some(Stays::Wanted),
    Some(Stays::Pinned),
    Some(Stays::InUse),
    Some(Stays::Young),
];
const PATTERNS: [&str; 7] = ["a:*", "b:*", "*:1", "a:1", "x.test/*", "**/a:?", "*:[12]"];
const EXCEPT: [&str; 4] = ["a", "b:1", "x.test/*", "docker.io/library/a:2"];

fn some_images() -> impl Strategy<Value = Vec<Image>> {
    let name = (0usize..4, 0u8..4).prop_map(|(repository, tag)| {
        let repository = ["a", "b", "x.test/a", "x.test/y/a"][repository];
        format!("{repository}:{tag}")
    });
    let one = (prop::collection::vec(name, 1..4), 0i64..4, 0i64..3, 0usize..8);
    prop::collection::vec(one, 0..8).prop_map(|all| {
        let mut taken = BTreeSet::new();
        let images = all.into_iter().zip(0u8..).map(|((names, created, came, stays), number)| Image {
            id: Digest::sha256(&[number]),
            // A name stands for one image.
            names: names
                .iter()
                .map(|name| name.parse().unwrap())
                .filter(|name: &ImageName| taken.insert(name.clone()))
                .collect(),
            created: (created > 0).then(|| Timestamp::from_second(created).unwrap()),
            came: (came > 0).then(|| Timestamp::from_second(came).unwrap()),
            stays: STAYS[stays],
        });
        images.collect()
    })
}

fn some_rules() -> impl Strategy<Value = Vec<NodeRemoval>> {
    let one = (
        0..PATTERNS.len(),
        prop::collection::vec(0..EXCEPT.len(), 0..2),
        prop::option::of(0i32..3),
        any::<bool>(),
    );
    let one = one.prop_map(|(pattern, except, keep_newest, dry_run)| NodeRemoval {
        except: except.into_iter().map(|place| EXCEPT[place].to_owned()).collect(),
        keep_newest,
        dry_run,
        ..rule(PATTERNS[pattern])
    });
    prop::collection::vec(one, 1..5)
}

proptest! {
    #[test]
    fn nothing_goes_that_is_to_stay(images in some_images(), rules in some_rules()) {
        let plan = Rules::new(&rules).plan(&images);
        for going in &plan.going {
            let image = images.iter().find(|image| image.id == going.id).unwrap();
            prop_assert_eq!(image.stays, None);
            prop_assert!(!going.names.is_empty() && going.names.is_subset(&image.names));
            prop_assert_eq!(going.is_last, going.names == image.names);
            for name in &going.names {
                let told = rules.iter().any(|rule| {
                    !rule.dry_run
                        && Pattern::removing(&rule.image).unwrap().matches(name)
                        && !rule.except.iter().any(|text| Pattern::keeping(text).unwrap().matches(name))
                });
                prop_assert!(told, "{} goes, and no rule says so", name);
            }
        }
        for (rule, status) in rules.iter().zip(&plan.statuses) {
            prop_assert_eq!((&status.image, status.dry_run), (&rule.image, rule.dry_run));
            prop_assert_eq!(status.names.is_empty(), status.images + status.in_use == 0);
        }
    }

    #[test]
    fn a_dry_run_tells_what_would_go(images in some_images(), rules in some_rules()) {
        let dry = |dry_run| rules.iter().map(|rule| NodeRemoval { dry_run, ..rule.clone() }).collect::<Vec<_>>();
        let (told, done) = (Rules::new(&dry(true)).plan(&images), Rules::new(&dry(false)).plan(&images));
        prop_assert!(told.going.is_empty());
        let bare = |plan: &Plan| {
            let statuses = plan.statuses.iter().cloned();
            statuses.map(|status| NodeRemovalStatus { dry_run: false, ..status }).collect::<Vec<_>>()
        };
        prop_assert_eq!(bare(&told), bare(&done));
    }

    #[test]
    fn the_order_of_rules_and_images_makes_no_difference(images in some_images(), rules in some_rules()) {
        let plan = Rules::new(&rules).plan(&images);
        let (mut back, mut last_first) = (rules.clone(), images.clone());
        back.reverse();
        last_first.reverse();
        let mut other = Rules::new(&back).plan(&last_first);
        other.statuses.reverse();
        prop_assert_eq!(&plan.statuses, &other.statuses);
        let names = |plan: &Plan| plan.going.iter().map(|going| (going.id.clone(), going.names.clone())).collect::<Vec<_>>();
        prop_assert_eq!(names(&plan), names(&other));
    }

    #[test]
    fn just_the_newest_stay(images in some_images(), keep in 0i32..4) {
        let images: Vec<_> = images.into_iter().map(|image| Image { stays: None, ..image }).collect();
        let rule = NodeRemoval { keep_newest: Some(keep), ..rule("**/a:*") };
        let plan = Rules::new(&[rule]).plan(&images);
        let goes = |id: &Digest, name: &ImageName| plan.going.iter().any(|going| going.id == *id && going.names.contains(name));
        for repository in ["docker.io/library/a", "x.test/a", "x.test/y/a"] {
            let of = |image: &Image| -> Vec<ImageName> {
                let start = format!("{repository}:");
                image.names.iter().filter(|name| name.as_str().starts_with(&start)).cloned().collect()
            };
            let all: Vec<&Image> = images.iter().filter(|image| !of(image).is_empty()).collect();
            let (gone, kept): (Vec<&Image>, Vec<&Image>) =
                all.iter().partition(|image| of(image).iter().any(|name| goes(&image.id, name)));
            prop_assert_eq!(kept.len(), all.len().min(usize::try_from(keep).unwrap()));
            for (gone, kept) in gone.iter().flat_map(|gone| kept.iter().map(move |kept| (gone, kept))) {
                prop_assert!((gone.created, gone.came) <= (kept.created, kept.came));
            }
            for image in gone {
                prop_assert!(of(image).iter().all(|name| goes(&image.id, name)), "all of its names or none");
            }
        }
    }
}
