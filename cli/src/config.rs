//! An image's configuration, as far as docker shows it
//! (<https://github.com/opencontainers/image-spec/blob/main/config.md>).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The largest configuration that is read, in bytes.
pub const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// An image's configuration. What is absent, null or of another type than it should be is empty: a list of images
/// must not fail for one that some tool wrote carelessly.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ImageConfig {
    /// When it was made, RFC 3339.
    #[serde(default, deserialize_with = "lenient")]
    pub created: String,
    /// Who made it.
    #[serde(default, deserialize_with = "lenient")]
    pub author: String,
    /// What the maker said.
    #[serde(default, deserialize_with = "lenient")]
    pub comment: String,
    /// The architecture.
    #[serde(default, deserialize_with = "lenient")]
    pub architecture: String,
    /// Its variant.
    #[serde(default, deserialize_with = "lenient")]
    pub variant: String,
    /// The operating system.
    #[serde(default, deserialize_with = "lenient")]
    pub os: String,
    /// The operating system's version (Windows).
    #[serde(default, rename = "os.version", deserialize_with = "lenient")]
    pub os_version: String,
    /// How containers are to be run.
    #[serde(default, deserialize_with = "lenient")]
    pub config: RunConfig,
    /// The layers' digests before compression.
    #[serde(default, deserialize_with = "lenient")]
    pub rootfs: RootFs,
    /// How it was made, the oldest step first.
    #[serde(default, deserialize_with = "lenient")]
    pub history: Vec<Step>,
}

/// How containers are to be run: the fields that docker shows, in its order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub(crate) user: String,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) exposed_ports: Option<BTreeMap<String, Value>>,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) env: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) entrypoint: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) cmd: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) volumes: Option<BTreeMap<String, Value>>,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub(crate) working_dir: String,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub(crate) stop_signal: String,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "std::ops::Not::not")]
    pub(crate) args_escaped: bool,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) healthcheck: Option<BTreeMap<String, Value>>,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) on_build: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) shell: Option<Vec<String>>,
}

/// The layers' digests before compression.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RootFs {
    /// The digests, the lowest layer first.
    #[serde(default, deserialize_with = "lenient")]
    pub diff_ids: Vec<String>,
}

/// A step of the image's making.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Step {
    /// When, RFC 3339.
    #[serde(default, deserialize_with = "lenient")]
    pub created: String,
    /// By which command.
    #[serde(default, deserialize_with = "lenient")]
    pub created_by: String,
    /// What the maker said.
    #[serde(default, deserialize_with = "lenient")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "lenient")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a configuration; an empty one if the bytes are none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// A label's value.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(key).map(String::as_str)
    }
}

fn lenient<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_field_spoils_no_other() {
        let config = ImageConfig::parse(
            br#"{"created": 7, "os": "linux", "config": {"Env": null, "Cmd": ["a"], "Labels": {"k": "v"}},
                "history": [{"created_by": "RUN x", "empty_layer": true}], "rootfs": null}"#,
        );
        assert_eq!((config.created.as_str(), config.os.as_str()), ("", "linux"));
        assert_eq!(config.config.cmd, Some(vec!["a".to_owned()]));
        assert_eq!((config.label("k"), config.label("x")), (Some("v"), None));
        assert!(config.history[0].empty_layer && config.rootfs.diff_ids.is_empty());
        for bytes in [&b"null"[..], b"[]", b"", b"{}", b"\xff"] {
            assert_eq!(ImageConfig::parse(bytes).os, "");
        }
    }
}
