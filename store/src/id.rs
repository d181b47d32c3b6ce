//! Which store it is: a name of its own, by which others tell it from the next one.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    sync::OnceLock,
};

use crate::{
    Store,
    error::{Result, StoreError},
    layout::{Layout, read_bounded, sync_dir},
    lock::ExclusiveLock,
};

/// So many hexadecimal digits have an ID.
const DIGITS: usize = 32;

/// A store's ID: 32 hexadecimal digits, made at random with the store and never changed. Another store has another one, unless
/// its folder is a copy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(String);

impl StoreId {
    fn random() -> Self {
        Self(format!("{:0DIGITS$x}", fastrand::u128(..)))
    }

    fn parse(text: &str) -> Option<Self> {
        let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        (text.len() == DIGITS && text.chars().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Store {
    /// Its ID. What a container runtime keeps for a store bears it, so that two stores beside one runtime do not take each
    /// other's.
    pub fn id(&self) -> Result<&StoreId> {
        self.layout.known_id(&self.id)
    }
}

impl Layout {
    fn known_id<'a>(&self, known: &'a OnceLock<StoreId>) -> Result<&'a StoreId> {
        if let Some(id) = known.get() {
            return Ok(id);
        }
        let path = self.id();
        let text = read_bounded(&path, 256)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let Some(text) = text else {
            return Err(StoreError::io("read", &path)(io::ErrorKind::NotFound.into()));
        };
        let id = StoreId::parse(text.trim_end()).ok_or_else(|| StoreError::Corrupt {
            path,
            why: "it does not hold the store's ID, 32 hexadecimal digits".to_owned(),
            advice: "remove it; the store gets a new one the next time it is opened",
        })?;
        Ok(known.get_or_init(|| id))
    }

    /// Gives the store an ID unless it has one.
    pub(crate) fn make_id(&self, _lock: &ExclusiveLock) -> Result<()> {
        let path = self.id();
        if path.try_exists().map_err(StoreError::io("look at", &path))? {
            return Ok(());
        }
        let temporary = self.temporary("id");
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            writeln!(file, "{}", StoreId::random())?;
            file.sync_all()
        };
        write().map_err(StoreError::io("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(StoreError::io("name", &path))?;
        path.parent().map_or(Ok(()), sync_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_what_was_made_and_nothing_else() {
        let id = StoreId::random();
        assert_eq!(StoreId::parse(id.as_str()), Some(id.clone()));
        assert_ne!(StoreId::random(), id);
        for bad in ["", "abc", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
            assert_eq!(StoreId::parse(bad), None, "{bad}");
        }
    }
}
