//! The API types of Larder, group `larder.dev`, version `v1alpha1`.
//!
//! People write an [`ImageCache`]; the operator turns all of them into one [`NodeImageCache`] a node, the contract
//! between operator and agent. The doc comments on the fields are the user's manual: `kubectl explain` shows them.
//! The definitions to install come from [`definitions`], as `cargo xtask gen` writes them to `manifests/crds`.

#![forbid(unsafe_code)]
#![allow(clippy::duplicated_attributes, reason = "each printcolumn(...) repeats keys of the one before")]

mod condition;
mod definition;
mod image_cache;
mod node_image_cache;

pub use condition::{ConditionReason, ConditionType, FailureReason};
pub use definition::definitions;
pub use image_cache::{
    Archive, ByteCount, CachedImage, DeletionPolicy, ImageCache, ImageCacheSpec, ImageCacheStatus,
    ImageFailure, ImageSource, ImageSummary, NodeCounts, PullPolicy, PullSecret, Refresh, RemovalRule,
    RemovalSummary, Retry, Rollout, StatusSummary,
};
pub use node_image_cache::{
    AgentInfo, DeferredImage, DiskReserve, ImageState, NodeImage, NodeImageCache, NodeImageCacheSpec,
    NodeImageCacheStatus, NodeImageStatus, NodeRemoval, NodeRemovalStatus, NodeStatusSummary, PullCount,
    RefreshRule, ReleasedImage, RetryDelays, WantedBy,
};

/// The API group.
pub const GROUP: &str = "larder.dev";
/// The field manager of the operator's server-side applies.
pub const OPERATOR_FIELD_MANAGER: &str = "larder-operator";
/// The field manager of an agent's server-side applies.
pub const AGENT_FIELD_MANAGER: &str = "larder-agent";
/// The most failures that an `ImageCache`'s status shows.
pub const MAX_FAILURES: usize = 10;
/// The longest message, in bytes, that a status carries.
pub const MAX_MESSAGE: usize = 512;
