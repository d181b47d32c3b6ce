//! What there is of a blob that is about to be needed, for those who have to know how much space it will take.

use larder_oci::Digest;

use crate::{Store, error::Result};

/// Where a blob is, or the part of it that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Presence {
    /// Its file is in the store, with the right size.
    pub here: bool,
    /// The annex has it.
    pub elsewhere: bool,
    /// Bytes of it that an earlier try left in the store.
    pub begun_here: u64,
    /// Bytes of it that an earlier try left in the annex.
    pub begun_elsewhere: u64,
}

impl Presence {
    /// How many bytes of a blob of so many have still to be fetched.
    #[must_use]
    pub fn missing(&self, size: u64) -> u64 {
        if self.here || self.elsewhere {
            return 0;
        }
        // What the store has begun is gone on with there, whatever the annex has.
        let begun = if self.begun_here > 0 { self.begun_here } else { self.begun_elsewhere };
        size.saturating_sub(begun)
    }
}

impl Store {
    /// Looks for a blob of so many bytes, in the store and in the annex, and changes nothing: without a lease, what is there
    /// may be gone the moment after.
    ///
    /// An annex that gets blobs by itself, or that does not answer, counts as one that has nothing.
    pub fn presence(&self, digest: &Digest, size: u64) -> Result<Presence> {
        let here = self.file_size(digest)? == Some(size);
        let begun_here = if here { 0 } else { self.partial_size(digest)? };
        let mut presence = Presence { here, begun_here, ..Presence::default() };
        if let Some(annex) = self.annex.as_ref().filter(|_| !here) {
            presence.elsewhere = annex.open(digest).is_ok();
            if !presence.elsewhere {
                presence.begun_elsewhere = annex.begun(digest).unwrap_or_default();
            }
        }
        Ok(presence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_what_is_nowhere() {
        let nowhere = Presence::default();
        assert_eq!(nowhere.missing(10), 10);
        assert_eq!(Presence { here: true, ..nowhere }.missing(10), 0);
        assert_eq!(Presence { elsewhere: true, ..nowhere }.missing(10), 0);
        assert_eq!(Presence { begun_here: 4, ..nowhere }.missing(10), 6);
        assert_eq!(Presence { begun_elsewhere: 4, ..nowhere }.missing(10), 6);
        assert_eq!(Presence { begun_here: 1, begun_elsewhere: 4, ..nowhere }.missing(10), 9);
        assert_eq!(Presence { begun_here: 12, ..nowhere }.missing(10), 0, "more than its descriptor says");
    }
}
