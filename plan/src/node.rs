//! The agent's plan: (wanted, held) → steps.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::{Digest, ImageKey};

/// An image that the node is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which image.
    pub key: ImageKey,
    /// Whether its tag is to be looked up although the node may have it.
    pub recheck: bool,
    /// The image that it is a further name of. Such a name is never looked up: it stands for what that image is.
    pub of: Option<ImageKey>,
}

/// An image that the node's store names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which image.
    pub key: ImageKey,
    /// What its name stands for.
    pub digest: Digest,
    /// Whether all its blobs are there.
    pub complete: bool,
    /// Who looks after it.
    pub claim: Claim,
    /// How it stands in the container runtime.
    pub delivered: Delivered,
}

/// Who looks after an image in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// A person put it there. Larder never takes it away.
    Person,
    /// Larder put it there, and takes it away when no `ImageCache` wants it.
    Larder,
    /// Larder put it there and gave it up. It is Larder's again as soon as an `ImageCache` wants it.
    Released,
}

/// How an image stands in the container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivered {
    /// There is no runtime, or it has no use for the image: one for another platform.
    NotNeeded,
    /// The runtime has it, as the store does.
    Ready,
    /// The runtime has another image under its name, and nobody has looked up since which of the two the name stands for.
    Moved,
    /// The runtime lacks it, or part of it.
    Missing,
    /// The runtime cannot be asked.
    Unknown,
}

/// Images that are not wanted now, and that are not to be removed all the same.
#[derive(Debug, Clone, Copy)]
pub struct Spared<'a> {
    /// To be left where they are, without looking after them.
    pub released: &'a BTreeSet<ImageKey>,
    /// Wanted later: nothing is done about them, whether they are there or not.
    pub deferred: &'a BTreeSet<ImageKey>,
}

/// One thing to do. Steps are independent of each other: each may fail, or be done twice, without harm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Fetch the image, or what it lacks.
    Fetch(ImageKey),
    /// Give an image that is there a further name.
    Tag {
        /// The further name.
        key: ImageKey,
        /// The image.
        of: ImageKey,
    },
    /// Give the image to the container runtime.
    Deliver(ImageKey),
    /// Take the image out of the runtime; then its name out of the store, and with it all blobs that nothing else needs.
    /// It stays, in both, while a container uses it.
    Remove(ImageKey),
    /// Look after an image that had been given up.
    Claim(ImageKey),
    /// Keep the image in the store and stop looking after it.
    Release(ImageKey),
    /// Leave the image to the runtime, as if kubelet had pulled it, and take its name out of the store.
    Leave(ImageKey),
    /// Give a person's image back to the person: it stays where it is, and is not pinned any more.
    GiveBack(ImageKey),
}

/// The steps that lead from what is held to what is wanted, in order of image.
///
/// `strays` are images that the agent once gave to the runtime
/// and that are not wanted; the store may have lost them. When the steps are done, the plan is empty.
#[must_use]
pub fn steps(
    wanted: &[Wanted],
    spared: &Spared<'_>,
    held: &[Held],
    strays: &BTreeSet<ImageKey>,
) -> Vec<Step> {
    let Spared { released, deferred } = spared;
    let held: BTreeMap<&ImageKey, &Held> = held.iter().map(|image| (&image.key, image)).collect();
    let wanted_keys: BTreeSet<&ImageKey> = wanted.iter().map(|image| &image.key).collect();
    let is_unwanted = |key: &ImageKey| !wanted_keys.contains(key) && !deferred.contains(key);
    let towards = wanted.iter().flat_map(|image| {
        let name = held.get(&image.key).copied();
        match &image.of {
            None => towards(image, name),
            Some(of) => further(&image.key, name, held.get(of).copied()),
        }
    });
    let away = held
        .values()
        .filter(|image| is_unwanted(&image.key))
        .filter_map(|image| away(image, released.contains(&image.key), strays.contains(&image.key)));
    let lost = strays
        .iter()
        .filter(|&key| is_unwanted(key) && !held.contains_key(key))
        .map(|key| if released.contains(key) { Step::Leave(key.clone()) } else { Step::Remove(key.clone()) });
    towards.chain(away).chain(lost).collect()
}

