//! Keys in the order in which they are due, in two lanes.

use std::collections::BTreeMap;

use tokio::time::Instant;

/// With which others a key waits. The lanes take turns, as long as both have keys to be worked on: neither holds the other up.
/// Within a lane the order is that of time, then of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Few keys, for which somebody may be waiting.
    Few,
    /// Keys of which there may be thousands.
    Many,
}

/// When a key is due, and the number of its arrival: of those that are due at the same time, the first comes first.
pub(super) type Place = (Instant, u64);

/// Keys by their places.
pub(super) struct Due<K> {
    few: BTreeMap<Place, K>,
    many: BTreeMap<Place, K>,
    /// Whose turn it is, where both have keys that are due.
    turn: Lane,
}

impl<K> Default for Due<K> {
    fn default() -> Self {
        Self { few: BTreeMap::new(), many: BTreeMap::new(), turn: Lane::Few }
    }
}

impl<K> Due<K> {
    pub(super) fn insert(&mut self, lane: Lane, place: Place, key: K) {
        self.lane(lane).insert(place, key);
    }

    pub(super) fn remove(&mut self, lane: Lane, place: Place) {
        self.lane(lane).remove(&place);
    }

    /// When the next key is due.
    pub(super) fn next(&self) -> Option<Instant> {
        [&self.few, &self.many].into_iter().filter_map(first).min()
    }

    /// Takes out a key that is due. If it is worked on, [`Due::served`] has to be told.
    pub(super) fn pop(&mut self, now: Instant) -> Option<K> {
        let is_due = |lane| first(lane).is_some_and(|at| at <= now);
        let lane = match (is_due(&self.few), is_due(&self.many)) {
            (true, true) => self.turn,
            (true, false) => Lane::Few,
            (false, true) => Lane::Many,
            (false, false) => return None,
        };
        self.lane(lane).pop_first().map(|(_, key)| key)
    }

    /// A key of this lane is worked on: the next turn is the other's. A key that only rested has had none.
    pub(super) fn served(&mut self, lane: Lane) {
        self.turn = if lane == Lane::Few { Lane::Many } else { Lane::Few };
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }

    fn lane(&mut self, lane: Lane) -> &mut BTreeMap<Place, K> {
        match lane {
            Lane::Few => &mut self.few,
            Lane::Many => &mut self.many,
        }
    }
}

fn first<K>(lane: &BTreeMap<Place, K>) -> Option<Instant> {
    lane.first_key_value().map(|((at, _), _)| *at)
}
