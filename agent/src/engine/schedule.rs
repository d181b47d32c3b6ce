//! What is fetched when: whose turn it is.
//!
//! An image that waits has no task and holds nothing: each time the engine looks, it picks from all that wait as many as
//! there are free places, in this order:
//!
//! 1. those that have failed less often in a row. So an image that fails, however high its priority and however long each of
//!    its tries takes, holds up no other;
//! 2. those of a higher priority;
//! 3. those that come earlier in their `ImageCache`'s list;
//! 4. by name.
//!
//! A place belongs to a registry, and where a limit is set over all registries, it needs one of those too. What is under way
//! is never ended for the sake of something else.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use larder_oci::ImageKey;

use super::desired::{Fetching, Source};

/// Images that are fetched from one registry at the same time. A slow one must not hold up the others.
const CONCURRENT_PULLS_A_REGISTRY: usize = 3;
/// Archives that are loaded at the same time. They are a matter of the disk and of one processor each.
const CONCURRENT_LOADS: usize = 2;

/// Where an image stands in the line. What is smaller comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// How often it has failed in a row.
    pub failures: u32,
    pub priority: Reverse<i32>,
    pub position: i32,
    pub key: ImageKey,
}

/// What images wait for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// A registry, by its name.
    Registry(String),
    /// The node's import folder.
    Files,
}

impl Lane {
    /// Where an image comes from.
    pub(super) fn of(key: &ImageKey, source: &Source) -> Self {
        match source {
            Source::Registry => Self::Registry(key.name.registry().to_owned()),
            Source::Artifact(name) => Self::Registry(name.registry().to_owned()),
            Source::File(_) => Self::Files,
        }
    }

    fn places(&self) -> usize {
        match self {
            Self::Registry(_) => CONCURRENT_PULLS_A_REGISTRY,
            Self::Files => CONCURRENT_LOADS,
        }
    }

    fn counts(&self) -> bool {
        matches!(self, Self::Registry(_))
    }
}

/// An image that could be fetched now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    pub place: Place,
    pub lane: Lane,
}

impl Waiting {
    pub(super) fn new(key: &ImageKey, wanted: &Fetching, failures: u32) -> Self {
        let place = Place {
            failures,
            priority: Reverse(wanted.priority),
            position: wanted.position,
            key: key.clone(),
        };
        Self { place, lane: Lane::of(key, &wanted.source) }
    }
}

/// How many are under way, by where they come from.
pub(super) type UnderWay = BTreeMap<Lane, usize>;

/// Those whose turn it is, in the order in which they are to start. `limit` is how many may be fetched at a time from all
/// registries.
pub(super) fn pick(mut waiting: Vec<Waiting>, under_way: &UnderWay, limit: Option<usize>) -> Vec<Waiting> {
    waiting.sort();
    let mut taken = under_way.clone();
    let mut all: usize = taken.iter().filter(|(lane, _)| lane.counts()).map(|(_, count)| count).sum();
    waiting.retain(|one| {
        let lane = taken.entry(one.lane.clone()).or_default();
        let is_full =
            *lane >= one.lane.places() || (one.lane.counts() && limit.is_some_and(|limit| all >= limit));
        if !is_full {
            *lane += 1;
            all += usize::from(one.lane.counts());
        }
        !is_full
    });
    waiting
}

/// Counts what is under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<UnderWay>>);

impl Turns {
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn under_way(&self) -> UnderWay {
        self.lock().clone()
    }

    /// Begins a turn. It lasts until the value is dropped.
    pub(super) fn begin(&self, lane: Lane) -> Turn {
        *self.lock().entry(lane.clone()).or_default() += 1;
        Turn { turns: self.clone(), lane }
    }
}

