//! Finding the node's runtime.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use tracing::{debug, info};

use crate::{
    Choice, ConnectOptions, RuntimeError,
    api::version::version_client::VersionClient,
    cri::Cri,
    socket::{answer, channel},
};

/// Where runtimes listen: containerd, k3s and RKE2, k0s, `MicroK8s`, CRI-O, cri-dockerd. The first that serves is taken.
const USUAL_SOCKETS: [&str; 6] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No runtime, or none that is wanted.
    Nothing,
    /// containerd's API at this socket.
    Containerd(PathBuf),
    /// CRI at this socket.
    Cri(PathBuf),
}

/// What is at a socket.
#[derive(Debug)]
enum Probe {
    /// There is no socket.
    Absent,
    /// There is one, and no answer.
    Silent(RuntimeError),
    /// Which of the two interfaces it offers.
    Offers { containerd: bool, cri: bool },
}

/// Looks for the runtime that is asked for.
pub(crate) async fn find(options: &ConnectOptions) -> Result<Found, RuntimeError> {
    if options.choice == Choice::None {
        return Ok(Found::Nothing);
    }
    let named = options.endpoint.as_deref().map(socket_path).transpose()?;
    let sockets = match &named {
        Some(socket) => vec![socket.clone()],
        None => USUAL_SOCKETS.map(PathBuf::from).to_vec(),
    };
    let mut probes = Vec::new();
    for socket in sockets {
        let probe = probe(&socket, options).await;
        probes.push((socket, probe));
    }
    let found = choose(options.choice, named.is_some(), probes)?;
    match &found {
        Found::Nothing => debug!("no container runtime of Kubernetes' here: images stay in the layer store"),
        Found::Containerd(socket) => info!(socket = %socket.display(), "images go to containerd"),
        Found::Cri(socket) => {
            info!(socket = %socket.display(), "the container runtime is spoken to through CRI");
        }
    }
    Ok(found)
}

/// The path in `unix:///run/x.sock`, as kubelet and crictl write it, or the path itself.
fn socket_path(endpoint: &Path) -> Result<PathBuf, RuntimeError> {
    let text = endpoint.to_string_lossy();
    match text.split_once("://") {
        None => Ok(endpoint.to_owned()),
        Some(("unix", path)) if path.starts_with('/') => Ok(PathBuf::from(path)),
        Some(_) => Err(RuntimeError::Unsupported(format!(
            "{text:?} is no runtime endpoint: write a socket's path, such as /run/containerd/containerd.sock"
        ))),
    }
}

async fn probe(socket: &Path, options: &ConnectOptions) -> Probe {
    match tokio::fs::metadata(socket).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Probe::Absent;
        }
        Err(error) => {
            let (endpoint, cause) = (socket.to_owned(), error.to_string());
            return Probe::Silent(RuntimeError::Unreachable { endpoint, cause });
        }
        Ok(_) => {}
    }
    let cri = match Cri::new(socket, options.credentials.clone()).describe().await {
        Ok(_) => true,
        Err(error @ RuntimeError::Unreachable { .. }) => return Probe::Silent(error),
        Err(_) => false,
    };
    let containerd = answer(socket, "say its version", VersionClient::new(channel(socket)).version(())).await;
    Probe::Offers { containerd: containerd.is_ok(), cri }
}

