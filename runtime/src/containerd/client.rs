//! containerd's services, in Kubernetes' namespace.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tonic::{
    Code, Request, Response, Status,
    body::Body,
    client::GrpcService,
    codegen::{StdError, http},
    transport::Channel,
};
use tower::ServiceExt;

use crate::{
    RuntimeError,
    api::{
        content::content_client::ContentClient, cri::image_service_client::ImageServiceClient,
        diff::diff_client::DiffClient, events::events_client::EventsClient,
        images::images_client::ImagesClient, leases::leases_client::LeasesClient,
        snapshots::snapshots_client::SnapshotsClient, version::version_client::VersionClient,
    },
    socket::{self, CALL_TIMEOUT, MAX_MESSAGE},
};

/// The namespace in which containerd's CRI plugin keeps what kubelet sees.
const NAMESPACE: &str = "k8s.io";

/// How long a call may take that moves or syncs a layer's worth of data. A bound for what would otherwise hang for ever, not
/// an estimate.
const WORK_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How often it is seen meanwhile whether containerd still answers, and how long that may take it.
///
/// Not with HTTP/2's own pings: containerd's server takes offence at more than one in five minutes, and ends the connection
/// (<https://github.com/grpc/grpc/blob/master/doc/keepalive.md>).
const ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));

/// A connection to containerd. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    endpoint: Arc<PathBuf>,
    channel: Channel,
}

/// What became of a call whose caller has plans for the usual refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// It was done.
    Done(T),
    /// What was to be made is there already.
    AlreadyExists,
    /// What was asked about is not there.
    NotFound,
}

macro_rules! services {
    ($($(#[$meta:meta])* $name:ident: $client:ident;)*) => {
        $(pub(super) fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
        })*
    };
}

impl Client {
    pub(super) fn new(endpoint: &Path, channel: Channel) -> Self {
        Self { endpoint: Arc::new(endpoint.to_owned()), channel }
    }

    services! {
        content: ContentClient;
        cri_images: ImageServiceClient;
        diff: DiffClient;
        events: EventsClient;
        images: ImagesClient;
        leases: LeasesClient;
        snapshots: SnapshotsClient;
        version: VersionClient;
    }

    /// The content store's client for one call, whose request has this body.
    pub(super) fn content_with(
        &self,
        body: Body,
    ) -> ContentClient<impl GrpcService<Body, Error: Into<StdError>, ResponseBody = Body, Future: Send>> {
        let mut body = Some(body);
        let replace = move |request: http::Request<Body>| request.map(|_| body.take().unwrap_or_default());
        ContentClient::new(self.channel.clone().map_request(replace)).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Waits for a call's answer; any refusal is an error. `what` completes "failed to …".
    pub(super) async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        socket::answer(&self.endpoint, what, call).await
    }

    /// As [`Client::call`], with the refusals that callers plan for apart.
    pub(super) async fn attempt<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Answer<T>, RuntimeError> {
        match timed(CALL_TIMEOUT, call).await {
            Ok(response) => Ok(Answer::Done(response.into_inner())),
            Err(status) => self.planned(what, &status),
        }
    }

    /// Waits for something that may take long, for as long as containerd answers other questions. One that is frozen, or whose
    /// disk hangs, answers none, and its connection stays as it is.
    pub(super) async fn work<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        tokio::select! {
            answer = timed(WORK_TIMEOUT, call) => answer,
            status = self.silence() => Err(status),
        }
    }

    /// Ends when containerd answers no more.
    async fn silence(&self) -> Status {
        let mut client = self.version();
        loop {
            tokio::time::sleep(ALIVE.0).await;
            if let Err(status) = timed(ALIVE.1, client.version(())).await {
                return status;
            }
        }
    }

    /// A refusal that callers plan for, or the error.
    pub(super) fn planned<T>(&self, what: &str, status: &Status) -> Result<Answer<T>, RuntimeError> {
        match status.code() {
            Code::AlreadyExists => Ok(Answer::AlreadyExists),
            Code::NotFound => Ok(Answer::NotFound),
            _ => Err(self.failed(what, status)),
        }
    }

    /// What a call's failure means.
    pub(super) fn failed(&self, what: &str, status: &Status) -> RuntimeError {
        socket::failed(&self.endpoint, what, status)
    }
}

/// Bounds the wait for something of a call.
pub(super) async fn timed<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs()))))
}

/// A request in Kubernetes' namespace.
pub(super) fn request<T>(message: T) -> Request<T> {
    socket::in_namespace(NAMESPACE, message)
}

/// A request whose results a lease keeps from containerd's collector, from the moment that they are there.
pub(super) fn leased<T>(lease: &str, message: T) -> Request<T> {
    let mut request = request(message);
    // Our leases' names are ASCII.
    if let Ok(lease) = lease.parse() {
        request.metadata_mut().insert("containerd-lease", lease);
    }
    request
}
