//! The closed lists: condition types, their reasons, and why an image could not be had.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The condition types of both kinds. The first three follow kstatus
/// (<https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Every selected node holds every image.
    Ready,
    /// Work is under way, or will be tried again by itself.
    Reconciling,
    /// Nothing more will happen until a person changes something.
    Stalled,
    /// At least one image on one node failed, whatever the others do.
    Degraded,
}

impl ConditionType {
    /// All types, in the order in which a status lists them.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Reconciling, Self::Stalled, Self::Degraded];

    /// The name in `conditions[].type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Degraded => "Degraded",
        }
    }
}

/// Every value that `conditions[].reason` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionReason {
    /// The operator has not seen the object yet. This is the status that the API server gives a new object.
    Pending,
    /// All selected nodes hold all images.
    AllImagesReady,
    /// No node matches the selector; there is nothing to do until one does.
    NoMatchingNodes,
    /// There is no selector, and no node runs an agent (yet).
    NoAgents,
    /// Nodes are still fetching images.
    ImagesProgressing,
    /// Nodes wait for their turn.
    RollingOut,
    /// Nodes wait, since `spec.paused` is true.
    Paused,
    /// None of the selected nodes is in service.
    NodesUnavailable,
    /// Images failed and are tried again.
    ImagesFailing,
    /// Images failed in a way that only a change by a person mends.
    ImagesUnavailable,
    /// The specification cannot be used as it stands.
    InvalidSpec,
    /// Nothing failed.
    NoFailures,
}

impl ConditionReason {
    /// The name in `conditions[].reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::AllImagesReady => "AllImagesReady",
            Self::NoMatchingNodes => "NoMatchingNodes",
            Self::NoAgents => "NoAgents",
            Self::ImagesProgressing => "ImagesProgressing",
            Self::RollingOut => "RollingOut",
            Self::Paused => "Paused",
            Self::NodesUnavailable => "NodesUnavailable",
            Self::ImagesFailing => "ImagesFailing",
            Self::ImagesUnavailable => "ImagesUnavailable",
            Self::InvalidSpec => "InvalidSpec",
            Self::NoFailures => "NoFailures",
        }
    }
}

/// Why an image could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FailureReason {
    /// The registry does not know the repository, the tag or the digest.
    NotFound,
    /// The registry wants a login that the agent does not have, or refuses the one it has.
    Unauthorized,
    /// No answer: the name does not resolve, the connection is refused, TLS fails or time ran out.
    RegistryUnreachable,
    /// The registry answered with an error of its own (5xx, or something that is no registry's answer).
    RegistryError,
    /// The registry asked to be left alone for a while (429).
    TooManyRequests,
    /// The bytes received are not those that were asked for.
    DigestMismatch,
    /// A blob is longer or shorter than its descriptor says.
    SizeMismatch,
    /// The image exists, but not for this platform.
    NoMatchingPlatform,
    /// The image name or the platform is malformed.
    InvalidReference,
    /// The manifest is malformed, too large, or of a kind that cannot be used.
    InvalidManifest,
    /// The node's disk has no room.
    DiskFull,
    /// The node's disk has too little room for the image, beside what `diskReserve` keeps free and what images that are being
    /// fetched will take; nothing was fetched.
    InsufficientDisk,
    /// Fetching took longer than `pullTimeout`.
    PullTimeout,
    /// A Secret in `pullSecrets` is not there, or is no Secret with logins.
    PullSecretUnavailable,
    /// The archive to load from is not in the node's import folder.
    ArchiveNotFound,
    /// The archive to load from is damaged, or does not have the image.
    InvalidArchive,
    /// Another image has the name that is asked for as a tag, or the file.
    NameConflict,
    /// The node's layer store could not be read or written.
    StoreError,
    /// The node's container runtime does not answer.
    RuntimeUnavailable,
    /// The node's container runtime would not take the image.
    RuntimeError,
    /// A reason that the operator does not know: the agent is newer. The node's `NodeImageCache` has it.
    #[serde(other)]
    Unknown,
}

impl FailureReason {
    /// The name in `failures[].reason` and `images[].reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::Unauthorized => "Unauthorized",
            Self::RegistryUnreachable => "RegistryUnreachable",
            Self::RegistryError => "RegistryError",
            Self::TooManyRequests => "TooManyRequests",
            Self::DigestMismatch => "DigestMismatch",
            Self::SizeMismatch => "SizeMismatch",
            Self::NoMatchingPlatform => "NoMatchingPlatform",
            Self::InvalidReference => "InvalidReference",
            Self::InvalidManifest => "InvalidManifest",
            Self::DiskFull => "DiskFull",
            Self::InsufficientDisk => "InsufficientDisk",
            Self::PullTimeout => "PullTimeout",
            Self::PullSecretUnavailable => "PullSecretUnavailable",
            Self::ArchiveNotFound => "ArchiveNotFound",
            Self::InvalidArchive => "InvalidArchive",
            Self::NameConflict => "NameConflict",
            Self::StoreError => "StoreError",
            Self::RuntimeUnavailable => "RuntimeUnavailable",
            Self::RuntimeError => "RuntimeError",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether only a person can mend it: by pushing the image, giving a login, or changing the `ImageCache`.
    /// The agent tries again all the same, so that the mending is noticed.
    #[must_use]
    pub fn needs_person(self) -> bool {
        match self {
            Self::NotFound
            | Self::Unauthorized
            | Self::NoMatchingPlatform
            | Self::InvalidReference
            | Self::InvalidManifest
            | Self::SizeMismatch
            | Self::PullSecretUnavailable
            | Self::ArchiveNotFound
            | Self::InvalidArchive
            | Self::NameConflict => true,
            Self::RegistryUnreachable
            | Self::RegistryError
            | Self::TooManyRequests
            | Self::DigestMismatch
            | Self::DiskFull
            | Self::InsufficientDisk
            | Self::PullTimeout
            | Self::StoreError
            | Self::RuntimeUnavailable
            | Self::RuntimeError
            | Self::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageState;

    /// An agent may be newer than the operator that reads its status: what it adds must not make the whole unreadable.
    #[test]
    fn words_of_a_newer_version_are_read() {
        let reason: FailureReason = serde_json::from_str("\"MoonInTheWay\"").unwrap();
        assert_eq!(reason, FailureReason::Unknown);
        let state: ImageState = serde_json::from_str("\"Thawing\"").unwrap();
        assert_eq!(state, ImageState::Unknown);
        let known: ImageState = serde_json::from_str("\"InUse\"").unwrap();
        assert_eq!(known, ImageState::InUse);
    }
}
