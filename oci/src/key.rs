//! What tells one stored image from another.

use std::fmt;

use crate::{ImageName, Platform};

/// A name together with the platform that it was resolved for. One node may hold `app:v1` for two platforms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageKey {
    /// The canonical name.
    pub name: ImageName,
    /// The platform.
    pub platform: Platform,
}

impl fmt::Display for ImageKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name, self.platform)
    }
}
