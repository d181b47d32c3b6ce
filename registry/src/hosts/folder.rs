//! A registry's folder: which one it is, what is in it, and whether that is still what was read.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    HostsError,
    file::{self, Host, HostsFile},
};
use crate::client::{ClientCertificate, Transport};

/// The largest `hosts.toml` that is read, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// The most files of a folder that are looked at.
const MAX_FILES: usize = 256;

/// The state of all files that a registry's configuration was read from, and of those that would come first if they
/// were there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The registry's folder, if there is one.
    folder: Option<PathBuf>,
    states: Vec<(PathBuf, State)>,
    /// Files that the configuration names, looked at when it was read.
    named: Vec<(PathBuf, State)>,
}

/// Time and size; nothing for what is not there.
type State = Option<(SystemTime, u64)>;

fn state(path: &Path) -> State {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl Found {
    /// Looks for a registry's folder: `host_port_`, then `host:port`, then `_default`.
    pub fn look(root: &Path, registry: &str) -> Self {
        let mut found = Self::default();
        for name in folder_names(registry) {
            let folder = root.join(name);
            let of_folder = state(&folder);
            found.states.push((folder.clone(), of_folder));
            if of_folder.is_some() {
                let file = folder.join("hosts.toml");
                found.states.push((file.clone(), state(&file)));
                found.folder = Some(folder);
                break;
            }
        }
        found
    }

    /// Whether what was read from `self` is still what one would read now, after a look at the same registry.
    pub fn is_still(&self, now: &Self) -> bool {
        self.states == now.states && self.named.iter().all(|(path, as_of)| state(path) == *as_of)
    }

    /// Reads the configuration. No folder: the registry itself.
    pub fn read(mut self) -> Result<(HostsFile, Self), HostsError> {
        let nothing = HostsFile { mirrors: Vec::new(), server: Host::default() };
        let Some(folder) = &self.folder else { return Ok((nothing, self)) };
        let path = folder.join("hosts.toml");
        // The state is that from before the reading: a change in between is noticed the next time.
        let text = read_bounded(&path, MAX_FILE)?;
        let file = match text {
            Some(text) if !text.is_empty() => {
                let text = String::from_utf8(text).map_err(|_| HostsError::Syntax {
                    path: path.clone(),
                    line: 1,
                    why: "it is not text in UTF-8".to_owned(),
                })?;
                file::parse(&path, &text)?
            }
            _ => {
                let transport = docker_files(folder)?;
                HostsFile { server: Host { transport, ..Host::default() }, ..nothing }
            }
        };
        for host in file.mirrors.iter().chain([&file.server]) {
            self.named.extend(host.transport.files().map(|file| (file.to_owned(), state(file))));
        }
        Ok((file, self))
    }
}

fn folder_names(registry: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((host, port)) = registry.rsplit_once(':')
        && !host.is_empty()
    {
        names.push(format!("{host}_{port}_"));
    }
    // A name such as `..` or `a/b` would lead out of the folder. No registry is called so.
    if !registry.contains('/') && registry != ".." && registry != "." {
        names.push(registry.to_owned());
    }
    names.push("_default".to_owned());
    names
}

/// The certificates of a folder in docker's form: `*.crt` are authorities, `*.cert` and `*.key` are the client's.
/// Whoever puts one there means TLS.
fn docker_files(folder: &Path) -> Result<Transport, HostsError> {
    let failed = |source| HostsError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)?.take(MAX_FILES) {
        names.push(entry.map_err(failed)?.path());
    }
    names.sort();
    let with = |extension: &'static str| {
        names.iter().filter(move |path| path.extension().is_some_and(|e| e == extension)).cloned()
    };
    let mut clients = with("cert");
    let client = clients.next();
    if let (Some(_), Some(second)) = (&client, clients.next()) {
        return Err(HostsError::Certificate {
            path: second,
            why: "only one client certificate a registry is supported".to_owned(),
        });
    }
    let client = client.map(|certificate| {
        let key = certificate.with_extension("key");
        ClientCertificate { key: key.exists().then_some(key), certificate }
    });
    Ok(Transport { ca: with("crt").collect(), client, ..Transport::default() })
}

/// A whole file; nothing when there is none.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, HostsError> {
    let failed = |source| HostsError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(HostsError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}