/// An image's turn: held while it is fetched, and while the delivery goes on that follows.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    lane: Lane,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = self.turns.lock();
        if let Some(count) = under_way.get_mut(&self.lane) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> ImageKey {
        ImageKey { name: name.parse().unwrap(), platform: "linux/amd64".parse().unwrap() }
    }

    fn waiting(name: &str, priority: i32, position: i32, failures: u32) -> Waiting {
        let wanted = Fetching { priority, position, ..Fetching::default() };
        Waiting::new(&key(name), &wanted, failures)
    }

    fn names(picked: &[Waiting]) -> Vec<String> {
        picked.iter().map(|one| one.place.key.name.repository().to_owned()).collect()
    }

    #[test]
    fn priority_then_position_then_name() {
        let all = vec![
            waiting("r.test/late", 0, 9, 0),
            waiting("r.test/b", 0, 1, 0),
            waiting("r.test/a", 0, 1, 0),
            waiting("r.test/urgent", 7, 20, 0),
            waiting("r.test/idle", -7, 0, 0),
            waiting("r.test/failed", 7, 0, 1),
        ];
        let mut order = Vec::new();
        let mut left = all;
        while !left.is_empty() {
            let picked = pick(left.clone(), &UnderWay::new(), Some(1));
            assert_eq!(picked.len(), 1);
            left.retain(|one| *one != picked[0]);
            order.extend(names(&picked));
        }
        assert_eq!(order, ["urgent", "a", "b", "late", "idle", "failed"]);
    }

    #[test]
    fn a_registry_has_three_places_and_files_take_none() {
        let mut all: Vec<_> =
            (0..5).map(|number| waiting(&format!("r.test/app{number}"), 0, number, 0)).collect();
        all.push(waiting("other.test/app", -5, 0, 0));
        let source = Source::File("app.tar".to_owned());
        let wanted = Fetching { source, ..Fetching::default() };
        all.push(Waiting::new(&key("r.test/loaded"), &wanted, 0));
        let source = Source::Artifact("other.test/archives/app".parse().unwrap());
        let wanted = Fetching { source, priority: -6, ..Fetching::default() };
        all.push(Waiting::new(&key("r.test/fetched"), &wanted, 0));
        let picked = pick(all.clone(), &UnderWay::new(), None);
        assert_eq!(names(&picked), ["app0", "loaded", "app1", "app2", "app", "fetched"]);
        let picked = pick(all.clone(), &UnderWay::new(), Some(2));
        assert_eq!(names(&picked), ["app0", "loaded", "app1"], "a file is no download");
        let turns = Turns::default();
        let held: Vec<_> = (0..3).map(|_| turns.begin(Lane::Registry("r.test".to_owned()))).collect();
        assert_eq!(names(&pick(all.clone(), &turns.under_way(), None)), ["loaded", "app", "fetched"]);
        assert_eq!(names(&pick(all, &turns.under_way(), Some(2))), ["loaded"], "a lower limit ends nothing");
        drop(held);
        assert_eq!(turns.under_way(), UnderWay::new());
    }

    /// However long each of their tries takes, and however many they are.
    #[test]
    fn images_that_fail_hold_up_no_other() {
        let mut failing: Vec<_> =
            (0..20).map(|number| waiting(&format!("bad.test/app{number}"), 9, 0, 0)).collect();
        let good = waiting("good.test/app", -9, 99, 0);
        for tries in 1..=21 {
            let picked = pick([failing.clone(), vec![good.clone()]].concat(), &UnderWay::new(), Some(1));
            if picked[0] == good {
                return;
            }
            assert!(tries <= 20, "the good one waits for ever");
            for one in failing.iter_mut().filter(|one| one.place.key == picked[0].place.key) {
                one.place.failures += 1;
            }
        }
    }

    proptest! {
        #[test]
        fn limits_hold_no_place_stays_empty_and_the_order_is_kept(
            images in prop::collection::vec((0u8..4, -2i32..3, 0i32..4, 0u32..3), 0..30),
            busy in prop::collection::vec(0u8..4, 0..12),
            limit in prop::option::of(1usize..8),
        ) {
            let lane = |number: u8| if number == 3 { Lane::Files } else { Lane::Registry(format!("r{number}")) };
            let waiting: Vec<Waiting> = images
                .iter()
                .enumerate()
                .map(|(number, &(from, priority, position, failures))| Waiting {
                    place: Place {
                        failures,
                        priority: Reverse(priority),
                        position,
                        key: key(&format!("r.test/app{number}")),
                    },
                    lane: lane(from),
                })
                .collect();
            let turns = Turns::default();
            let _held: Vec<Turn> = busy.iter().map(|&from| turns.begin(lane(from))).collect();
            let before = turns.under_way();
            let picked = pick(waiting.clone(), &before, limit);
            let _new: Vec<Turn> = picked.iter().map(|one| turns.begin(one.lane.clone())).collect();
            let after = turns.under_way();
            let all = |counts: &UnderWay| {
                counts.iter().filter(|(lane, _)| lane.counts()).map(|(_, count)| *count).sum::<usize>()
            };
            for (lane, count) in &after {
                let had = before.get(lane).copied().unwrap_or_default();
                prop_assert!(*count <= lane.places().max(had), "{lane:?}");
            }
            if let Some(limit) = limit {
                prop_assert!(all(&after) <= limit.max(all(&before)));
            }
            prop_assert!(picked.is_sorted(), "started in order");
            for left in waiting.iter().filter(|one| !picked.contains(one)) {
                let lane_is_full = after.get(&left.lane).is_some_and(|count| *count >= left.lane.places());
                let all_is_full = left.lane.counts() && limit.is_some_and(|limit| all(&after) >= limit);
                prop_assert!(lane_is_full || all_is_full, "{left:?} waits for nothing");
                // Whoever went before it in its own lane comes before it in the order.
                for first in picked.iter().filter(|one| one.lane == left.lane) {
                    prop_assert!(first < left);
                }
            }
        }
    }
}
