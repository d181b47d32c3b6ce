//! Labels of metrics. Every one is an enum: no image, node or error text can become a time series.

use larder_crds::FailureReason;
use larder_plan::census::{CacheStanding, ImageStanding, NodeStanding};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::{apply::Category, reconcile::Effect, watch::Kind};

/// Implements what labels need for enums that have their names as `&'static str`.
macro_rules! named {
    ($type:ty, $value:ident => $name:expr) => {
        impl EncodeLabelValue for Label<$type> {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
                let $value = self.0;
                EncodeLabelValue::encode(&$name, encoder)
            }
        }
    };
}

/// A value of a closed set, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Label<T>(pub T);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReconcileLabels {
    pub kind: Label<KeyKind>,
    pub result: Label<ReconcileResult>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WriteLabels {
    pub kind: Label<WriteKind>,
    pub outcome: Label<WriteOutcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WatchLabels {
    pub kind: Label<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CacheLabels {
    pub state: Label<CacheStanding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct NodeLabels {
    pub state: Label<NodeStanding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ImageLabels {
    pub state: Label<ImageStanding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FailureLabels {
    pub reason: Label<FailureReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PullLabels {
    pub result: Label<PullResult>,
}

/// What is reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KeyKind {
    Node,
    Cache,
    Rollout,
    Secrets,
}

/// How a reconcile ended.
pub(crate) type ReconcileResult = Result<Effect, Category>;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WriteKind {
    NodeImageCache,
    ImageCacheStatus,
    Role,
    Event,
    Lease,
}

/// How a try to fetch an image ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PullResult {
    Pulled,
    Failed,
}

/// How a write ended.
pub(crate) type WriteOutcome = Result<(), Category>;

named!(KeyKind, kind => match kind {
    KeyKind::Node => "node",
    KeyKind::Cache => "cache",
    KeyKind::Rollout => "rollout",
    KeyKind::Secrets => "secrets",
});

named!(ReconcileResult, result => match result {
    Ok(Effect::Unchanged) => "unchanged",
    Ok(Effect::Written) => "written",
    Err(category) => category.as_str(),
});

named!(WriteKind, kind => match kind {
    WriteKind::NodeImageCache => "node_image_cache",
    WriteKind::ImageCacheStatus => "image_cache_status",
    WriteKind::Role => "role",
    WriteKind::Event => "event",
    WriteKind::Lease => "lease",
});

named!(PullResult, result => match result {
    PullResult::Pulled => "pulled",
    PullResult::Failed => "failed",
});

named!(WriteOutcome, outcome => match outcome {
    Ok(()) => "ok",
    Err(category) => category.as_str(),
});

named!(Kind, kind => match kind {
    Kind::ImageCache => "image_cache",
    Kind::Node => "node",
    Kind::NodeImageCache => "node_image_cache",
});

named!(CacheStanding, standing => match standing {
    CacheStanding::Stalled => "stalled",
    CacheStanding::Degraded => "degraded",
    CacheStanding::Progressing => "progressing",
    CacheStanding::Ready => "ready",
});

named!(NodeStanding, standing => match standing {
    NodeStanding::Failed => "failed",
    NodeStanding::NoAgent => "no_agent",
    NodeStanding::Progressing => "progressing",
    NodeStanding::Ready => "ready",
    NodeStanding::Unselected => "unselected",
});

named!(ImageStanding, standing => match standing {
    ImageStanding::Failed => "failed",
    ImageStanding::Delivering => "delivering",
    ImageStanding::Saving => "saving",
    ImageStanding::Pending => "pending",
    ImageStanding::Pulling => "pulling",
    ImageStanding::Ready => "ready",
    ImageStanding::Unreported => "unreported",
});

named!(FailureReason, reason => reason.as_str());
