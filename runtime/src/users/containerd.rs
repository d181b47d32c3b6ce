//! Containers as containerd knows them: those of CRI, and those that somebody else made in Kubernetes' namespace.

use std::{collections::BTreeSet, path::Path};

use larder_oci::Digest;
use tonic::{Code, transport::Channel};

use super::{Container, Containers, cri, digest_of, user};
use crate::{
    RuntimeError,
    api::{
        containers::{self, ListContainersRequest, containers_client::ContainersClient},
        images::{GetImageRequest, images_client::ImagesClient},
        snapshots::{StatSnapshotRequest, snapshots_client::SnapshotsClient},
        tasks::{ListTasksRequest, Status, tasks_client::TasksClient},
    },
    cri::Cri,
    socket::{MAX_MESSAGE, answer, failed, in_namespace},
};

/// The namespace of containerd's that its CRI plugin works in.
const NAMESPACE: &str = "k8s.io";
/// The label that the CRI plugin puts on what it makes: `container` or `sandbox`.
const KIND: &str = "io.cri-containerd.kind";

/// Asks for all containers. Those that CRI lists name their image by its ID. Of others only a name is known, which may stand
/// for another image by now: there, what their files lie on decides.
pub(crate) async fn on_containerd(cri: &Cri) -> Result<Containers, RuntimeError> {
    let listed = match cri.list_containers().await {
        // Without its CRI plugin, containerd has no containers of CRI's.
        Err(RuntimeError::Unsupported(_)) => Vec::new(),
        listed => listed?,
    };
    let images = if listed.is_empty() { Vec::new() } else { cri.list_images().await? };
    let aliases = cri::aliases(&images);
    let known: BTreeSet<&str> = listed.iter().map(|container| container.id.as_str()).collect();
    let mut all: Vec<Container> = listed.iter().map(|found| cri::container(found, &aliases)).collect();
    let look = Look { endpoint: cri.endpoint(), channel: cri.channel() };
    let others: Vec<_> =
        look.containers().await?.into_iter().filter(|other| !known.contains(other.id.as_str())).collect();
    if !others.is_empty() {
        let running = look.running().await?;
        for other in others {
            all.push(look.describe(&other, running.contains(&other.id)).await?);
        }
    }
    Ok(Containers::new(all))
}

struct Look<'a> {
    endpoint: &'a Path,
    channel: Channel,
}

impl Look<'_> {
    async fn containers(&self) -> Result<Vec<containers::Container>, RuntimeError> {
        let mut client = ContainersClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = in_namespace(NAMESPACE, ListContainersRequest::default());
        Ok(answer(self.endpoint, "list containers", client.list(request)).await?.containers)
    }

    /// The IDs of containers that have a process.
    async fn running(&self) -> Result<BTreeSet<String>, RuntimeError> {
        let mut client = TasksClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = in_namespace(NAMESPACE, ListTasksRequest::default());
        let tasks = match answer(self.endpoint, "list tasks", client.list(request)).await {
            // A containerd that runs no containers at all.
            Err(RuntimeError::Unsupported(_)) => Vec::new(),
            tasks => tasks?.tasks,
        };
        let runs = |status| matches!(status, Status::Running | Status::Paused | Status::Pausing);
        // In answers to a list, a task's container is in `id`
        // (https://github.com/containerd/containerd/blob/v2.2.1/plugins/services/tasks/local.go).
        Ok(tasks.into_iter().filter(|task| runs(task.status())).map(|task| task.id).collect())
    }

    async fn describe(
        &self,
        container: &containers::Container,
        running: bool,
    ) -> Result<Container, RuntimeError> {
        let sandbox = container.labels.get(KIND).is_some_and(|kind| kind == "sandbox");
        let user = user(&container.id, &container.labels, sandbox.then_some("sandbox"), running);
        let mut digests: BTreeSet<Digest> = digest_of(&container.image).into_iter().collect();
        digests.extend(self.target(&container.image).await?);
        Ok(Container { user, digests, chain: self.parent(container).await? })
    }

    /// What a name stands for now.
    async fn target(&self, name: &str) -> Result<Option<Digest>, RuntimeError> {
        if name.is_empty() {
            return Ok(None);
        }
        let mut client = ImagesClient::new(self.channel.clone());
        let request = in_namespace(NAMESPACE, GetImageRequest { name: name.to_owned() });
        let image = match client.get(request).await {
            Ok(answer) => answer.into_inner().image,
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => return Err(failed(self.endpoint, &format!("look up image {name}"), &status)),
        };
        Ok(image.and_then(|image| image.target).and_then(|target| target.digest.parse().ok()))
    }

    /// The snapshot that a container's own lies on; snapshots of unpacked layers are named by their chain ID.
    async fn parent(&self, container: &containers::Container) -> Result<Option<Digest>, RuntimeError> {
        let (snapshotter, key) = (container.snapshotter.clone(), container.snapshot_key.clone());
        if snapshotter.is_empty() || key.is_empty() {
            return Ok(None);
        }
        let mut client = SnapshotsClient::new(self.channel.clone());
        let request = in_namespace(NAMESPACE, StatSnapshotRequest { snapshotter, key });
        match client.stat(request).await {
            Ok(answer) => Ok(answer.into_inner().info.and_then(|info| info.parent.parse().ok())),
            // The container is going, or its snapshotter was taken out of the configuration.
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => Ok(None),
            Err(status) => {
                Err(failed(self.endpoint, &format!("look up container {}", container.id), &status))
            }
        }
    }
}
