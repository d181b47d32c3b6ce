//! Equal values, held once.
//!
//! A thousand nodes of one pool have the same specification, and report the same digest and size of each image. Kept
//! apart they are nearly all of what the operator needs memory for.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use larder_crds::{NodeImageCacheSpec, NodeImageStatus, NodeRemovalStatus};

/// A pool of shared values. Equality decides; the hash only says where to look.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    buckets: HashMap<u64, Vec<Arc<T>>>,
    held: usize,
    /// Values that nobody else holds are dropped when the pool has grown to this.
    sweep_at: usize,
}

const SMALLEST_SWEEP: usize = 64;

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { buckets: HashMap::new(), held: 0, sweep_at: SMALLEST_SWEEP }
    }
}

impl<T: PartialEq + Pooled> Pool<T> {
    /// The value, shared with all that are equal to it.
    pub fn share(&mut self, value: T) -> Arc<T> {
        if self.held >= self.sweep_at {
            self.sweep();
        }
        let bucket = self.buckets.entry(value.place()).or_default();
        if let Some(held) = bucket.iter().find(|held| ***held == value) {
            return Arc::clone(held);
        }
        let new = Arc::new(value);
        bucket.push(Arc::clone(&new));
        self.held += 1;
        new
    }

    fn sweep(&mut self) {
        self.buckets.retain(|_, bucket| {
            bucket.retain(|held| Arc::strong_count(held) > 1);
            !bucket.is_empty()
        });
        self.held = self.buckets.values().map(Vec::len).sum();
        // Twice what is in use: each value is looked at a bounded number of times.
        self.sweep_at = (self.held * 2).max(SMALLEST_SWEEP);
    }
}

/// What can be pooled.
pub(crate) trait Pooled {
    /// A hash of the parts in which unequal values usually differ. Equal values have equal ones.
    fn place(&self) -> u64;
}

impl Pooled for NodeImageCacheSpec {
    fn place(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for image in &self.images {
            (&image.image, &image.platform).hash(&mut hasher);
            for claim in &image.wanted_by {
                claim.uid.hash(&mut hasher);
            }
        }
        for image in &self.released {
            (&image.image, &image.platform).hash(&mut hasher);
        }
        for image in &self.deferred {
            (&image.image, &image.platform).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Pooled for NodeImageStatus {
    fn place(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.image, &self.platform, self.state, &self.digest).hash(&mut hasher);
        (self.size, self.bytes_present, self.reason, &self.message).hash(&mut hasher);
        self.retry_time.as_ref().map(|time| time.0).hash(&mut hasher);
        hasher.finish()
    }
}

impl Pooled for NodeRemovalStatus {
    fn place(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.cache, &self.image, self.images, self.in_use, self.removed, &self.names).hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Value(u32);

    impl Pooled for Value {
        /// Everything in two buckets.
        fn place(&self) -> u64 {
            u64::from(self.0 % 2)
        }
    }

    #[test]
    fn equal_values_are_one_and_others_are_not() {
        let mut pool = Pool::default();
        let (a, b, c) = (pool.share(Value(1)), pool.share(Value(1)), pool.share(Value(3)));
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!((a.0, c.0, pool.held), (1, 3, 2));
    }

    #[test]
    fn what_nobody_holds_goes_and_what_somebody_holds_stays() {
        let mut pool = Pool::default();
        let kept: Vec<_> = (0..10).map(|number| pool.share(Value(number))).collect();
        for number in 0..10_000 {
            pool.share(Value(number));
        }
        assert!(pool.held <= SMALLEST_SWEEP, "{}", pool.held);
        for (number, value) in (0..).zip(&kept) {
            assert!(Arc::ptr_eq(value, &pool.share(Value(number))));
        }
    }
}