/// What a wanted image needs.
fn towards(wanted: &Wanted, held: Option<&Held>) -> Vec<Step> {
    let key = || wanted.key.clone();
    let Some(held) = held.filter(|held| held.complete) else { return vec![Step::Fetch(key())] };
    let mut steps = Vec::new();
    if wanted.recheck || held.delivered == Delivered::Moved {
        steps.push(Step::Fetch(key()));
    }
    // Even if its tag is looked up: the registry may not answer for a long time.
    if held.delivered == Delivered::Missing {
        steps.push(Step::Deliver(key()));
    }
    if held.claim == Claim::Released {
        steps.push(Step::Claim(key()));
    }
    steps
}

/// What a further name needs. `name` is what stands under it, `source` the image that it is to stand for.
///
/// It waits until that is there, and then in the runtime. A name that a person has given to something else is the person's.
fn further(key: &ImageKey, name: Option<&Held>, source: Option<&Held>) -> Vec<Step> {
    let Some(source) = source.filter(|source| source.complete) else { return Vec::new() };
    let Some(name) = name.filter(|name| name.complete && name.digest == source.digest) else {
        let is_anothers = name.is_some_and(|name| name.claim == Claim::Person);
        let tag = Step::Tag { key: key.clone(), of: source.key.clone() };
        return if is_anothers { Vec::new() } else { vec![tag] };
    };
    let mut steps = Vec::new();
    // No registry has a say in what the name stands for: the runtime is told anew.
    let lacks = matches!(name.delivered, Delivered::Missing | Delivered::Moved);
    if lacks && source.delivered != Delivered::Missing {
        steps.push(Step::Deliver(key.clone()));
    }
    if name.claim == Claim::Released {
        steps.push(Step::Claim(key.clone()));
    }
    steps
}

