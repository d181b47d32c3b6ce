//! Credential helpers: programs that keep logins for docker
//! (<https://github.com/docker/docker-credential-helpers#development>). Secrets pass through pipes, never as arguments.

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::{Credential, CredentialsError};

/// How long a helper may take: it may ask a person to unlock a key ring.
const PATIENCE: Duration = Duration::from_secs(120);
/// The most that is read from a helper, in bytes.
const MAX_OUTPUT: u64 = 256 << 10;
/// The user name that stands for "the secret is an identity token".
const TOKEN_USER: &str = "<token>";
/// What helpers say when they have no login for the server.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A helper, found by name.
pub(super) struct Helper<'a> {
    name: &'a str,
    program: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl<'a> Helper<'a> {
    /// Looks for `docker-credential-<name>` in the folders of a search path.
    pub fn find(name: &'a str, search_path: &OsStr) -> Result<Self, CredentialsError> {
        let failed = |why: &str| CredentialsError::Helper {
            helper: name.chars().filter(|c| !c.is_control()).take(64).collect(),
            verb: "get",
            why: why.to_owned(),
        };
        // The name comes from a file. It names a program in the search path and nothing else.
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(failed("this is not a name that a helper can have"));
        }
        let file = format!("docker-credential-{name}");
        let program = std::env::split_paths(search_path)
            .map(|folder| folder.join(&file))
            .find(|path| path.is_file())
            .ok_or_else(|| failed("there is no such program in PATH; install it, or change config.json"))?;
        Ok(Self { name, program })
    }

    /// The login for a server, if the helper has one.
    pub async fn get(&self, server: &str) -> Result<Option<Credential>, CredentialsError> {
        let (status, output) = self.run("get", server.as_bytes()).await?;
        if !status.success() {
            let said = printable(&output);
            return if said.contains(NOT_FOUND) { Ok(None) } else { Err(self.failed("get", said)) };
        }
        // Not quoted: the output holds the secret.
        let message: Message = serde_json::from_slice(&output)
            .map_err(|_| self.failed("get", "its answer is not the JSON that helpers give".to_owned()))?;
        let secret = SecretString::from(message.secret);
        Ok(match message.username.as_str() {
            _ if secret.expose_secret().is_empty() => None,
            TOKEN_USER => Some(Credential::IdentityToken(secret)),
            _ => Some(Credential::Password { username: message.username, password: secret }),
        })
    }

    /// Keeps a login.
    pub async fn store(&self, server: &str, credential: &Credential) -> Result<(), CredentialsError> {
        let (username, secret) = match credential {
            Credential::Password { username, password } => (username.as_str(), password),
            Credential::IdentityToken(token) => (TOKEN_USER, token),
            Credential::RegistryToken(_) => {
                return Err(self.failed("store", "helpers cannot keep registry tokens".to_owned()));
            }
        };
        let message = Message {
            server_url: server.to_owned(),
            username: username.to_owned(),
            secret: secret.expose_secret().to_owned(),
        };
        let input =
            serde_json::to_string(&message).map_err(|error| self.failed("store", error.to_string()))?;
        drop(SecretString::from(message.secret));
        let input = SecretString::from(input);
        let (status, output) = self.run("store", input.expose_secret().as_bytes()).await?;
        if status.success() { Ok(()) } else { Err(self.failed("store", printable(&output))) }
    }

    /// Forgets a login. It is no error that there was none.
    pub async fn erase(&self, server: &str) -> Result<(), CredentialsError> {
        let (status, output) = self.run("erase", server.as_bytes()).await?;
        let said = printable(&output);
        if status.success() || said.contains(NOT_FOUND) { Ok(()) } else { Err(self.failed("erase", said)) }
    }

    async fn run(&self, verb: &'static str, input: &[u8]) -> Result<(ExitStatus, Vec<u8>), CredentialsError> {
        let failed = |error: std::io::Error| self.failed(verb, error.to_string());
        let mut child = Command::new(&self.program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut output = Vec::new();
        let talk = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A helper that ends without reading says why on its output.
                    stdin.write_all(input).await.ok();
                }
            };
            let read = async {
                match stdout {
                    Some(stdout) => stdout.take(MAX_OUTPUT).read_to_end(&mut output).await.map(drop),
                    None => Ok(()),
                }
            };
            let ((), read) = tokio::join!(write, read);
            read?;
            child.wait().await
        };
        let status = timeout(PATIENCE, talk)
            .await
            .map_err(|_| self.failed(verb, format!("it did not end within {} seconds", PATIENCE.as_secs())))?
            .map_err(failed)?;
        Ok((status, output))
    }

    fn failed(&self, verb: &'static str, why: String) -> CredentialsError {
        CredentialsError::Helper { helper: self.name.to_owned(), verb, why }
    }
}

/// What a helper says of its failure.
fn printable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() { "it does not say why".to_owned() } else { text }
}
