//! The Container Runtime Interface: what every runtime that kubelet can use speaks
//! (<https://github.com/kubernetes/cri-api/blob/v0.35.4/pkg/apis/runtime/v1/api.proto>).
//!
//! Through it the runtime pulls by itself. It takes neither content nor labels, and has no pin and no events: what is
//! Larder's is known from the layer store alone, and what goes is found out at the next look.

mod annex;
mod auth;
mod images;
mod list;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use larder_oci::{ImageKey, Platform};
use larder_registry::Credentials;
use tonic::transport::Channel;

pub(crate) use annex::CriAnnex;

use crate::{
    Description, Image, Observation, RuntimeError, User, Withdrawal,
    api::cri::{
        self, ImageSpec, ListContainersRequest, ListImagesRequest, PullImageRequest, RemoveImageRequest,
        VersionRequest, image_service_client::ImageServiceClient,
        runtime_service_client::RuntimeServiceClient,
    },
    socket::{MAX_MESSAGE, answer, channel, failed},
    users,
};

/// The version of the interface.
const CRI_VERSION: &str = "v1";
/// How CRI-O names itself.
const CRI_O: &str = "cri-o";

/// A runtime that is spoken to through CRI. Clones share the connection.
#[derive(Debug, Clone)]
pub(crate) struct Cri {
    endpoint: PathBuf,
    channel: Channel,
    credentials: Arc<dyn Credentials>,
    /// What images are, that were listed before.
    known: Arc<list::Known>,
}

impl Cri {
    /// The runtime behind a socket. Connects with the first call. The logins are for pulls.
    pub(crate) fn new(endpoint: &Path, credentials: Arc<dyn Credentials>) -> Self {
        Self { endpoint: endpoint.to_owned(), channel: channel(endpoint), credentials, known: Arc::default() }
    }

    pub(crate) fn endpoint(&self) -> &Path {
        &self.endpoint
    }

    /// The connection, for whatever else is spoken on the same socket.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn runtime_service(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn image_service(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The runtime's name and version.
    pub(crate) async fn describe(&self) -> Result<Description, RuntimeError> {
        let mut client = self.runtime_service();
        let call = client.version(VersionRequest { version: CRI_VERSION.to_owned() });
        let found = answer(&self.endpoint, "say its version", call).await?;
        Ok(Description { name: found.runtime_name, version: found.runtime_version, interface: "cri" })
    }

    /// All containers, whatever their state. Those of pods' sandboxes are not among them.
    pub(crate) async fn list_containers(&self) -> Result<Vec<cri::Container>, RuntimeError> {
        let mut client = self.runtime_service();
        let call = client.list_containers(ListContainersRequest::default());
        Ok(answer(&self.endpoint, "list containers", call).await?.containers)
    }

    /// All images.
    pub(crate) async fn list_images(&self) -> Result<Vec<cri::Image>, RuntimeError> {
        let mut client = self.image_service();
        let call = client.list_images(ListImagesRequest::default());
        Ok(answer(&self.endpoint, "list images", call).await?.images)
    }

    /// Whether the runtime is given images for this platform: those that this machine runs.
    pub(crate) fn takes(key: &ImageKey) -> bool {
        !key.name.is_nameless() && Platform::host().runs(&key.platform)
    }

    /// How images stand. Nothing is ever a stray or lost: CRI has no labels, and does not tell of layers.
    pub(crate) async fn observe(&self, wanted: &[Image]) -> Result<Observation, RuntimeError> {
        let listed = self.list_images().await?;
        let states = wanted.iter().map(|image| (image.key.clone(), images::state(image, &listed)));
        Ok(Observation { states: states.collect(), ..Observation::default() })
    }

    /// Has the runtime pull an image by its name, with the registry's login, and looks whether it is the one that was
    /// meant. A pull ends when the runtime says so: how long it may stall is the runtime's to decide.
    pub(crate) async fn deliver(&self, image: &Image) -> Result<(), RuntimeError> {
        let name = images::name(&image.key.name);
        if images::state(image, &self.list_images().await?) == crate::State::Ready {
            return Ok(());
        }
        if image.further {
            return Err(RuntimeError::Unsupported(format!(
                "{name} is a further name of an image, and through CRI a container runtime takes images from registries only: \
                 take it out of tags, or have the agent use containerd's own API"
            )));
        }
        let what = format!("pull image {name}");
        let auth = self.login(image, &what).await?;
        let spec = ImageSpec { image: name, ..ImageSpec::default() };
        let request = PullImageRequest { image: Some(spec), auth };
        let pulled = self.image_service().pull_image(request).await;
        pulled.map_err(|status| failed(&self.endpoint, &what, &status))?;
        match images::state(image, &self.list_images().await?) {
            crate::State::Ready => Ok(()),
            crate::State::Missing => {
                let cause = "it was pulled, and was gone at once; is the node's disk full?".to_owned();
                Err(RuntimeError::Refused { what, cause })
            }
            crate::State::Moved { to } => {
                let cause =
                    format!("the registry gave {to} where it had said {}: the tag has moved", image.target);
                Err(RuntimeError::Refused { what, cause })
            }
        }
    }

    async fn login(&self, image: &Image, what: &str) -> Result<Option<cri::AuthConfig>, RuntimeError> {
        let name = &image.key.name;
        let found = self.credentials.find(name.registry(), name.repository()).await;
        let found =
            found.map_err(|error| RuntimeError::Refused { what: what.to_owned(), cause: error.to_string() });
        Ok(found?.as_ref().map(auth::config))
    }

    /// The containers that were made from an image.
    pub(crate) async fn users(&self, image: &Image) -> Result<Vec<User>, RuntimeError> {
        Ok(users::over_cri(self).await?.made_from(image))
    }

    /// Takes an image's name away, and the image with its last name.
    ///
    /// It stays where it is pinned, since CRI can't pin and so the pin is not ours; where the name stands for another image
    /// than the one that is meant; and where it has further names, which all runtimes but CRI-O would take along
    /// (<https://github.com/containerd/containerd/blob/v2.2.1/internal/cri/server/images/image_remove.go>,
    /// <https://github.com/cri-o/cri-o/blob/main/server/image_remove.go>).
    pub(crate) async fn withdraw(
        &self,
        key: &ImageKey,
        image: Option<&Image>,
    ) -> Result<Withdrawal, RuntimeError> {
        let listed = self.list_images().await?;
        let Some(found) = images::find(&key.name, &listed) else { return Ok(Withdrawal::Gone) };
        let Some(image) = image.filter(|image| images::is_same(image, found)) else {
            return Ok(Withdrawal::Left);
        };
        let users = self.users(image).await?;
        if !users.is_empty() {
            return Ok(Withdrawal::InUse(users));
        }
        if found.pinned || (images::has_other_names(&key.name, found) && !self.is_cri_o().await?) {
            return Ok(Withdrawal::Left);
        }
        let name = images::name(&key.name);
        let what = format!("remove image {name}");
        let spec = ImageSpec { image: name, ..ImageSpec::default() };
        let mut client = self.image_service();
        let call = client.remove_image(RemoveImageRequest { image: Some(spec) });
        answer(&self.endpoint, &what, call).await?;
        Ok(Withdrawal::Gone)
    }

    async fn is_cri_o(&self) -> Result<bool, RuntimeError> {
        Ok(self.describe().await?.name.eq_ignore_ascii_case(CRI_O))
    }
}
