//! Text under construction, with a bound on how much of it one rendering may make.

/// Bytes that one rendering may make in all: its output and the strings that functions make on the way. A
/// listing of every image of a large store takes less than a hundredth.
pub(crate) const MAX_BYTES: usize = 64 << 20;

/// A string that stops growing at a limit and remembers that it was reached.
#[derive(Debug)]
pub(crate) struct Out {
    text: String,
    left: usize,
    full: bool,
}

impl Out {
    pub fn new(limit: usize) -> Self {
        Self { text: String::new(), left: limit, full: false }
    }

    pub fn push_str(&mut self, text: &str) {
        if self.charge(text.len()) {
            self.text.push_str(text);
        }
    }

    pub fn push(&mut self, c: char) {
        if self.charge(c.len_utf8()) {
            self.text.push(c);
        }
    }

    pub fn push_repeated(&mut self, c: char, count: usize) {
        if self.charge(count.saturating_mul(c.len_utf8())) {
            self.text.extend(std::iter::repeat_n(c, count));
        }
    }

    /// Counts bytes that are kept elsewhere; false when there is no room for them.
    pub fn charge(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) if !self.full => {
                self.left = left;
                true
            }
            _ => {
                self.full = true;
                false
            }
        }
    }

    /// True when something was left out.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// A new text with what is left of the limit. [`Out::settle`] takes the rest back.
    pub fn scratch(&self) -> Self {
        Self::new(self.left)
    }

    pub fn settle(&mut self, scratch: &Self) {
        self.left = scratch.left;
        self.full |= scratch.full;
    }

    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}
