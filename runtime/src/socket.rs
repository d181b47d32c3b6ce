//! gRPC over a runtime's socket: the connection, and what its errors mean.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use crate::RuntimeError;

/// How long a call may take that only looks something up or writes a record.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connecting to a socket may take. Somebody listens there, or nobody does.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest message, in bytes: what containerd and kubelet allow each other.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;
/// How much of a runtime's message is passed on, in characters.
const MAX_CAUSE: usize = 400;

/// A connection to a socket, made with the first call and anew when it has broken.
pub(crate) fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    // The name is of no use on a socket, and HTTP/2 wants one.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector_lazy(connector)
}

/// Waits for the answer to a call that takes no longer than [`CALL_TIMEOUT`]. `what` is what was asked, for the error:
/// `list images`.
pub(crate) async fn answer<T>(
    endpoint: &Path,
    what: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed(endpoint, what, &status)),
        Err(_) => Err(RuntimeError::Unreachable {
            endpoint: endpoint.to_owned(),
            cause: format!("no answer within {} s when asked to {what}", CALL_TIMEOUT.as_secs()),
        }),
    }
}

/// A request in a namespace of containerd's.
pub(crate) fn in_namespace<T>(namespace: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = tonic::metadata::MetadataValue::from_static(namespace);
    request.metadata_mut().insert("containerd-namespace", value);
    request
}

/// What a call's failure means.
pub(crate) fn failed(endpoint: &Path, what: &str, status: &Status) -> RuntimeError {
    let endpoint = PathBuf::from(endpoint);
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => {
            RuntimeError::Unreachable { endpoint, cause: cause(status) }
        }
        Code::Unimplemented => RuntimeError::Unsupported(format!(
            "the container runtime at {} can't {what}: it does not offer that interface",
            endpoint.display()
        )),
        // A connection that ends in the middle of a call.
        Code::Unknown if std::error::Error::source(status).is_some() => {
            RuntimeError::Unreachable { endpoint, cause: cause(status) }
        }
        _ => RuntimeError::Refused { what: what.to_owned(), cause: cause(status) },
    }
}

/// What a status says, on one line and of bounded length. Of a connection that failed, the innermost error, which says why.
fn cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut inner = std::error::Error::source(status);
    while let Some(error) = inner {
        text = error.to_string();
        inner = error.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CAUSE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => format!("{:?}", status.code()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    #[test]
    fn what_a_runtime_says_is_short_and_sorted() {
        let endpoint = Path::new("/run/x.sock");
        let error = failed(endpoint, "pull image a", &Status::internal("x\n y ".repeat(1000)));
        let text = error.to_string();
        assert!(text.starts_with("the container runtime failed to pull image a: x y x y"), "{text}");
        assert!(text.chars().count() < 500 && text.ends_with('…'), "{text}");
        assert_eq!(error.category(), Category::Refused);
        let full = Status::internal("write /x: no space left on device");
        assert_eq!(failed(endpoint, "pull", &full).category(), Category::DiskFull);
        assert_eq!(failed(endpoint, "pull", &Status::unavailable("")).category(), Category::Unreachable);
    }

    #[tokio::test]
    async fn a_socket_without_a_listener_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("none.sock");
        let mut client = crate::api::cri::runtime_service_client::RuntimeServiceClient::new(channel(&socket));
        let call = client.version(crate::api::cri::VersionRequest::default());
        let error = answer(&socket, "say its version", call).await.unwrap_err();
        assert_eq!(error.category(), Category::Unreachable);
        assert!(error.to_string().contains("No such file or directory"), "{error}");
    }
}