/// Picks one. A runtime that does not answer now may be the node's: to go on without it would be to call images ready that
/// no pod can use.
fn choose(choice: Choice, named: bool, probes: Vec<(PathBuf, Probe)>) -> Result<Found, RuntimeError> {
    let mut silent = None;
    let mut unfit = None;
    let first = probes.first().map(|(socket, _)| socket.clone()).unwrap_or_default();
    for (socket, probe) in probes {
        match (choice, probe) {
            (Choice::None, _) => return Ok(Found::Nothing),
            (_, Probe::Absent) => {}
            (_, Probe::Silent(error)) => silent = silent.or(Some(error)),
            // containerd without its CRI plugin is docker's: kubelet can't use it, so it is not the node's.
            (Choice::Auto, Probe::Offers { containerd: true, cri }) if cri || named => {
                return Ok(Found::Containerd(socket));
            }
            (Choice::Containerd, Probe::Offers { containerd: true, .. }) => {
                return Ok(Found::Containerd(socket));
            }
            (Choice::Auto, Probe::Offers { containerd: false, cri: true })
            | (Choice::Cri, Probe::Offers { cri: true, .. }) => return Ok(Found::Cri(socket)),
            (_, Probe::Offers { .. }) => unfit = unfit.or(Some(socket)),
        }
    }
    let wanted = match choice {
        Choice::Auto | Choice::None => "containerd's API or CRI",
        Choice::Containerd => "containerd's API",
        Choice::Cri => "CRI; is its CRI plugin disabled?",
    };
    match (silent, unfit) {
        (Some(error), _) => Err(error),
        (None, Some(socket)) if named || choice != Choice::Auto => Err(RuntimeError::Unsupported(format!(
            "what listens at {} does not speak {wanted}",
            socket.display()
        ))),
        (None, None) if named || choice != Choice::Auto => {
            let cause = if named {
                "there is no such socket"
            } else {
                "there is no socket here, nor at the other usual places"
            };
            Err(RuntimeError::Unreachable { endpoint: first, cause: cause.to_owned() })
        }
        _ => Ok(Found::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use larder_registry::Anonymous;

    use super::*;

    const BOTH: Probe = Probe::Offers { containerd: true, cri: true };
    const DOCKERS: Probe = Probe::Offers { containerd: true, cri: false };
    const CRI: Probe = Probe::Offers { containerd: false, cri: true };
    const NEITHER: Probe = Probe::Offers { containerd: false, cri: false };

    fn silent() -> Probe {
        Probe::Silent(RuntimeError::Unreachable { endpoint: "/s".into(), cause: "refused".to_owned() })
    }

    fn chosen(choice: Choice, named: bool, probes: Vec<Probe>) -> Result<Found, String> {
        let sockets = (0..).map(|number| PathBuf::from(format!("/{number}")));
        choose(choice, named, sockets.zip(probes).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_best_that_is_there() {
        let (containerd, cri) =
            (|at: &str| Ok(Found::Containerd(at.into())), |at: &str| Ok(Found::Cri(at.into())));
        let auto = |probes| chosen(Choice::Auto, false, probes);
        assert_eq!(auto(vec![Probe::Absent, BOTH]), containerd("/1"));
        assert_eq!(auto(vec![DOCKERS, CRI]), cri("/1"));
        assert_eq!(auto(vec![silent(), BOTH]), containerd("/1"));
        assert_eq!(auto(vec![DOCKERS, NEITHER, Probe::Absent]), Ok(Found::Nothing));
        assert_eq!(auto(vec![Probe::Absent]), Ok(Found::Nothing));
        assert_eq!(chosen(Choice::Cri, false, vec![DOCKERS, BOTH]), cri("/1"));
        assert_eq!(chosen(Choice::Containerd, false, vec![CRI, DOCKERS]), containerd("/1"));
        assert_eq!(chosen(Choice::Auto, true, vec![DOCKERS]), containerd("/0"));
    }

    #[test]
    fn what_is_named_must_be_there() {
        let error = |choice, named, probes| chosen(choice, named, probes).unwrap_err();
        assert!(
            error(Choice::Auto, false, vec![Probe::Absent, silent()])
                .contains("at /s does not answer: refused")
        );
        assert!(
            error(Choice::Containerd, false, vec![Probe::Absent]).contains("nor at the other usual places")
        );
        assert!(
            error(Choice::Auto, true, vec![Probe::Absent])
                .contains("at /0 does not answer: there is no such socket")
        );
        assert!(error(Choice::Containerd, true, vec![CRI]).contains("at /0 does not speak containerd's API"));
        assert!(error(Choice::Cri, false, vec![DOCKERS]).contains("is its CRI plugin disabled?"));
    }

    #[test]
    fn an_endpoint_is_a_path_or_a_url() {
        let path = |text: &str| socket_path(Path::new(text)).map_err(|error| error.to_string());
        assert_eq!(path("/run/x.sock"), Ok("/run/x.sock".into()));
        assert_eq!(path("unix:///run/x.sock"), Ok("/run/x.sock".into()));
        for bad in ["tcp://127.0.0.1:1", "unix://run/x.sock"] {
            assert!(path(bad).unwrap_err().contains("write a socket's path"), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_not_the_same_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let stale = folder.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let options = |socket: PathBuf| ConnectOptions {
            choice: Choice::Auto,
            endpoint: Some(socket),
            credentials: Arc::new(Anonymous),
        };
        for (socket, why) in [(stale, "Connection refused"), (folder.path().join("none"), "no such socket")] {
            let error = find(&options(socket)).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        let none = ConnectOptions { choice: Choice::None, ..options("/none".into()) };
        assert_eq!(find(&none).await.unwrap(), Found::Nothing);
    }
}
