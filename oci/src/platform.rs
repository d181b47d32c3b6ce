//! Platforms, and which entry of an image index serves one.

use std::{fmt, str::FromStr};

use oci_spec::image::{Descriptor, ImageIndex};

/// An operating system, an architecture and, for some, a variant, in the Go spelling that images use:
/// `linux/amd64`, `linux/arm64/v8`, `linux/arm/v7`.
///
/// Normalised as containerd does (<https://github.com/containerd/platforms/blob/main/database.go>): `x86_64` is
/// `amd64`, `aarch64` is `arm64`, and `arm64/v8` is `arm64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// The longest platform, in bytes: that of `spec.images[].platform`.
const MAX_LENGTH: usize = 64;

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: write os/architecture[/variant], such as linux/arm64")]
pub struct InvalidPlatform(String);

/// No entry of an image index serves the platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no matching manifest for {wanted} in the manifest list entries; it has {}", list(.available))]
pub struct NoMatch {
    /// The platform that was asked for.
    pub wanted: Platform,
    /// What there is instead, twenty entries at most.
    pub available: Vec<String>,
}

fn list(available: &[String]) -> String {
    if available.is_empty() { "no images at all".to_owned() } else { available.join(", ") }
}

impl Platform {
    /// The platform that this program was built for.
    #[must_use]
    pub fn host() -> Self {
        Self::normalised(std::env::consts::OS, std::env::consts::ARCH, None)
    }

    /// The operating system.
    #[must_use]
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant, where it says more than the architecture does.
    #[must_use]
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// The platform that a descriptor carries, if it carries one.
    #[must_use]
    pub fn of(descriptor: &Descriptor) -> Option<Self> {
        let platform = descriptor.platform().as_ref()?;
        Some(Self::normalised(
            &platform.os().to_string(),
            &platform.architecture().to_string(),
            platform.variant().as_deref(),
        ))
    }

    /// The platform that an image's configuration names, if it names one. Artifacts name none.
    /// (<https://github.com/opencontainers/image-spec/blob/main/config.md#properties>)
    #[must_use]
    pub fn of_config(config: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Properties {
            os: String,
            architecture: String,
            variant: Option<String>,
        }
        let found: Properties = serde_json::from_slice(config).ok()?;
        let named = !found.os.is_empty() && !found.architecture.is_empty();
        named.then(|| Self::normalised(&found.os, &found.architecture, found.variant.as_deref()))
    }

    /// The same as the OCI image specification's type.
    #[must_use]
    pub fn to_spec(&self) -> oci_spec::image::Platform {
        let mut platform = oci_spec::image::Platform::default();
        platform.set_os(self.os.as_str().into());
        platform.set_architecture(self.architecture.as_str().into());
        platform.set_variant(self.variant.clone());
        platform
    }

    /// Whether a machine of this platform runs what was made for the other.
    #[must_use]
    pub fn runs(&self, other: &Self) -> bool {
        self.rank(other).is_some()
    }