/// What becomes of an image that nobody wants.
fn away(held: &Held, is_released: bool, is_stray: bool) -> Option<Step> {
    let key = held.key.clone();
    let in_runtime = matches!(held.delivered, Delivered::Ready | Delivered::Moved);
    match held.claim {
        Claim::Person => is_stray.then_some(Step::GiveBack(key)),
        Claim::Released | Claim::Larder if in_runtime && (is_released || held.claim == Claim::Released) => {
            Some(Step::Leave(key))
        }
        Claim::Released => None,
        Claim::Larder if is_released => Some(Step::Release(key)),
        Claim::Larder => Some(Step::Remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> ImageKey {
        ImageKey { name: format!("app:{number}").parse().unwrap(), platform: "linux/amd64".parse().unwrap() }
    }

    /// What an image's own name stands for.
    fn digest(number: u8) -> Digest {
        Digest::sha256(&[number])
    }

    fn held(number: u8, complete: bool, claim: Claim) -> Held {
        let delivered = Delivered::NotNeeded;
        Held { key: key(number), digest: digest(number), complete, claim, delivered }
    }

    fn there(number: u8, claim: Claim, delivered: Delivered) -> Held {
        Held { delivered, ..held(number, true, claim) }
    }

    fn want(number: u8) -> Wanted {
        Wanted { key: key(number), recheck: false, of: None }
    }

    fn wanted(numbers: &[u8]) -> Vec<Wanted> {
        numbers.iter().copied().map(want).collect()
    }

    /// A name of its own, and one that stands for an image of another number.
    fn name(number: u8, of: u8) -> Wanted {
        Wanted { of: Some(key(of)), ..want(number) }
    }

    fn tag(number: u8, of: u8) -> Step {
        Step::Tag { key: key(number), of: key(of) }
    }

    fn none() -> BTreeSet<ImageKey> {
        BTreeSet::new()
    }

    /// The plan where nothing is deferred.
    fn steps(
        wanted: &[Wanted],
        released: &BTreeSet<ImageKey>,
        held: &[Held],
        strays: &BTreeSet<ImageKey>,
    ) -> Vec<Step> {
        super::steps(wanted, &Spared { released, deferred: &none() }, held, strays)
    }

    #[test]
    fn nothing_is_done_about_what_is_deferred() {
        let deferred = BTreeSet::from([key(1), key(2), key(3), key(4)]);
        let (first, second) = (there(1, Claim::Larder, Delivered::Ready), held(2, false, Claim::Larder));
        let held = [first, second, held(5, true, Claim::Larder)];
        let spared = Spared { released: &none(), deferred: &deferred };
        let strays = [key(3)].into();
        assert_eq!(super::steps(&[], &spared, &held, &strays), [Step::Remove(key(5))]);
        // It has become its turn.
        assert_eq!(
            super::steps(&wanted(&[2, 4]), &spared, &held, &strays),
            [Step::Fetch(key(2)), Step::Fetch(key(4)), Step::Remove(key(5))]
        );
    }

    #[test]
    fn what_is_missing_or_incomplete_is_fetched_and_nothing_else() {
        let there = [held(1, true, Claim::Larder), held(2, false, Claim::Larder)];
        let steps = steps(&wanted(&[1, 2, 3]), &none(), &there, &none());
        assert_eq!(steps, [Step::Fetch(key(2)), Step::Fetch(key(3))]);
    }

    #[test]
    fn only_what_larder_put_there_is_removed() {
        let there =
            [held(1, true, Claim::Person), held(2, true, Claim::Larder), held(3, true, Claim::Released)];
        assert_eq!(steps(&[], &none(), &there, &none()), [Step::Remove(key(2))]);
    }

    #[test]
    fn a_released_image_stays_and_can_be_claimed_again() {
        let there = [held(1, true, Claim::Larder)];
        assert_eq!(steps(&[], &[key(1)].into(), &there, &none()), [Step::Release(key(1))]);
        let given_up = [held(1, true, Claim::Released)];
        assert_eq!(steps(&wanted(&[1]), &none(), &given_up, &none()), [Step::Claim(key(1))]);
    }

    #[test]
    fn a_recheck_fetches_what_is_there() {
        let wanted = [Wanted { recheck: true, ..want(1) }];
        let there = [held(1, true, Claim::Larder)];
        assert_eq!(steps(&wanted, &none(), &there, &none()), [Step::Fetch(key(1))]);
    }

    #[test]
    fn what_the_runtime_lacks_is_delivered_and_a_name_that_moved_is_looked_up() {
        use Delivered::{Missing, Moved, Ready, Unknown};
        let states = [Ready, Moved, Missing, Unknown];
        let there: Vec<_> = (1..).zip(states).map(|(n, state)| there(n, Claim::Larder, state)).collect();
        let steps_of = |wanted: &[Wanted]| steps(wanted, &none(), &there, &none());
        assert_eq!(steps_of(&wanted(&[1, 2, 3, 4])), [Step::Fetch(key(2)), Step::Deliver(key(3))]);
        let all: Vec<_> = [1, 2, 3, 4].map(|n| Wanted { recheck: true, ..want(n) }).into();
        let rechecked = steps_of(&all);
        assert!(rechecked.contains(&Step::Deliver(key(3))), "without waiting for a registry: {rechecked:?}");
        assert_eq!(rechecked.len(), 5);
    }

    #[test]
    fn what_is_released_is_left_to_the_runtime_once_that_has_it() {
        let released = BTreeSet::from([key(1), key(2), key(9)]);
        let held = [
            there(1, Claim::Larder, Delivered::Ready),
            there(2, Claim::Larder, Delivered::Missing),
            there(3, Claim::Released, Delivered::Ready),
            there(4, Claim::Released, Delivered::Missing),
        ];
        assert_eq!(
            steps(&[], &released, &held, &[key(9)].into()),
            [Step::Leave(key(1)), Step::Release(key(2)), Step::Leave(key(3)), Step::Leave(key(9))]
        );
    }

    #[test]
    fn strays_go_and_a_persons_image_is_given_back() {
        let held = [held(1, true, Claim::Person), held(2, true, Claim::Person)];
        let strays = BTreeSet::from([key(1), key(3), key(4)]);
        assert_eq!(
            steps(&wanted(&[4]), &none(), &held, &strays),
            [Step::Fetch(key(4)), Step::GiveBack(key(1)), Step::Remove(key(3))]
        );
    }

    #[test]
    fn a_further_name_waits_for_its_image_and_stands_for_it() {
        let wanted = [want(1), name(2, 1)];
        let steps_of = |held: &[Held]| steps(&wanted, &none(), held, &none());
        assert_eq!(steps_of(&[]), [Step::Fetch(key(1))]);
        assert_eq!(steps_of(&[held(1, false, Claim::Larder)]), [Step::Fetch(key(1))]);
        assert_eq!(steps_of(&[held(1, true, Claim::Larder)]), [tag(2, 1)]);
        // The image's tag has moved, or somebody has given the name to another.
        assert_eq!(steps_of(&[held(1, true, Claim::Larder), held(2, true, Claim::Larder)]), [tag(2, 1)]);
        assert_eq!(steps_of(&[held(1, true, Claim::Larder), held(2, true, Claim::Released)]), [tag(2, 1)]);
        let same = |claim| Held { digest: digest(1), ..held(2, true, claim) };
        assert_eq!(steps_of(&[held(1, true, Claim::Larder), same(Claim::Larder)]), []);
        assert_eq!(steps_of(&[held(1, true, Claim::Larder), same(Claim::Released)]), [Step::Claim(key(2))]);
        // It goes like any other image.
        assert_eq!(
            steps(&[want(1)], &none(), &[held(1, true, Claim::Larder), same(Claim::Larder)], &none()),
            [Step::Remove(key(2))]
        );
    }

    #[test]
    fn a_name_that_a_person_has_given_stays_the_persons() {
        let wanted = [want(1), name(2, 1)];
        let image = held(1, true, Claim::Larder);
        let persons = held(2, true, Claim::Person);
        assert_eq!(steps(&wanted, &none(), &[image.clone(), persons.clone()], &[key(2)].into()), []);
        let same = Held { digest: digest(1), ..persons };
        assert_eq!(steps(&wanted, &none(), &[image, same], &none()), []);
    }

    #[test]
    fn the_runtime_is_given_further_names_after_their_image_and_told_anew_when_they_moved() {
        use Delivered::{Missing, Moved, Ready, Unknown};
        let wanted = [want(1), name(2, 1)];
        for (image, further, expected) in [
            (Missing, Missing, vec![Step::Deliver(key(1))]),
            (Ready, Missing, vec![Step::Deliver(key(2))]),
            (Ready, Moved, vec![Step::Deliver(key(2))]),
            (Moved, Missing, vec![Step::Fetch(key(1)), Step::Deliver(key(2))]),
            (Ready, Ready, vec![]),
            (Unknown, Unknown, vec![]),
        ] {
            let name = Held { digest: digest(1), ..there(2, Claim::Larder, further) };
            let held = [there(1, Claim::Larder, image), name];
            assert_eq!(steps(&wanted, &none(), &held, &none()), expected, "{image:?} {further:?}");
        }
    }

    /// A node: what its store names, what its runtime has under which marks, and what containers use.
    #[derive(Debug, Clone)]
    struct Node {
        held: Vec<Held>,
        /// In the runtime, with the agent's mark.
        marked: BTreeSet<ImageKey>,
        /// In the runtime, without it.
        unmarked: BTreeSet<ImageKey>,
        used: BTreeSet<ImageKey>,
    }

    impl Node {
        fn plan(&self, wanted: &[Wanted], released: &BTreeSet<ImageKey>) -> Vec<Step> {
            let is_wanted = |key: &ImageKey| wanted.iter().any(|wanted| wanted.key == *key);
            let asked = |key: &ImageKey| {
                is_wanted(key) || self.find(key).is_some_and(|held| held.claim != Claim::Person)
            };
            let strays = self.marked.iter().filter(|key| !asked(key)).cloned().collect();
            steps(wanted, released, &self.held, &strays)
        }

        fn find(&self, key: &ImageKey) -> Option<&Held> {
            self.held.iter().find(|image| image.key == *key)
        }

        fn set(&mut self, key: &ImageKey, change: impl Fn(&mut Held)) {
            self.held.iter_mut().filter(|image| image.key == *key).for_each(change);
        }

        /// What there is after a step, as the agent carries it out.
        fn carry_out(&mut self, step: &Step) {
            match step {
                Step::Fetch(key) => {
                    let before = self.find(key).cloned();
                    let delivered = match before.as_ref().map(|held| held.delivered) {
                        // Looked up, and still another: what the registry says is to be delivered.
                        Some(Delivered::Moved) | None => Delivered::Missing,
                        Some(other) => other,
                    };
                    let claim = match before.map(|held| held.claim) {
                        Some(Claim::Person) => Claim::Person,
                        _ => Claim::Larder,
                    };
                    // What its tag stands for may have moved meanwhile.
                    let digest = before_or_own(self.find(key), key);
                    self.held.retain(|image| image.key != *key);
                    self.held.push(Held { key: key.clone(), digest, complete: true, claim, delivered });
                }
                Step::Tag { key, of } => {
                    let source = self.find(of).cloned().unwrap();
                    let delivered = match self.find(key).map(|held| held.delivered) {
                        _ if source.delivered == Delivered::NotNeeded => Delivered::NotNeeded,
                        Some(Delivered::Ready | Delivered::Moved) => Delivered::Moved,
                        Some(Delivered::Unknown) => Delivered::Unknown,
                        Some(Delivered::Missing | Delivered::NotNeeded) | None => Delivered::Missing,
                    };
                    self.held.retain(|image| image.key != *key);
                    self.held.push(Held { key: key.clone(), claim: Claim::Larder, delivered, ..source });
                }
                Step::Deliver(key) => {
                    self.set(key, |held| held.delivered = Delivered::Ready);
                    self.marked.insert(key.clone());
                }
                Step::Remove(key) if self.used.contains(key) => {}
                Step::Remove(key) => {
                    self.marked.remove(key);
                    self.held.retain(|image| image.key != *key);
                }
                Step::Claim(key) => self.set(key, |held| held.claim = Claim::Larder),
                Step::Release(key) => self.set(key, |held| held.claim = Claim::Released),
                Step::Leave(key) => {
                    self.marked.remove(key);
                    self.unmarked.insert(key.clone());
                    self.held.retain(|image| image.key != *key);
                }
                Step::GiveBack(key) => {
                    self.marked.remove(key);
                    self.unmarked.insert(key.clone());
                }
            }
        }
    }

    /// What a name stands for once it has been looked up.
    fn before_or_own(before: Option<&Held>, key: &ImageKey) -> Digest {
        let number = key.name.tag().unwrap().parse().unwrap();
        before.filter(|held| held.complete).map_or_else(|| digest(number), |held| held.digest.clone())
    }

    const CLAIMS: [Claim; 3] = [Claim::Person, Claim::Larder, Claim::Released];
    const STATES: [Delivered; 5] =
        [Delivered::NotNeeded, Delivered::Ready, Delivered::Moved, Delivered::Missing, Delivered::Unknown];

    fn a_node() -> impl Strategy<Value = Node> {
        let keys = |max| prop::collection::btree_set(0u8..8, 0..max);
        let image = (any::<bool>(), 0usize..3, 0usize..5, 0u8..8);
        let there = prop::collection::btree_map(0u8..8, image, 0..8);
        (there, keys(4), keys(4)).prop_map(|(there, lost, used)| {
            let held: Vec<_> = there
                .iter()
                .map(|(&number, &(complete, claim, state, stands_for))| Held {
                    key: key(number),
                    digest: digest(stands_for),
                    complete,
                    claim: CLAIMS[claim],
                    delivered: STATES[state],
                })
                .collect();
            let in_runtime = |held: &&Held| matches!(held.delivered, Delivered::Ready | Delivered::Moved);
            let marked = held.iter().filter(in_runtime).map(|held| held.key.clone());
            let lost = lost.into_iter().filter(|number| !there.contains_key(number)).map(key);
            Node {
                marked: marked.chain(lost).collect(),
                unmarked: BTreeSet::new(),
                used: used.into_iter().map(key).collect(),
                held,
            }
        })
    }

    proptest! {
        /// Invariants 3 and 5: carrying the plan out makes it empty, but for what containers use; everything wanted is
        /// there, in the runtime too; nothing that is wanted, used, released or a person's goes; and no mark of the
        /// agent's stays on what it does not look after.
        #[test]
        fn a_plan_carried_out_is_empty(
            wanted_numbers in prop::collection::btree_set(0u8..8, 0..8),
            names in prop::collection::btree_map(0u8..8, any::<prop::sample::Index>(), 0..8),
            released in prop::collection::btree_set(0u8..8, 0..8),
            before in a_node(),
        ) {
            let own: Vec<u8> = wanted_numbers.iter().copied().collect();
            let names = names.into_iter().filter(|(number, _)| !own.is_empty() && !own.contains(number));
            let names = names.map(|(number, of)| name(number, *of.get(&own)));
            let wants: Vec<_> = own.iter().copied().map(want).chain(names).collect();
            let keeps: BTreeSet<_> = released.iter().map(|&number| key(number)).collect();
            let mut after = before.clone();
            // What has been fetched is delivered in the second round, and what moved in the third; further names follow.
            for _ in 0..5 {
                for step in after.plan(&wants, &keeps) {
                    after.carry_out(&step);
                }
            }
            for step in after.plan(&wants, &keeps) {
                prop_assert!(matches!(&step, Step::Remove(key) if after.used.contains(key)), "{step:?} is left");
            }
            for wanted in &wants {
                let found = after.find(&wanted.key).unwrap();
                let source = wanted.of.as_ref().map(|of| after.find(of).unwrap());
                let is_as = |source: &Held| found.complete && source.digest == found.digest;
                if found.claim == Claim::Person && source.is_some_and(|source| !is_as(source)) {
                    continue;
                }
                prop_assert!(found.complete && !matches!(found.delivered, Delivered::Missing | Delivered::Moved));
                prop_assert!(source.is_none_or(is_as));
            }
            for image in before.held.iter().filter(|image| image.claim == Claim::Person && image.complete) {
                prop_assert_eq!(&after.find(&image.key).unwrap().digest, &image.digest, "a person's name moved");
            }
            for image in &before.held {
                let kept = after.find(&image.key).is_some() || after.unmarked.contains(&image.key);
                let may_go = image.claim == Claim::Larder
                    && !keeps.contains(&image.key)
                    && !before.used.contains(&image.key);
                prop_assert!(kept || may_go, "{} went", image.key);
            }
            for key in &before.marked {
                let kept = after.marked.contains(key) || after.unmarked.contains(key);
                let is_wanted = wants.iter().any(|wanted| wanted.key == *key);
                prop_assert!(kept || !before.used.contains(key) && !is_wanted, "{} went", key);
            }
            for key in &after.marked {
                let is_wanted = wants.iter().any(|wanted| wanted.key == *key);
                prop_assert!(is_wanted || after.used.contains(key), "{} is still marked", key);
            }
        }
    }
}
