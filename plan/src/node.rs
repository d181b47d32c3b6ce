//! The agent's plan: (wanted, held) → steps.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::ImageKey;

/// An image that the node is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which image.
    pub key: ImageKey,
    /// Whether its tag is to be looked up although the node may have it.
    pub recheck: bool,
}

/// An image that the node's store names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which image.
    pub key: ImageKey,
    /// Whether all its blobs are there.
    pub complete: bool,
    /// Who looks after it.
    pub claim: Claim,
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

/// One thing to do. Steps are independent of each other: each may fail, or be done twice, without harm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Fetch the image, or what it lacks.
    Fetch(ImageKey),
    /// Take the image's name away, and with it all blobs that nothing else needs.
    Remove(ImageKey),
    /// Look after an image that had been given up.
    Claim(ImageKey),
    /// Keep the image and stop looking after it.
    Release(ImageKey),
}

/// The steps that lead from what is held to what is wanted, in order of image.
///
/// `released` are images to keep although they are not wanted. When the steps are done, the plan is empty.
#[must_use]
pub fn steps(wanted: &[Wanted], released: &BTreeSet<ImageKey>, held: &[Held]) -> Vec<Step> {
    let held: BTreeMap<&ImageKey, &Held> = held.iter().map(|image| (&image.key, image)).collect();
    let wanted_keys: BTreeSet<&ImageKey> = wanted.iter().map(|image| &image.key).collect();
    let towards = wanted.iter().filter_map(|image| match held.get(&image.key) {
        Some(found) if found.complete && !image.recheck => {
            (found.claim == Claim::Released).then(|| Step::Claim(image.key.clone()))
        }
        _ => Some(Step::Fetch(image.key.clone())),
    });
    let away = held.values().filter(|image| !wanted_keys.contains(&image.key)).filter_map(|image| {
        let key = image.key.clone();
        match image.claim {
            Claim::Person | Claim::Released => None,
            Claim::Larder if released.contains(&image.key) => Some(Step::Release(key)),
            Claim::Larder => Some(Step::Remove(key)),
        }
    });
    towards.chain(away).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> ImageKey {
        ImageKey { name: format!("app:{number}").parse().unwrap(), platform: "linux/amd64".parse().unwrap() }
    }

    fn held(number: u8, complete: bool, claim: Claim) -> Held {
        Held { key: key(number), complete, claim }
    }

    #[test]
    fn what_is_missing_or_incomplete_is_fetched_and_nothing_else() {
        let wanted: Vec<_> = [1, 2, 3].map(|n| Wanted { key: key(n), recheck: false }).to_vec();
        let there = [held(1, true, Claim::Larder), held(2, false, Claim::Larder)];
        assert_eq!(steps(&wanted, &BTreeSet::new(), &there), [Step::Fetch(key(2)), Step::Fetch(key(3))]);
    }

    #[test]
    fn only_what_larder_put_there_is_removed() {
        let there =
            [held(1, true, Claim::Person), held(2, true, Claim::Larder), held(3, true, Claim::Released)];
        assert_eq!(steps(&[], &BTreeSet::new(), &there), [Step::Remove(key(2))]);
    }

    #[test]
    fn a_released_image_stays_and_can_be_claimed_again() {
        let there = [held(1, true, Claim::Larder)];
        assert_eq!(steps(&[], &BTreeSet::from([key(1)]), &there), [Step::Release(key(1))]);
        let given_up = [held(1, true, Claim::Released)];
        let wanted = [Wanted { key: key(1), recheck: false }];
        assert_eq!(steps(&wanted, &BTreeSet::new(), &given_up), [Step::Claim(key(1))]);
    }

    #[test]
    fn a_recheck_fetches_what_is_there() {
        let wanted = [Wanted { key: key(1), recheck: true }];
        assert_eq!(steps(&wanted, &BTreeSet::new(), &[held(1, true, Claim::Larder)]), [Step::Fetch(key(1))]);
    }

    /// What a store holds after a step, as the agent carries it out.
    fn carry_out(step: &Step, held: &mut Vec<Held>) {
        let set = |held: &mut Vec<Held>, key: &ImageKey, claim| {
            held.iter_mut().filter(|image| image.key == *key).for_each(|image| image.claim = claim);
        };
        match step {
            Step::Fetch(key) => {
                let before = held.iter().find(|image| image.key == *key).map(|image| image.claim);
                held.retain(|image| image.key != *key);
                let claim = if before == Some(Claim::Person) { Claim::Person } else { Claim::Larder };
                held.push(Held { key: key.clone(), complete: true, claim });
            }
            Step::Remove(key) => held.retain(|image| image.key != *key),
            Step::Claim(key) => set(held, key, Claim::Larder),
            Step::Release(key) => set(held, key, Claim::Released),
        }
    }

    proptest! {
        /// Invariants 3 and 5: carrying the plan out makes it empty, everything wanted is there, nothing that is
        /// wanted, released or a person's goes, and what is left over was somebody's to keep.
        #[test]
        fn a_plan_carried_out_is_empty(
            wanted in prop::collection::btree_set(0u8..8, 0..8),
            released in prop::collection::btree_set(0u8..8, 0..8),
            there in prop::collection::btree_map(0u8..8, (any::<bool>(), 0u8..3), 0..8),
        ) {
            let wants: Vec<_> = wanted.iter().map(|&n| Wanted { key: key(n), recheck: false }).collect();
            let keeps: BTreeSet<_> = released.iter().map(|&n| key(n)).collect();
            let claims = [Claim::Person, Claim::Larder, Claim::Released];
            let before: Vec<_> =
                there.iter().map(|(&n, &(complete, claim))| held(n, complete, claims[usize::from(claim)])).collect();
            let mut after = before.clone();
            for step in steps(&wants, &keeps, &before) {
                carry_out(&step, &mut after);
            }
            prop_assert_eq!(steps(&wants, &keeps, &after), []);
            for number in wanted {
                prop_assert!(after.iter().any(|image| image.key == key(number) && image.complete));
            }
            for image in before {
                let kept = after.iter().any(|other| other.key == image.key);
                let may_go = image.claim == Claim::Larder && !keeps.contains(&image.key);
                prop_assert!(kept || may_go, "{} went", image.key);
            }
        }
    }
}