    fn normalised(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = os.to_lowercase();
        let architecture = architecture.to_lowercase();
        let variant = variant.map(str::to_lowercase).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64", other) => ("amd64", other),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("v8" | "8")) => ("arm64", None),
            ("aarch64", other) => ("arm64", other),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("amd64", Some("v1")) => ("amd64", None),
            ("powerpc64", other) if cfg!(target_endian = "little") => ("ppc64le", other),
            (architecture, variant) => (architecture, variant),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// How well an entry serves this platform: lower is better, `None` is not at all.
    ///
    /// A machine runs its own variant and, on 32-bit Arm and on amd64, every earlier one.
    fn rank(&self, entry: &Self) -> Option<u32> {
        if entry.os != self.os || entry.architecture != self.architecture {
            return None;
        }
        if entry.variant == self.variant {
            return Some(0);
        }
        let number = |variant: &Option<String>, absent: u32| match variant {
            None => Some(absent),
            Some(text) => text.strip_prefix('v')?.parse::<u32>().ok(),
        };
        let absent = if self.architecture == "arm64" { 8 } else { 1 };
        number(&self.variant, absent)?.checked_sub(number(&entry.variant, absent)?)
    }

    /// The entry of an index that serves this platform best; the earlier one where two serve it alike.
    ///
    /// # Errors
    /// [`NoMatch`], naming what the index has instead.
    pub fn select<'a>(&self, index: &'a ImageIndex) -> Result<&'a Descriptor, NoMatch> {
        index
            .manifests()
            .iter()
            .filter_map(|entry| Some((self.rank(&Self::of(entry)?)?, entry)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
            .ok_or_else(|| NoMatch {
                wanted: self.clone(),
                available: index
                    .manifests()
                    .iter()
                    .filter_map(Self::of)
                    // Build attestations are listed as platform unknown/unknown.
                    .filter(|platform| platform.os != "unknown")
                    .map(|platform| platform.to_string())
                    .take(20)
                    .collect(),
            })
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let word = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let invalid = || InvalidPlatform(text.chars().take(MAX_LENGTH).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let platform = match parts.as_slice() {
            [os, architecture, rest @ ..]
                if rest.len() < 2 && text.len() <= MAX_LENGTH && parts.iter().all(|p| word(p)) =>
            {
                Self::normalised(os, architecture, rest.first().copied())
            }
            _ => return Err(invalid()),
        };
        // What is implied, such as v7, makes it longer.
        if platform.to_string().len() > MAX_LENGTH { Err(invalid()) } else { Ok(platform) }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(formatter, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn index(platforms: &[&str]) -> ImageIndex {
        let entries: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(number, text)| {
                let mut parts = text.split('/');
                let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
                let mut platform = serde_json::json!({"os": os, "architecture": architecture});
                if let Some(variant) = parts.next() {
                    platform["variant"] = variant.into();
                }
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7,
                    "digest": format!("sha256:{number:064x}"), "platform": platform,
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": entries})).unwrap()
    }

    fn chosen(wanted: &str, platforms: &[&str]) -> Option<usize> {
        let index = index(platforms);
        let entry = platform(wanted).select(&index).ok()?;
        index.manifests().iter().position(|other| other == entry)
    }

    #[test]
    fn spellings_of_one_platform_are_equal() {
        assert_eq!(platform("linux/x86_64"), platform("linux/amd64"));
        assert_eq!(platform("Linux/aarch64"), platform("linux/arm64/v8"));
        assert_eq!(platform("linux/arm"), platform("linux/arm/v7"));
        assert_ne!(platform("linux/arm/v6"), platform("linux/arm/v7"));
        assert_eq!(platform("linux/arm64").to_string(), "linux/arm64");
    }

    #[test]
    fn the_best_variant_that_runs_is_chosen() {
        assert_eq!(chosen("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm64/v8"]), Some(1));
        assert_eq!(chosen("linux/arm/v6", &["linux/arm/v7"]), None);
        assert_eq!(chosen("linux/arm64", &["linux/amd64", "linux/arm64/v8"]), Some(1));
        assert_eq!(chosen("linux/amd64", &["linux/amd64/v3", "linux/amd64"]), Some(1));
        assert_eq!(chosen("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"]), Some(1));
        assert_eq!(chosen("linux/amd64", &["windows/amd64", "unknown/unknown"]), None);
    }

    #[test]
    fn no_match_names_what_there_is() {
        let error = platform("linux/s390x").select(&index(&["linux/amd64", "unknown/unknown"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no matching manifest for linux/s390x in the manifest list entries; it has linux/amd64"
        );
    }

    /// Found by fuzzing: one was taken, and not when it was read back.
    #[test]
    fn what_is_implied_counts_for_the_length() {
        let of_length = |os: usize| format!("{}/arm", "t".repeat(os)).parse::<Platform>();
        assert_eq!(of_length(57).unwrap().to_string().len(), 64);
        of_length(58).unwrap_err();
    }

    #[test]
    fn refuses_what_is_no_platform() {
        for text in ["", "linux", "linux/", "/amd64", "linux/a/b/c", "linux/am d64", &"a/".repeat(99)] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
