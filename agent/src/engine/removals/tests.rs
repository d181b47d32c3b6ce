use larder_crds::NodeRemoval;
use larder_oci::{ImageName, Platform};
use larder_runtime::User;

use super::*;

const GRACE: Duration = Duration::from_secs(600);

fn id(number: u8) -> Digest {
    Digest::sha256(&[number])
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn found(names: &[&str], came: i64) -> Found {
    Found {
        names: names.iter().map(|name| name.parse().unwrap()).collect(),
        came: Some(time(came)),
        ..Found::default()
    }
}

fn user() -> User {
    User { pod: None, container: "job".to_owned(), id: "job".to_owned(), running: false }
}

fn key(name: &str) -> ImageKey {
    ImageKey { name: name.parse().unwrap(), platform: Platform::host() }
}

fn rule(image: &str) -> NodeRemoval {
    NodeRemoval { cache: "clean".to_owned(), image: image.to_owned(), ..NodeRemoval::default() }
}

fn removals(rules: &[NodeRemoval], kept: &[ImageKey]) -> Removals {
    let mut removals = Removals::new(GRACE);
    removals.take_up(&Desired { remove: rules.to_vec(), ..Desired::default() }, kept.iter());
    removals
}

fn going(removals: &mut Removals) -> Vec<String> {
    let going = removals.take();
    let names =
        going.iter().flat_map(|purge| &purge.names).map(|name: &ImageName| name.familiar().to_owned());
    names.collect()
}

#[tokio::test]
async fn what_came_or_was_used_a_moment_ago_is_young() {
    let (mut memory, start) = (Memory::default(), Instant::now() + GRACE * 10);
    let used = Found { users: vec![user()], ..found(&["used:1"], 0) };
    let unknown = Found { came: None, ..found(&["unknown:1"], 0) };
    let there = BTreeMap::from([
        (id(1), found(&["old:1"], 0)),
        (id(2), found(&["new:1"], 9_900)),
        (id(3), used),
        (id(4), unknown),
        // By a clock that was ahead of this one.
        (id(5), found(&["ahead:1"], 99_000)),
    ]);
    let young = memory.see(&there, start, time(10_000), GRACE);
    let ends: Vec<_> = young.values().map(|end| end.duration_since(start)).collect();
    assert_eq!(young.keys().collect::<BTreeSet<_>>(), [id(2), id(3), id(4), id(5)].iter().collect());
    assert!(ends.contains(&Duration::from_secs(500)) && ends.contains(&GRACE), "{ends:?}");

    // Its container has gone since.
    let unused = BTreeMap::from([(id(3), found(&["used:1"], 0))]);
    let later = |seconds: u64| start + Duration::from_secs(seconds);
    assert_eq!(memory.see(&unused, later(599), time(10_599), GRACE).len(), 1);
    assert!(memory.see(&unused, later(600), time(10_600), GRACE).is_empty());
    assert!(memory.first_seen.len() == 1 && memory.last_used.len() == 1, "what went is forgotten");
    assert!(Memory::default().see(&there, start, time(10_000), Duration::ZERO).is_empty());
}

#[tokio::test]
async fn what_is_kept_pinned_used_or_ours_stays() {
    let wanted = found(&["docker.io/library/app:wanted", "docker.io/library/app:also"], 0);
    let by_digest = format!("docker.io/library/app@{}", id(9));
    let there = BTreeMap::from([
        (id(1), found(&["docker.io/library/app:old"], 0)),
        (id(2), wanted),
        (id(3), Found { is_pinned: true, ..found(&["docker.io/library/app:pinned"], 0) }),
        (id(4), Found { users: vec![user()], ..found(&["docker.io/library/app:used"], 0) }),
        (id(5), Found { is_ours: true, ..found(&["docker.io/library/app:ours"], 0) }),
        (id(6), found(&["docker.io/library/app:young"], 9_999)),
        (id(7), found(&[&by_digest], 0)),
    ]);
    let kept = [key("app:wanted"), key(&format!("app:v1@{}", id(9)))];
    let mut removals = removals(&[rule("app:*"), rule("docker.io/library/app@*")], &kept);
    let now = Instant::now() + GRACE * 10;
    removals.plan(&there, now, time(10_000));
    assert_eq!(removals.due.map(|due| due - now), Some(Duration::from_secs(599)), "of the young one");
    assert_eq!(going(&mut removals), ["app:old"]);
    let statuses = removals.statuses();
    assert_eq!((statuses.len(), statuses[0].images, statuses[0].in_use), (1, 2, 1), "{statuses:?}");
    assert_eq!(going(&mut removals), [""; 0], "it is taken once");
}

#[tokio::test]
async fn what_went_is_counted_and_told_once_and_what_could_not_go_waits() {
    let there = || {
        BTreeMap::from([
            (id(1), found(&["docker.io/library/app:1"], 0)),
            (id(2), found(&["docker.io/library/app:2"], 0)),
            (id(3), found(&["docker.io/library/app:3", "quay.io/app:3"], 0)),
        ])
    };
    let mut removals = removals(&[rule("app:*")], &[]);
    let now = Instant::now() + GRACE * 10;
    removals.plan(&there(), now, time(10_000));
    let purges = removals.take();
    assert_eq!(purges.len(), 3);
    let is_second = |purge: &Purge| purge.id == id(2);
    let done = purges.into_iter().map(|purge| Purged { is_gone: !is_second(&purge), purge }).collect();
    let told = removals.record(done);
    let expected = Notice::RemovedByRule {
        cache: "clean".to_owned(),
        rule: "app:*".to_owned(),
        // The third one has another name left.
        images: vec!["docker.io/library/app:1".to_owned()],
    };
    assert_eq!(told, [expected]);
    assert_eq!(removals.statuses()[0].removed, 1);
    let hurry = Instant::now();
    removals.plan(&there(), hurry, time(10_000));
    assert!(removals.take().iter().all(|purge| !is_second(purge)), "not at once again");
    removals.plan(&there(), hurry + PAUSE * 2, time(10_000));
    assert!(removals.take().iter().any(is_second));
}

#[test]
fn counts_outlive_an_agent_and_end_with_their_rule() {
    let status = NodeRemovalStatus {
        cache: "clean".to_owned(),
        image: "app:*".to_owned(),
        removed: 7,
        ..Default::default()
    };
    let other = NodeRemovalStatus { image: "gone:*".to_owned(), ..status.clone() };
    let mut desired = Desired {
        remove: vec![rule("app:*")],
        removals_before: vec![status.clone(), other],
        ..Desired::default()
    };
    let mut removals = Removals::new(GRACE);
    removals.take_up(&desired, std::iter::empty());
    assert_eq!(removals.statuses(), [status]);
    desired.remove.clear();
    removals.take_up(&desired, std::iter::empty());
    assert_eq!(removals.statuses(), []);
    desired.remove = vec![rule("app:*")];
    removals.take_up(&desired, std::iter::empty());
    assert_eq!(removals.statuses(), [], "a rule that comes again begins anew");
}
