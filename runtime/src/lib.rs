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
//! [`Runtime::withdraw`] takes the agent's own away, [`Runtime::remove`] those of others, and both look for themselves.

#![forbid(unsafe_code)]

mod api;
mod choice;
mod connect;
mod containerd;
mod cri;
mod error;
mod image;
mod listed;
mod socket;
#[cfg(test)]
mod testing;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use larder_oci::{Digest, ImageKey, ImageName};
use larder_store::{Annex, Store, StoreId};

pub use choice::{Choice, ConnectOptions};
pub use error::{Category, RuntimeError};
pub use image::{Arrivals, Image, Layers};
pub use listed::{Listed, Removal, leaving, spoken};
pub use users::Containers;

use connect::Found;
use containerd::Containerd;
use cri::{Cri, CriAnnex};

/// A container runtime. Clones share one connection, which is made anew when it breaks.
#[derive(Debug, Clone)]
pub struct Runtime {
    kind: Arc<Kind>,
}

#[derive(Debug)]
enum Kind {
    None,
    Containerd(Box<Containerd>),
    Cri(Cri),
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
    /// It is there under its name, complete, unpacked, and, where that is possible, pinned or not as was asked for.
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

/// On whose behalf an image is given to the runtime. Who delivers it last is its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The agent's: it is withdrawn when nobody wants it any more.
    Agent {
        /// Whether kubelet's garbage collection leaves it alone. A pin of somebody else's stays in any case.
        pin: bool,
    },
    /// A person's, with `larder deliver`: the agent leaves it alone.
    Person {
        /// Whether kubelet's garbage collection leaves it alone too.
        pin: bool,
    },
}

impl Owner {
    /// Whether the image is to be pinned.
    #[must_use]
    pub fn pins(self) -> bool {
        match self {
            Self::Agent { pin } | Self::Person { pin } => pin,
        }
    }
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
/// speaks that, else none. containerd without CRI is docker's own, which no pod can use: it is passed over unless its
/// socket is named. A runtime that is named and can't be reached is an error, and so is a socket in one of the usual places
/// that does not answer.
pub async fn connect(options: &ConnectOptions) -> Result<Runtime, RuntimeError> {
    let kind = match connect::find(options).await? {
        Found::Nothing => Kind::None,
        Found::Containerd(socket) => {
            Kind::Containerd(Box::new(Containerd::new(Cri::new(&socket, options.credentials.clone()))))
        }
        Found::Cri(socket) => Kind::Cri(Cri::new(&socket, options.credentials.clone())),
    };
    Ok(Runtime { kind: Arc::new(kind) })
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
            Kind::Containerd(containerd) => containerd.describe().await.map(Some),
            Kind::Cri(cri) => cri.describe().await.map(Some),
        }
    }

    /// Where blobs are that the layer store has handed over. Give it to [`Store::with_annex`].
    ///
    /// Its calls block, and need a tokio runtime around: make them where the store's are made.
    #[must_use]
    pub fn annex(&self) -> Option<Arc<dyn Annex>> {
        match &*self.kind {
            Kind::None => None,
            Kind::Containerd(containerd) => Some(containerd.annex()),
            Kind::Cri(_) => Some(Arc::new(CriAnnex)),
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
            Kind::Containerd(_) => Containerd::takes(key),
            Kind::Cri(_) => Cri::takes(key),
        }
    }

    /// How images stand: a few calls, whatever their number.
    ///
    /// `images` are those to look for, as the agent wants them ([`Image::pin`]). `handed_over` are all blobs that the store relies on
    /// the runtime to have; containerd keeps these for it from now on, and no others.
    pub async fn observe(
        &self,
        store: &StoreId,
        images: &[Image],
        handed_over: &BTreeSet<Digest>,
    ) -> Result<Observation, RuntimeError> {
        match &*self.kind {
            Kind::None => {
                let _ = (store, images, handed_over);
                Ok(Observation::default())
            }
            Kind::Containerd(containerd) => containerd.observe(store, images, handed_over).await,
            Kind::Cri(cri) => cri.observe(images).await,
        }
    }

    /// Gives an image to the runtime: content, unpacked layers, names, pin. What is there already is not done again, so it
    /// may be called at any time, after any interruption.
    ///
    /// Layers are taken as they arrive in the store ([`Layers`]), so that unpacking goes on while others are still being
    /// fetched; each is dropped from the store once the runtime has it.
    ///
    /// An artifact has nothing that containerd could unpack: it stays in the store, and counts as ready.
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
            // It is large, and whoever waits for it is to stay small.
            Kind::Containerd(containerd) => Box::pin(containerd.deliver(store, image, owner, layers)).await,
            Kind::Cri(cri) => cri.deliver(image).await,
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
            Kind::Containerd(containerd) => containerd.withdraw(key, image).await,
            Kind::Cri(cri) => cri.withdraw(key, image).await,
        }
    }

    /// Leaves an image to the runtime: it stays as if kubelet had pulled it, without a pin of ours.
    pub async fn release(&self, key: &ImageKey) -> Result<(), RuntimeError> {
        match &*self.kind {
            Kind::None => {
                let _ = key;
                Ok(())
            }
            Kind::Containerd(containerd) => containerd.release(key).await,
            Kind::Cri(_) => Ok(()),
        }
    }

    /// All images that kubelet can use, whoever brought them, each once with all its names. A few calls; of each image that is
    /// new, what it is has to be read.
    pub async fn images(&self) -> Result<Vec<Listed>, RuntimeError> {
        match &*self.kind {
            Kind::None => Ok(Vec::new()),
            Kind::Containerd(containerd) => containerd.images().await,
            Kind::Cri(cri) => cri.images().await,
        }
    }

    /// Takes names from an image that the agent does not look after, and the image itself with its last one. Never one that a
    /// container uses or that others have pinned: that is looked at here, a moment before.
    pub async fn remove(&self, id: &Digest, names: &BTreeSet<ImageName>) -> Result<Removal, RuntimeError> {
        match &*self.kind {
            Kind::None => {
                let _ = (id, names);
                Ok(Removal::Gone)
            }
            Kind::Containerd(containerd) => containerd.remove(id, names).await,
            Kind::Cri(cri) => cri.remove(id, names).await,
        }
    }

    /// The containers, running or stopped, that were made from an image.
    pub async fn users(&self, image: &Image) -> Result<Vec<User>, RuntimeError> {
        Ok(self.containers().await?.made_from(image))
    }

    /// All containers, running or stopped: one look for who asks about several images.
    pub async fn containers(&self) -> Result<Containers, RuntimeError> {
        match &*self.kind {
            Kind::None => Ok(Containers::default()),
            Kind::Containerd(containerd) => containerd.containers().await,
            Kind::Cri(cri) => users::over_cri(cri).await,
        }
    }

    /// Waits until something happened in the runtime that may matter: an image or content went or changed, a container was
    /// deleted, the connection came back. May return early; never without a runtime, and never through CRI, which does not
    /// tell: look again from time to time.
    ///
    /// What happens between two calls is not lost: the next one returns at once.
    pub async fn changed(&self) {
        match &*self.kind {
            Kind::Containerd(containerd) => containerd.changed().await,
            // CRI has no events of images.
            Kind::None | Kind::Cri(_) => std::future::pending().await,
        }
    }
}
