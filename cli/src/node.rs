//! The container runtime of the node that the command runs on, asked only when a command needs it.

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use larder_oci::Digest;
use larder_registry::{Anonymous, Credentials, DockerConfig};
use larder_runtime::{Choice, ConnectOptions, Containers, Image, Runtime, User, Withdrawal};
use larder_store::{Annex, AnnexBlob, Store, StoreId, StoredImage};
use tokio::{runtime::Handle, sync::OnceCell};

use crate::{Failure, InUse, args::Globals};

/// The store that belongs to the node as a whole, and is the agent's.
pub(crate) const NODE_STORE: &str = "/var/lib/larder";

/// The node's runtime. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

struct Shared {
    choice: Option<Choice>,
    endpoint: Option<PathBuf>,
    runtime: OnceCell<Runtime>,
    containers: OnceCell<Containers>,
    handed_over: OnceCell<BTreeSet<Digest>>,
    settled: OnceCell<()>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("choice", &self.choice).finish_non_exhaustive()
    }
}

impl Node {
    /// What the flags name.
    #[must_use]
    pub fn new(globals: &Globals) -> Self {
        let shared = Shared {
            choice: globals.runtime,
            endpoint: globals.runtime_endpoint.clone(),
            runtime: OnceCell::new(),
            containers: OnceCell::new(),
            handed_over: OnceCell::new(),
            settled: OnceCell::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The runtime for a command that is all about it: the one that the flags name, else the one that is there.
    ///
    /// # Errors
    /// If it does not answer, or if there is none.
    pub async fn required(&self) -> Result<Runtime, Failure> {
        let runtime = self.connect(self.shared.choice.unwrap_or_default()).await?;
        if runtime.is_none() {
            return Err(Failure::new(
                "there is no container runtime of Kubernetes' here: run this on a node, or name the runtime with \
                 --runtime and --runtime-endpoint",
            ));
        }
        Ok(runtime)
    }

    /// The runtime that a store's images may be in, which may be none.
    ///
    /// Where no flag says which: the one that is there if the store is the node's own, or has left layers to a runtime. A
    /// store of a person's has no part in what runs on the machine.
    async fn of(&self, store: &Store) -> Result<Runtime, String> {
        let choice = self.choice(store).await?;
        self.connect(choice).await.map_err(|failure| failure.to_string())
    }

    async fn choice(&self, store: &Store) -> Result<Choice, String> {
        Ok(match self.shared.choice {
            Some(choice) => choice,
            None if self.shared.endpoint.is_some() || store.root() == Path::new(NODE_STORE) => Choice::Auto,
            None if !self.handed_over(store).await?.is_empty() => Choice::Auto,
            None => Choice::None,
        })
    }

    /// How the agent's engine finds the runtime that a store's images may be in.
    pub(crate) async fn connect_options(&self, store: &Store) -> Result<ConnectOptions, Failure> {
        let choice = self.choice(store).await.map_err(Failure::response)?;
        Ok(self.options(choice))
    }

    fn options(&self, choice: Choice) -> ConnectOptions {
        // Without a home there are no logins, and public images can be had all the same.
        let credentials: Arc<dyn Credentials> = match DockerConfig::from_env() {
            Ok(logins) => Arc::new(logins),
            Err(_) => Arc::new(Anonymous),
        };
        ConnectOptions { choice, endpoint: self.shared.endpoint.clone(), credentials }
    }

    async fn connect(&self, choice: Choice) -> Result<Runtime, Failure> {
        let options = self.options(choice);
        let runtime = self.shared.runtime.get_or_try_init(|| larder_runtime::connect(&options)).await?;
        Ok(runtime.clone())
    }

    /// The layers that a store had left to a runtime when the command began.
    async fn handed_over(&self, store: &Store) -> Result<&BTreeSet<Digest>, String> {
        self.shared.handed_over.get_or_try_init(|| read_handed_over(store)).await
    }

    /// Has the runtime keep the layers that the store has left to it, and no others.
    async fn settle_on(&self, runtime: &Runtime, store: &Store) -> Result<(), String> {
        let (id, handed_over) = (read_id(store).await?, read_handed_over(store).await?);
        let look = runtime.observe(&id, &[], &handed_over).await;
        look.map(drop).map_err(|error| error.to_string())
    }

    /// A way to the layers that a store has left to the runtime; `None` if the flags say that there is none.
    pub(crate) fn annex(&self, store: &Store) -> Option<Arc<dyn Annex>> {
        let none = self.shared.choice == Some(Choice::None);
        (!none).then(|| Arc::new(NodeAnnex { node: self.clone(), store: store.clone() }) as Arc<dyn Annex>)
    }
}

/// The layers that a store has left to a runtime, now.
async fn read_handed_over(store: &Store) -> Result<BTreeSet<Digest>, String> {
    let store = store.clone();
    let read = tokio::task::spawn_blocking(move || store.handed_over());
    let layers = read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(layers.into_keys().collect())
}

/// Which store it is.
async fn read_id(store: &Store) -> Result<StoreId, String> {
    let store = store.clone();
    let read = tokio::task::spawn_blocking(move || store.id().cloned());
    read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

impl From<larder_runtime::RuntimeError> for Failure {
    fn from(error: larder_runtime::RuntimeError) -> Self {
        Self::response(error)
    }
}

/// These block: call them where the store's calls are made.
impl InUse for Node {
    fn users(&self, store: &Store, image: &StoredImage) -> Result<Vec<User>, String> {
        Handle::current().block_on(async {
            let runtime = self.of(store).await?;
            if runtime.is_none() {
                return Ok(Vec::new());
            }
            let containers = self.shared.containers.get_or_try_init(|| runtime.containers()).await;
            let containers = containers.map_err(|error| error.to_string())?;
            Ok(containers.made_from(&known(store, image)))
        })
    }

    fn withdraw(&self, store: &Store, image: &StoredImage) -> Result<Vec<User>, String> {
        Handle::current().block_on(async {
            let runtime = self.of(store).await?;
            if runtime.is_none() || !runtime.takes(&image.key) {
                return Ok(Vec::new());
            }
            // What other images of the store need of this one stays in the runtime, also where nobody has looked since it
            // was left there.
            self.shared.settled.get_or_try_init(|| self.settle_on(&runtime, store)).await?;
            let image = known(store, image);
            match runtime.withdraw(&image.key, Some(&image)).await {
                Ok(Withdrawal::InUse(users)) => Ok(users),
                Ok(Withdrawal::Gone | Withdrawal::Left) => Ok(Vec::new()),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn settle(&self, store: &Store) -> Result<(), String> {
        Handle::current().block_on(async {
            // There were layers in a runtime: so there is one.
            let runtime = self.connect(self.shared.choice.unwrap_or_default()).await;
            self.settle_on(&runtime.map_err(|failure| failure.to_string())?, store).await
        })
    }
}

/// An image as the runtime knows it. Of one that is damaged, what the store's index says must do: it can still be used, and
/// be removed.
fn known(store: &Store, image: &StoredImage) -> Image {
    Image::read(store, image).unwrap_or_else(|error| {
        tracing::debug!(image = %image.key, %error, "going by its digests alone");
        Image {
            key: image.key.clone(),
            target: image.target.clone(),
            index: image.index.clone(),
            manifest: image.manifest.clone(),
            config: image.manifest.clone(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
            pin: None,
            further: false,
        }
    })
}

/// The runtime's annex, connected to with the first layer that is asked for.
#[derive(Debug)]
struct NodeAnnex {
    node: Node,
    /// Without an annex.
    store: Store,
}

impl NodeAnnex {
    fn runtime(&self) -> io::Result<Arc<dyn Annex>> {
        // It is asked about layers that are in a runtime: so there is one.
        let choice = self.node.shared.choice.unwrap_or_default();
        let runtime = Handle::current().block_on(self.node.connect(choice));
        let runtime =
            runtime.map_err(|failure| io::Error::new(ErrorKind::NotConnected, failure.to_string()))?;
        runtime.annex().ok_or_else(|| {
            let text = "there is no container runtime here; run larder on the node, or name the runtime with --runtime \
                        and --runtime-endpoint";
            io::Error::new(ErrorKind::NotConnected, text)
        })
    }
}

impl Annex for NodeAnnex {
    /// What a person's command fetches stays in the store: nothing would keep it in the runtime for long. What was left to
    /// the runtime before stays there.
    fn keep(&self, store: &StoreId, digest: &Digest, size: u64) -> io::Result<bool> {
        let handed_over = Handle::current().block_on(self.node.handed_over(&self.store));
        if handed_over.map_err(io::Error::other)?.contains(digest) {
            self.runtime()?.keep(store, digest, size)
        } else {
            Ok(false)
        }
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn AnnexBlob>> {
        self.runtime()?.open(digest)
    }
}
