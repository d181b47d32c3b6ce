//! Giving images to the node's container runtime, so that pods can use them.
//!
//! One interface, [`Runtime`], over three ways, of which [`connect`] picks one:
//!
//! - `containerd`, through its own API: content is written from the layer store, images are recorded as a CRI pull would
//!   leave them, unpacked and pinned. A layer that containerd has is dropped from the layer store and read back through
//!   [`larder_store::Annex`].
//! - `cri`: the runtime pulls by itself, with the registry's login. For CRI-O, and for whatever else speaks CRI only.
//! - `none`: a node, or a machine, without a runtime. Nothing is delivered; that the store has an image is all there is.
//!
//! **Architecture Invariant:** this crate knows nothing of Kubernetes' API. What a pod is, it knows from the labels that
//! kubelet puts on containers.
//!
//! **Architecture Invariant:** an image that a container uses, running or stopped, is never taken from a runtime.
//! [`Runtime::withdraw`] is the one way to take an image away, and it looks for itself.

#![forbid(unsafe_code)]

mod api;
mod choice;
mod error;
mod image;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use larder_oci::{Digest, ImageKey};
use larder_store::{Annex, Store};

pub use choice::{Choice, ConnectOptions};
pub use error::{Category, RuntimeError};
pub use image::{Arrivals, Image, Layers};

/// A container runtime. Clones share one connection, which is made anew when it breaks.
#[derive(Debug, Clone)]
pub struct Runtime {
    kind: Arc<Kind>,
}

#[derive(Debug)]
enum Kind {
    None,
}

/// What a runtime is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `containerd`, `cri-o`, …: as the runtime names itself.
    pub name: String,
    /// Its version, such as `v2.2.1`.
    pub version: String,
    /// How it is spoken to: `containerd` or `cri`.
    pub interface: &'static str,
}

/// How one image stands in the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is there under its name, complete, unpacked, and pinned if that is possible and was asked for.
    Ready,
    /// Its name stands for another image there: kubelet has pulled a tag that moved, or somebody tagged something.
    Moved {
        /// What the name stands for.
        to: Digest,
    },
    /// It is not there, or not as it should be: [`Runtime::deliver`] mends that.
    Missing,
}

/// How the images stand in the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// Each image that was asked about.
    pub states: BTreeMap<ImageKey, State>,
    /// Images that bear Larder's mark and that were not asked about: the agent gave them to the runtime once.
    pub strays: BTreeSet<ImageKey>,
    /// Of the blobs that were handed over, those that the runtime does not have any more.
    pub lost: BTreeSet<Digest>,
}

/// On whose behalf an image is given to the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The agent's: it is pinned, and withdrawn when nobody wants it any more.
    Agent,
    /// A person's, with `larder deliver`: the agent leaves it alone.
    Person {
        /// Whether kubelet's garbage collection leaves it alone too.
        pin: bool,
    },
}

/// A container that was made from an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// Its pod; `None` for a container that kubelet did not make.
    pub pod: Option<Pod>,
    /// Its name in the pod; its ID where there is no pod.
    pub container: String,
    /// Its ID.
    pub id: String,
    /// Whether it runs.
    pub running: bool,
}

/// A pod's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What became of an image that was to leave the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withdrawal {
    /// It is gone, or it was not there.
    Gone,
    /// It was there before Larder came, and stays; Larder's mark and pin are gone.
    Left,
    /// Containers use it: nothing was changed, and it stays pinned if it was.
    InUse(Vec<User>),
}

/// Looks for a runtime, as `options` say.
///
/// With [`Choice::Auto`]: containerd if there is a socket that speaks its API and CRI, else CRI if there is a socket that
/// speaks that, else none. A runtime that is named and can't be reached is an error.
pub async fn connect(_options: &ConnectOptions) -> Result<Runtime, RuntimeError> {
    Ok(Runtime { kind: Arc::new(Kind::None) })
}

impl Runtime {
    /// No runtime.
    #[must_use]
    pub fn none() -> Self {
        Self { kind: Arc::new(Kind::None) }
    }

    /// Whether there is no runtime.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(*self.kind, Kind::None)
    }

    /// What it is; `None` without a runtime.
    pub async fn describe(&self) -> Result<Option<Description>, RuntimeError> {
        match &*self.kind {
            Kind::None => Ok(None),
        }
    }

    /// Where blobs are that the layer store has handed over. Give it to [`Store::with_annex`].
    ///
    /// Its calls block, and need a tokio runtime around: make them where the store's are made.
    #[must_use]
    pub fn annex(&self) -> Option<Arc<dyn Annex>> {
        match &*self.kind {
            Kind::None => None,
        }
    }

    /// Whether images for this platform are given to it. A node's runtime has no use for others: they stay in the store.
    #[must_use]
    pub fn takes(&self, key: &ImageKey) -> bool {
        match &*self.kind {
            Kind::None => {
                let _ = key;
                false
            }
        }
    }

    /// How images stand: a few calls, whatever their number.
    ///
    /// `images` are those to look for; `handed_over` are the blobs that the store relies on the runtime to have.
    pub async fn observe(
        &self,
        images: &[Image],
        handed_over: &BTreeSet<Digest>,
    ) -> Result<Observation, RuntimeError> {
        match &*self.kind {
            Kind::None => {
                let _ = (images, handed_over);
                Ok(Observation::default())
            }
        }
    }

    /// Gives an image to the runtime: content, unpacked layers, names, pin. What is there already is not done again, so it
    /// may be called at any time, after any interruption.
    ///
    /// Layers are taken as they arrive in the store ([`Layers`]), so that unpacking goes on while others are still being
    /// fetched; each is dropped from the store once the runtime has it.
    pub async fn deliver(
        &self,
        store: &Store,
        image: &Image,
        owner: Owner,
        layers: Layers,
    ) -> Result<(), RuntimeError> {
        match &*self.kind {
            Kind::None => {
                let _ = (store, image, owner, layers);
                Ok(())
            }
        }
    }

    /// Takes an image from the runtime: names, pin and what kept its content. Never one that a container uses, nor one that
    /// was there before Larder came.
    ///
    /// `image` is what the store knows of it, where the store still does.
    pub async fn withdraw(&self, key: &ImageKey, image: Option<&Image>) -> Result<Withdrawal, RuntimeError> {
        match &*self.kind {
            Kind::None => {
                let _ = (key, image);
                Ok(Withdrawal::Gone)
            }
        }
    }

    /// Leaves an image to the runtime: it stays as if kubelet had pulled it, without a pin of ours.
    pub async fn release(&self, key: &ImageKey) -> Result<(), RuntimeError> {
        match &*self.kind {
            Kind::None => {
                let _ = key;
                Ok(())
            }
        }
    }

    /// The containers, running or stopped, that were made from an image.
    pub async fn users(&self, image: &Image) -> Result<Vec<User>, RuntimeError> {
        match &*self.kind {
            Kind::None => {
                let _ = image;
                Ok(Vec::new())
            }
        }
    }

    /// Waits until something happened in the runtime that may matter: an image or content went or changed, a container was
    /// deleted, the connection came back. May return early; never without a runtime.
    ///
    /// What happens between two calls is not lost: the next one returns at once.
    pub async fn changed(&self) {
        match &*self.kind {
            Kind::None => std::future::pending().await,
        }
    }
}
