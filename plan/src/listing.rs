//! What is known anew while all objects of a kind are listed again.

use std::collections::HashSet;

/// A list is read page by page, and all its pages show how things stood at the first. What the API server answers to our
/// own writes meanwhile is newer than what the list brings of the same objects, or leaves out.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    is_open: bool,
    answered: HashSet<String>,
}

impl Listing {
    /// The list is about to be asked for, for the first time or again.
    pub fn begin(&mut self) {
        self.answered.clear();
        self.is_open = true;
    }

    /// An object of this name came by another way than the list.
    pub fn answer(&mut self, name: &str) {
        if self.is_open {
            self.answered.insert(name.to_owned());
        }
    }

    /// Whether the list may show an older state of this object than we have.
    pub fn is_answered(&self, name: &str) -> bool {
        self.answered.contains(name)
    }

    /// The list is complete. The names of what was known before and is neither on the list nor known anew.
    pub fn end<'a>(
        &mut self,
        known: impl Iterator<Item = &'a String>,
        listed: &HashSet<String>,
    ) -> Vec<String> {
        self.is_open = false;
        let answered = std::mem::take(&mut self.answered);
        known.filter(|name| !listed.contains(*name) && !answered.contains(*name)).cloned().collect()
    }
}
